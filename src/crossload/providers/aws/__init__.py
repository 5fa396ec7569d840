"""Amazon Web Services, and whatever speaks its APIs, through the official SDK (boto3)."""

from crossload.ports.provider import Provider

_ROOM = "crossload.providers.aws"
# Whatever is missing is left to the SDK's own chain.
_SIGN_IN = {
    "profile": "profile of the SDK's configuration to work as",
    "config_file": "the SDK's configuration file, in place of its usual one",
    "credentials_file": "the SDK's credentials file, in place of its usual one",
}
_REACH = {
    **_SIGN_IN,
    "vendor": "who speaks S3 there, a name of docs/vendors.md; recognised by its address when left out",
    "endpoint": "address of the store that speaks S3; the SDK's configuration or the vendor's own when left out",
    "account": "account that is part of the vendor's own address",
}

PROVIDER = Provider(
    name="aws",
    title="Amazon Web Services",
    extra="aws",
    schemes=("s3",),
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
        "changes": f"{_ROOM}.changes:open_changes",
    },
    settings={
        "store": {
            **_REACH,
            "data_path": "`sdk` sends objects through the SDK alone, and not the shorter way",
            "offline_classes": "`allowed` writes archived objects as archived, though nobody can read the copy at once",
        },
        "identity": _REACH,
        "account": _REACH,
        "models": {**_REACH, "model": "model id, inference profile id or ARN to ask"},
        "agents": _REACH,
        "policy": _REACH,
        "probe": _REACH,
        "infra": {},
        "code": _SIGN_IN,
        "changes": {**_REACH, "changes": "`bus` follows changes through EventBridge, and not straight from S3"},
    },
)
