"""PostgreSQL with pgvector, wherever it runs."""

from crossload.ports.provider import Provider

_ROOM = "crossload.providers.postgres"

PROVIDER = Provider(
    name="postgres",
    title="PostgreSQL + pgvector",
    extra="postgres",
    ports={
        "vectors": f"{_ROOM}.vectors:open_vectors",
        "identity": f"{_ROOM}.identity:open_identity",
        "account": f"{_ROOM}.inventory:open_account",
    },
)
