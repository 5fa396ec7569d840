"""Google Cloud, through its JSON APIs with google-auth's credentials."""

from crossload.ports.provider import Provider

_ROOM = "crossload.providers.gcp"

PROVIDER = Provider(
    name="gcp",
    title="Google Cloud",
    extra="gcp",
    ports={
        "store": f"{_ROOM}.store:open_store",
        "identity": f"{_ROOM}.identity:open_identity",
        "policy": f"{_ROOM}.policy:open_policy",
        "probe": f"{_ROOM}.probe:open_probe",
        "account": f"{_ROOM}.inventory:open_account",
        "infra": f"{_ROOM}.infra:open_infra",
        "code": f"{_ROOM}.code:open_code",
    },
)
