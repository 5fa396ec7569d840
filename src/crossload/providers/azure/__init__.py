"""Microsoft Azure, through the official SDK (azure-storage-blob)."""

from crossload.ports.provider import Provider

_ROOM = "crossload.providers.azure"
_STORAGE = {
    "account": "name of the storage account",
    "endpoint": "address of its Blob service; the account's public one when left out",
    "key": "reference to an account key; the SDK's default chain signs in when left out",
}

PROVIDER = Provider(
    name="azure",
    title="Microsoft Azure",
    extra="azure",
    schemes=("az",),
    ports={
        "store": f"{_ROOM}.store:open_store",
        "identity": f"{_ROOM}.identity:open_identity",
        "infra": f"{_ROOM}.infra:open_infra",
        "changes": f"{_ROOM}.changes:open_changes",
    },
    settings={
        "store": {
            **_STORAGE,
            "offline_classes": "`allowed` writes archived objects as archived, though nobody can read the copy at once",
        },
        "identity": _STORAGE,
        "infra": {},
        "changes": {**_STORAGE, "queue": "address of a storage queue that Event Grid fills; else the change feed"},
    },
)
