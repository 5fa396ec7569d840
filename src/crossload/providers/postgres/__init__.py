"""PostgreSQL with pgvector, wherever it runs."""

from crossload.ports.provider import Provider

_ROOM = "crossload.providers.postgres"
_URL = {"url": "connection string (`postgresql://...`); a reference when it holds a password"}

PROVIDER = Provider(
    name="postgres",
    title="PostgreSQL + pgvector",
    extra="postgres",
    ports={
        "vectors": f"{_ROOM}.vectors:open_vectors",
        "tables": f"{_ROOM}.tables:open_tables",
        "identity": f"{_ROOM}.identity:open_identity",
        "policy": f"{_ROOM}.policy:open_policy",
        "probe": f"{_ROOM}.probe:open_probe",
        "account": f"{_ROOM}.inventory:open_account",
    },
    settings={"vectors": _URL, "tables": _URL, "identity": _URL, "policy": _URL, "probe": _URL, "account": _URL},
)
