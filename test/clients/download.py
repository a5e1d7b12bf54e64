"""Downloads a container as Microsoft's Python SDK sees it: download.py CONTAINER DIRECTORY.

The account comes from AZURE_STORAGE_CONNECTION_STRING. Directory markers become directories.
"""

import os
import pathlib
import sys

from azure.storage.blob import ContainerClient


def main() -> None:
    container, directory = sys.argv[1], pathlib.Path(sys.argv[2])
    client = ContainerClient.from_connection_string(os.environ["AZURE_STORAGE_CONNECTION_STRING"], container)
    for blob in client.list_blobs(include=["metadata"]):
        path = directory / blob.name
        if (blob.metadata or {}).get("hdi_isfolder") == "true":
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            client.download_blob(blob.name).readinto(file)


main()
