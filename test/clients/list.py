"""Lists a container of a Blob emulator as Microsoft's Python SDK sees it: list.py ACCOUNT_URL CONTAINER.

The credential is the account key that every emulator knows.
"""

import sys

from azure.storage.blob import ContainerClient

KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

client = ContainerClient(sys.argv[1], sys.argv[2], credential=KEY)
blobs = list(client.list_blobs(include=["metadata"]))
markers = [blob for blob in blobs if (blob.metadata or {}).get("hdi_isfolder") == "true"]
files = [blob for blob in blobs if blob not in markers]
for blob in files[:5]:
    print(f"{blob.size:>9}  {blob.name}")
print(f"... {len(files)} files of {sum(blob.size for blob in files)} bytes, {len(markers)} directory markers")
