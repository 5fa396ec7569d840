"""Qdrant: collections of a server, or of the client's own local mode."""

from crossload.ports.provider import Provider

_ROOM = "crossload.providers.qdrant"
_SERVER = {
    "url": "address of the server, as `http://host:6333`",
    "key": "reference to its API key, if it wants one",
    "path": "folder of the client's local mode, in place of a server; for tests and small sets",
}

PROVIDER = Provider(
    name="qdrant",
    title="Qdrant",
    extra="qdrant",
    ports={"vectors": f"{_ROOM}.vectors:open_vectors", "identity": f"{_ROOM}.identity:open_identity"},
    settings={"vectors": _SERVER, "identity": _SERVER},
)
