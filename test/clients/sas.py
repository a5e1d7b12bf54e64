"""Prints an account SAS that may read and list everything for an hour, for clients that take no account key.

The account comes from AZURE_STORAGE_CONNECTION_STRING.
"""

import datetime
import os

from azure.storage.blob import AccountSasPermissions, BlobServiceClient, ResourceTypes, generate_account_sas

client = BlobServiceClient.from_connection_string(os.environ["AZURE_STORAGE_CONNECTION_STRING"])
now = datetime.datetime.now(datetime.timezone.utc)
print(
    generate_account_sas(
        client.account_name,
        client.credential.account_key,
        ResourceTypes(service=True, container=True, object=True),
        AccountSasPermissions(read=True, list=True),
        expiry=now + datetime.timedelta(hours=1),
    )
)
