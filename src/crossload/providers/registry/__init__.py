"""Any registry of container images that speaks OCI Distribution."""

from crossload.ports.provider import Provider

PROVIDER = Provider(
    name="registry",
    title="Container image registry (OCI Distribution)",
    ports={"registry": "crossload.providers.registry.registry:open_registry"},
    settings={
        "registry": {
            "endpoint": "address of the registry, with `https://`",
            "username": "user to sign in as; nobody when left out",
            "password": "reference to that user's password or access token",
            "identity_token": "reference to an OAuth2 refresh token, in place of user and password",
            "ca_file": "PEM file with the authority behind the registry's certificate, beside the system's own",
            "plain_http": "`allowed` sends credentials over `http://` to another machine; refused when left out",
            "chunked": "`off` sends every blob in one request, for a registry that takes no chunks",
        }
    },
)
