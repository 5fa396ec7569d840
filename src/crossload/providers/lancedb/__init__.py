"""LanceDB: tables in a folder or in a bucket."""

from crossload.ports.provider import Provider

_ROOM = "crossload.providers.lancedb"
_URI = {"uri": "folder that holds the tables, or the address of one in a bucket"}

PROVIDER = Provider(
    name="lancedb",
    title="LanceDB",
    extra="lancedb",
    ports={"vectors": f"{_ROOM}.vectors:open_vectors", "identity": f"{_ROOM}.identity:open_identity"},
    settings={"vectors": _URI, "identity": _URI},
)
