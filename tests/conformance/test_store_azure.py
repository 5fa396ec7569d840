"""AzureStore against Azurite."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from crossload.conformance.store import CASES, Case, StoreBench
from crossload.estate.place import Place
from crossload.lab import Lab
from crossload.ports.errors import NotSignedIn
from crossload.ports.identity import Permission
from crossload.ports.provider import Settings
from crossload.providers.azure.errors import translated
from crossload.providers.azure.identity import AzureIdentity
from crossload.providers.azure.session import close_services, service
from crossload.providers.azure.store import AzureStore

# What Azurite 3.37 does that Blob Storage does not.
KNOWN = {
    "key_backslash": "`a\\b` silently becomes `a/b`",
}


def settings_for(lab: Lab, identity: str = "", **more: str) -> Settings:
    env = lab.env()
    connection = {
        "account": env["CROSSLOAD_LAB_AZURE_ACCOUNT"],
        "endpoint": env["CROSSLOAD_LAB_AZURE_ENDPOINT"],
        "key": f"file:{lab.home / 'secrets' / 'azure-key'}",
        **more,
    }
    return Settings(Place("c", "azure", "westeurope", "NL", connection), connection, env, identity)


@pytest.fixture(scope="module")
def bench(conformance_lab: Lab, need: Callable[..., None], dead_port: int) -> Iterator[StoreBench]:
    need("azurite")
    lab = conformance_lab
    wrong = base64.b64encode(b"somebody else's key").decode()
    account = lab.env()["CROSSLOAD_LAB_AZURE_ACCOUNT"]

    def write_damaged(bucket: str, key: str) -> None:
        blob: Any = service(settings_for(lab)).get_blob_client(bucket, key)
        with translated():
            blob.upload_blob(b"damaged", headers={"Content-MD5": base64.b64encode(bytes(16)).decode()})

    made = StoreBench(
        # Small pages: a thousand writes take this server half a minute.
        open=lambda: AzureStore(settings_for(lab), page_keys=20),
        many_keys=61,
        unsigned=lambda: AzureStore(settings_for(lab, key=wrong)),
        absent=lambda: AzureStore(settings_for(lab, endpoint=f"http://127.0.0.1:{dead_port}/{account}")),
        write_damaged=write_damaged,
    )
    yield made
    made.close()
    close_services()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_azure_on_azurite(case: Case[StoreBench], bench: StoreBench, keeps: Callable[..., None]) -> None:
    keeps(case, bench, KNOWN)


def test_identity(bench: StoreBench, conformance_lab: Lab) -> None:
    _, bucket, _ = bench.area()
    right = AzureIdentity(settings_for(conformance_lab))
    assert right.sign_in().method == "account key"
    wrong = AzureIdentity(settings_for(conformance_lab, key=base64.b64encode(b"somebody else's key").decode()))
    with pytest.raises(NotSignedIn):
        wrong.sign_in()
    for capability in ("objects.list", "objects.read", "objects.write", "objects.tags"):
        permission = Permission(capability, bucket)
        assert right.check(permission).verdict == "allowed", capability
        assert wrong.check(permission).verdict == "denied", capability
    assert right.check(Permission("models.invoke", "x")).verdict == "unknown"
