"""Amazon Web Services, and whatever speaks its APIs, through the official SDK (boto3)."""

from crossload.ports.provider import Provider

_ROOM = "crossload.providers.aws"

PROVIDER = Provider(
    name="aws",
    title="Amazon Web Services",
    extra="aws",
    ports={
        "store": f"{_ROOM}.store:open_store",
        "identity": f"{_ROOM}.identity:open_identity",
        "account": f"{_ROOM}.account:open_account",
        "models": f"{_ROOM}.models:open_models",
        "agents": f"{_ROOM}.agents:open_agents",
        "policy": f"{_ROOM}.policy:open_policy",
        "probe": f"{_ROOM}.probe:open_probe",
        "infra": f"{_ROOM}.infra:open_infra",
        "code": f"{_ROOM}.code:open_code",
    },
)
