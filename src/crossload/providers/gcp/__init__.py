"""Google Cloud, through its JSON APIs with google-auth's credentials."""

from crossload.ports.provider import Provider

_ROOM = "crossload.providers.gcp"
# Without an issuer, Application Default Credentials sign in.
_WIRE = {
    "endpoint": "address of the storage API; the public one when left out",
    "issuer": "OIDC issuer to fetch tokens from, in place of the default credentials",
    "audience": "audience of the issuer's tokens",
    "client_id": "client at the issuer to work as",
    "client_secret": "reference to that client's secret",
}
_PROJECT = {**_WIRE, "project": "project that owns the buckets"}
_STORE = {**_PROJECT, "versioning": "`off` makes new buckets without object versions; on when left out"}

PROVIDER = Provider(
    name="gcp",
    title="Google Cloud",
    extra="gcp",
    schemes=("gs",),
    ports={
        "store": f"{_ROOM}.store:open_store",
        "identity": f"{_ROOM}.identity:open_identity",
        "policy": f"{_ROOM}.policy:open_policy",
        "probe": f"{_ROOM}.probe:open_probe",
        "account": f"{_ROOM}.inventory:open_account",
        "infra": f"{_ROOM}.infra:open_infra",
        "code": f"{_ROOM}.code:open_code",
        "changes": f"{_ROOM}.changes:open_changes",
    },
    settings={
        "store": _STORE,
        "identity": _PROJECT,
        "policy": _WIRE,
        "probe": _WIRE,
        "account": _STORE,
        "infra": {},
        "code": _PROJECT,
        "changes": {**_PROJECT, "pubsub_endpoint": "address of Pub/Sub's API; the public one when left out"},
    },
)
