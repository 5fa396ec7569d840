"""The other providers' accounts against the lab's real servers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from crossload import api
from crossload.estate.asset import Kind
from crossload.estate.place import Place
from crossload.ports.errors import NotSignedIn
from crossload.ports.provider import Settings
from crossload.ports.store import ObjectMeta
from crossload.providers.gcp.inventory import open_account as open_gcp
from crossload.providers.gcp.store import open_store
from crossload.providers.postgres.inventory import open_account as open_postgres

if TYPE_CHECKING:
    from crossload.lab import Lab

BUCKET = "inventory-of-cloud-b"


def settings_of(lab: Lab, identity: str = "", **changes: str) -> Settings:
    _, _, targets = api.lab_places(lab.home)
    section: dict[str, Any] = targets[0]
    connection = {**section["connection"], **changes}
    place = Place(section["id"], section["provider"], section["region"], section["country"], connection)
    return Settings(place, connection, lab.env(), identity)


@pytest.fixture
def filled(lab: Lab) -> Iterator[Lab]:
    """One bucket in cloud B with a document and a model."""
    store = open_store(settings_of(lab))
    store.ensure_bucket(BUCKET)
    keys = ("topics/ü.txt", "llm/model.gguf")
    for key in keys:
        store.write(BUCKET, key, b"12345", ObjectMeta("text/plain"))
    yield lab
    for key in keys:
        store.delete(BUCKET, key)
    store.remove_bucket(BUCKET)


def test_cloud_bs_buckets_are_found_with_their_counts(filled: Lab) -> None:
    found = open_gcp(settings_of(filled)).discover()
    assets = {asset.id: asset for asset in found.assets if asset.fact("bucket") == BUCKET}
    assert set(assets) == {f"dataset:{BUCKET}", "model:llm"}
    dataset = assets[f"dataset:{BUCKET}"]
    assert (dataset.fact("object_count"), dataset.fact("size_bytes")) == (1, 5)
    assert dataset.fact("encryption") == "AES256" and dataset.native == f"gs://{BUCKET}"
    statuses = {report.kind: report.status for report in found.reports}
    assert statuses["bucket"] == "found" and statuses["queue"] == "unsupported"


def test_cloud_b_refuses_a_wrong_secret_as_one_error(lab: Lab) -> None:
    from crossload.providers.gcp.session import forget_tokens

    forget_tokens()
    try:
        with pytest.raises(NotSignedIn):
            open_gcp(settings_of(lab, client_secret="not-the-secret")).discover()
    finally:
        forget_tokens()


def postgres(lab: Lab, variable: str) -> Settings:
    connection = {"url": f"env:{variable}"}
    return Settings(Place("pg", "postgres", "here", "DE", connection), connection, lab.env())


def test_a_databases_indexes_and_tables(helpdesk: Lab) -> None:
    account = open_postgres(postgres(helpdesk, "CROSSLOAD_LAB_PG_A"))
    found = account.discover()
    (index,) = [asset for asset in found.assets if asset.kind is Kind.INDEX]
    assert index.fact("dimension") == 384 and index.fact("rows") > 0
    assert index.fact("size_bytes") > index.fact("vector_bytes"), "the graph and the text take room too"
    assert {report.kind: report.status for report in found.reports}["index"] == "found"
    assert account.permissions()


def test_a_database_with_a_wrong_password_is_one_error(helpdesk: Lab) -> None:
    url = helpdesk.env()["CROSSLOAD_LAB_PG_A"].partition("?")[0]
    connection = {"url": url.replace("mover@", "mover:wrong@")}
    with pytest.raises(NotSignedIn):
        open_postgres(Settings(Place("pg", "postgres", "here", "", connection), connection, {})).discover()
