"""From the inventory to foundations: what moves gets what it needs, what stays gets nothing, nobody gets more."""

from __future__ import annotations

from dataclasses import replace

import yaml

from crossload.engines.infra.collector import check_collector, collector
from crossload.engines.infra.derive import derive, label
from crossload.estate.asset import Asset, Edge, Inventory, Kind
from crossload.estate.place import Place
from crossload.ports.infra import Foundations, Grant

PLACE = Place("target", "any", "europe-west3", "DE")


def test_buckets_keys_and_logs_for_what_moves(foundations: Foundations) -> None:
    assert [(bucket.name, bucket.assets) for bucket in foundations.buckets] == [
        ("helpdesk-docs", ("dataset:helpdesk-docs",)), ("helpdesk-models", ("model:smol",)),
    ]  # fmt: skip
    assert all(bucket.versioning and bucket.key == foundations.keys[0].name for bucket in foundations.buckets)
    assert foundations.sink is not None
    assert foundations.sink.retention_days >= 365
    assert foundations.labels == {"crossload_migration": "helpdesk", "app": "helpdesk", "owner": "team-n-h-co"}


def test_roles_get_the_rights_they_had_and_no_more(foundations: Foundations) -> None:
    (role,) = foundations.roles
    assert role.grants == (
        Grant("objects.list", "helpdesk-docs"), Grant("objects.list", "helpdesk-models"),
        Grant("objects.read", "helpdesk-docs"), Grant("objects.read", "helpdesk-models"),
        Grant("objects.write", "helpdesk-docs"), Grant("secrets.read", "helpdesk/api-key"),
    )  # fmt: skip


def test_a_role_without_rights_on_the_data_is_not_written_and_said(inventory: Inventory) -> None:
    _, problems = derive("m", PLACE, inventory, {"dataset:helpdesk-docs": "target"})
    assert [(item.code, item.subject) for item in problems] == [("XL801", "role:x")]


def test_two_artifacts_of_one_bucket_share_it() -> None:
    inventory = Inventory(
        tuple(
            Asset(f"model:{name}", Kind.MODEL, name, "source", name, {"bucket": "models", "key": name}) for name in "ab"
        )
    )
    foundations, _ = derive("m", PLACE, inventory, {"model:a": "target", "model:b": "target"})
    assert [bucket.assets for bucket in foundations.buckets] == [("model:a", "model:b")]


def test_each_place_gets_its_own(inventory: Inventory) -> None:
    choices = {"dataset:helpdesk-docs": "target", "model:smol": "elsewhere"}
    here, _ = derive("m", PLACE, inventory, choices)
    there, _ = derive("m", replace(PLACE, id="elsewhere"), inventory, choices)
    assert [bucket.name for bucket in here.buckets] == ["helpdesk-docs"]
    assert [bucket.name for bucket in there.buckets] == ["helpdesk-models"]
    # A secret without a choice is not copied to two clouds at once.
    assert not here.secrets
    assert not there.secrets
    chosen, _ = derive("m", PLACE, inventory, {**choices, "secret:helpdesk/api-key": "target"})
    assert [secret.name for secret in chosen.secrets] == ["helpdesk/api-key"]


def test_nothing_chosen_nothing_made(inventory: Inventory) -> None:
    foundations, _ = derive("m", PLACE, inventory, {})
    assert (foundations.buckets, foundations.keys, foundations.roles, foundations.secrets, foundations.sink) == (
        (), (), (), (), None,
    )  # fmt: skip


def test_unknown_bucket_is_left_out_rather_than_guessed() -> None:
    inventory = Inventory(
        (Asset("dataset:x", Kind.DATASET, "x", "source", "x"),), (Edge("role:r", "reads", "dataset:x"),)
    )
    foundations, _ = derive("m", PLACE, inventory, {"dataset:x": "target"})
    assert not foundations.buckets


def test_labels() -> None:
    assert label("Team Näh & Co ") == "team-n-h-co"
    assert len(label("x" * 100)) == 63


def test_collector_carries_all_three_signals_and_no_credential(foundations: Foundations) -> None:
    text = collector(foundations, {"cloud.provider": "somebody"})
    assert check_collector(text) == []
    settings = yaml.safe_load(text)
    assert set(settings["service"]["pipelines"]) == {"traces", "metrics", "logs"}
    assert all(pipeline["processors"][0] == "memory_limiter" for pipeline in settings["service"]["pipelines"].values())
    attributes = {item["key"]: item["value"] for item in settings["processors"]["resource/place"]["attributes"]}
    assert attributes["cloud.region"] == "europe-west3"
    assert attributes["crossload.migration"] == "helpdesk"
    assert settings["exporters"]["otlphttp"]["headers"] == {"authorization": "${env:CROSSLOAD_OTLP_AUTHORIZATION}"}
    endpoints = [*(item["endpoint"] for item in settings["receivers"]["otlp"]["protocols"].values())]
    assert all(address.startswith("127.0.0.1:") for address in endpoints)


def test_collector_mistakes_are_found(foundations: Foundations) -> None:
    text = collector(foundations, {})
    settings = yaml.safe_load(text)

    def problems(change: str, old: str = "") -> list[str]:
        return [item.summary for item in check_collector(text.replace(old, change) if old else change)]

    assert problems("a: [")
    assert "no `service` section" in problems("receivers: {}")[0]
    assert problems("  batch2:", "  batch:") == [
        "processors: `batch` is used and not defined", "processors: `batch2` is defined and never used",
    ]  # fmt: skip
    del settings["service"]["pipelines"]["logs"]
    assert problems(yaml.safe_dump(settings)) == ["no pipeline carries logs"]
    settings["service"]["pipelines"]["logs"] = {"receivers": ["otlp"], "exporters": []}
    assert problems(yaml.safe_dump(settings)) == ["pipeline logs has no exporters"]
