"""Microsoft Azure, through the official SDK (azure-storage-blob)."""

from crossload.ports.provider import Provider

_ROOM = "crossload.providers.azure"

PROVIDER = Provider(
    name="azure",
    title="Microsoft Azure",
    extra="azure",
    ports={
        "store": f"{_ROOM}.store:open_store",
        "identity": f"{_ROOM}.identity:open_identity",
        "infra": f"{_ROOM}.infra:open_infra",
    },
)
