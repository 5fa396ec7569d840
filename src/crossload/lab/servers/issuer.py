"""The identity provider of the lab: signs the tokens that cloud B's front and its secret store check."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from crossload.lab.cloud_b import AUDIENCE, client_secrets, issuer_url
from crossload.lab.site import Site
from crossload.lab.spec import HttpProbe, Server


def _exports(site: Site) -> Mapping[str, str]:
    return {"CROSSLOAD_LAB_OIDC_ISSUER": issuer_url(site), "CROSSLOAD_LAB_OIDC_AUDIENCE": AUDIENCE}


def _prep(site: Site) -> None:
    client_secrets(site)


SERVER = Server(
    name="issuer",
    cloud="between",
    about="OpenID Connect issuer",
    port_names=("oidc",),
    argv=lambda site: [
        sys.executable, "-m", "crossload.lab.programs.issuer", "--port", str(site.port("oidc")),
        "--folder", site.folder, "--clients", site.home / "secrets", "--audience", AUDIENCE,
    ],
    ready=lambda site: HttpProbe(issuer_url(site) + "/jwks"),
    hint="pip install cryptography",
    modules=("cryptography",),
    exports=_exports,
    prep=_prep,
    proves="a wrong client secret gets no token; a wrong, foreign or expired token gets 401",
)  # fmt: skip
