"""A folder on this machine as a place: for trying things out, and for carrying data by disk."""

from crossload.ports.provider import Provider

_ROOM = "crossload.providers.local"
_ROOT = {"root": "folder that holds the buckets"}

PROVIDER = Provider(
    name="local",
    title="Local disk",
    ports={"store": f"{_ROOM}.store:open_store", "changes": f"{_ROOM}.changes:open_changes"},
    settings={"store": _ROOT, "changes": _ROOT},
)
