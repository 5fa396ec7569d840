"""Cloud B's identities: names that the issuer signs tokens for, and what the store's front lets each of them do."""

from __future__ import annotations

from collections.abc import Mapping

from crossload.lab.site import Site

PROJECT = "crossload-lab-b"
AUDIENCE = "crossload-lab"
IDENTITIES = ("mover", "app", "auditor", "stranger", "model-host")


def issuer_url(site: Site) -> str:
    return site.url("oidc", "issuer")


def client_secrets(site: Site) -> Mapping[str, str]:
    """Identity -> client secret, each in a file of its own."""
    return {name: site.secret(f"oidc-{name}") for name in IDENTITIES}
