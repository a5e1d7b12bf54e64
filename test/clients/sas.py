"""Prints an account SAS for an hour, for clients that take no account key: sas.py [PERMISSIONS].

Permissions are the letters of a SAS; by default it may read and list everything. The account comes from
AZURE_STORAGE_CONNECTION_STRING.
"""

import datetime
import os
import sys

from azure.storage.blob import AccountSasPermissions, BlobServiceClient, ResourceTypes, generate_account_sas

client = BlobServiceClient.from_connection_string(os.environ["AZURE_STORAGE_CONNECTION_STRING"])
now = datetime.datetime.now(datetime.timezone.utc)
print(
    generate_account_sas(
        client.account_name,
        client.credential.account_key,
        ResourceTypes(service=True, container=True, object=True),
        AccountSasPermissions.from_string(sys.argv[1] if len(sys.argv) > 1 else "rl"),
        expiry=now + datetime.timedelta(hours=1),
    )
)
