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
        "policy": f"{_ROOM}.policy:open_policy",
        "probe": f"{_ROOM}.probe:open_probe",
        "account": f"{_ROOM}.inventory:open_account",
    },
)
