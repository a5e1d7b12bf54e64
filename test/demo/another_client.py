"""Another client of the demo's container: Microsoft's Python SDK. another_client.py look CONTAINER DIRECTORY | exists CONTAINER

The account comes from AZURE_STORAGE_CONNECTION_STRING.
"""

import os
import pathlib
import sys

from azure.storage.blob import ContainerClient

# Enough to see what names, sizes and attributes look like from outside.
SHOWN = 6


def look(client: ContainerClient, directory: pathlib.Path) -> None:
    blobs = list(client.list_blobs(include=["metadata"]))
    files = [blob for blob in blobs if (blob.metadata or {}).get("hdi_isfolder") != "true"]
    for blob in files[:SHOWN]:
        mode = int((blob.metadata or {}).get("permissions", "0"))
        print(f"   {blob.size:>9}  mode {mode & 0o7777:04o}  {blob.name}")
    print(f"   ... {len(files)} blobs, and {len(blobs) - len(files)} markers of directories")
    for blob in files:
        path = directory / blob.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            client.download_blob(blob.name).readinto(file)
    client.upload_blob("notes/from-python.txt", b"written by the Python SDK, read in the pod\n", overwrite=True)


if __name__ == "__main__":
    container = ContainerClient.from_connection_string(os.environ["AZURE_STORAGE_CONNECTION_STRING"], sys.argv[2])
    if sys.argv[1] == "look":
        look(container, pathlib.Path(sys.argv[3]))
    else:
        print("yes" if container.exists() else "no")
