"""Merging places and applying what people say of assets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from crossload.engines.planner.merge import apply_overlays, merge, report_problems
from crossload.estate.asset import Asset, Edge, Inventory, Kind, KindReport
from crossload.estate.migration import Overlay
from crossload.ports.account import Discovery


def queue(name: str, place: str = "a", **tags: str) -> Asset:
    return Asset(f"queue:{name}", Kind.QUEUE, name, place, f"{place}:{name}", {}, tags)


def overlay(kind: str | None = None, name: str | None = None, **said: str) -> Overlay:
    match: dict[str, Any] = {key: value for key, value in (("kind", kind), ("name", name)) if value}
    return Overlay.model_validate({"match": match, "set": said})


def test_the_same_name_at_two_places_is_told_apart_with_its_edges() -> None:
    role = Asset("role:r", Kind.ROLE, "r", "b", "b:r")
    first = Discovery("a", (queue("jobs", "a"),))
    second = Discovery("b", (queue("jobs", "b"), role), (Edge("role:r", "reads", "queue:jobs", ""),))
    merged = merge([first, second])
    assert [asset.id for asset in merged.assets] == ["queue:a/jobs", "queue:b/jobs", "role:r"]
    assert merged.edges == (Edge("role:r", "reads", "queue:b/jobs", ""),)
    assert merge([second, first]) == merged


def test_a_catalog_entry_joins_only_when_the_code_names_it() -> None:
    model = Asset("endpoint:m", Kind.ENDPOINT, "m", "a", "m")
    place = Discovery("a", (queue("jobs"),), catalog=(model, replace(model, id="endpoint:n", name="n", native="n")))
    assert [asset.id for asset in merge([place]).assets] == ["queue:jobs"]
    app = Asset("app:x", Kind.APP, "x", "a", "x")
    with_code = merge([place], [app], [Edge("app:x", "calls", "endpoint:m", "main.py:1")])
    assert [asset.id for asset in with_code.assets] == ["app:x", "endpoint:m", "queue:jobs"]


def test_overlays_rename_and_tag_and_edges_follow() -> None:
    inventory = Inventory((queue("x-jobs"), queue("y")), (Edge("queue:y", "calls", "queue:x-jobs", "e"),))
    applied, problems = apply_overlays(
        inventory, [overlay("queue", "*", owner="ops"), overlay("queue", "x-*", id="jobs", owner="us", uptime="tier1")]
    )
    assert problems == []
    jobs = applied.get("queue:jobs")
    assert jobs is not None and jobs.name == "x-jobs" and jobs.overlay == {"owner": "us", "uptime": "tier1"}
    assert applied.edges == (Edge("queue:y", "calls", "queue:jobs", "e"),)


def test_applying_again_changes_nothing_and_other_overlays_start_afresh() -> None:
    inventory = Inventory((queue("x-jobs"),), (Edge("queue:x-jobs", "calls", "queue:x-jobs", ""),))
    rules = [overlay("queue", "x-*", id="jobs", owner="us")]
    once, _ = apply_overlays(inventory, rules)
    twice, _ = apply_overlays(once, rules)
    assert once == twice
    back, _ = apply_overlays(once, [])
    assert back == inventory


def test_a_providers_tags_speak_until_the_file_does() -> None:
    tagged = Inventory((queue("jobs", sensitivity="pii", owner="ops", colour="red"),))
    applied, _ = apply_overlays(tagged, [])
    assert applied.assets[0].overlay == {"sensitivity": "pii", "owner": "ops"}
    applied, _ = apply_overlays(tagged, [overlay("queue", sensitivity="public")])
    assert applied.assets[0].overlay == {"sensitivity": "public", "owner": "ops"}


def test_an_overlay_that_matches_nothing_is_told() -> None:
    _, problems = apply_overlays(Inventory((queue("jobs"),)), [overlay("queue", "job", owner="x")])
    assert [(p.code, str(p.severity)) for p in problems] == [("XL303", "warning")]
    assert "name: job" in problems[0].summary


def test_a_kind_that_does_not_exist_is_an_error() -> None:
    _, problems = apply_overlays(Inventory((queue("jobs"),)), [overlay("bucket", owner="x")])
    assert [(p.code, str(p.severity)) for p in problems] == [("XL304", "error")]
    assert "dataset" in problems[0].hint


def test_two_assets_with_one_id_are_an_error() -> None:
    _, problems = apply_overlays(Inventory((queue("a1"), queue("a2"))), [overlay("queue", "a*", id="a")])
    assert [(p.code, p.detail) for p in problems] == [("XL302", "a1, a2")]


def test_an_id_may_carry_its_kind() -> None:
    applied, _ = apply_overlays(Inventory((queue("a1"),)), [overlay("queue", id="queue:a")])
    assert applied.assets[0].id == "queue:a"


def test_what_discovery_could_not_see_is_told() -> None:
    reports = tuple(
        KindReport("a", f"k{i}", status, None, "words")
        for i, status in enumerate(("found", "denied", "unsupported", "failed"))
    )
    problems = report_problems(Inventory((), (), reports))
    assert [(p.code, str(p.severity)) for p in problems] == [
        ("XL301", "warning"),
        ("XL306", "note"),
        ("XL305", "warning"),
    ]
    assert all(problem.detail == "words" for problem in problems)


def test_what_an_endpoint_serves_is_said_by_people_and_can_be_taken_back() -> None:
    model = Asset("model:llm", Kind.MODEL, "llm", "a", "llm")
    endpoint = Asset("endpoint:m", Kind.ENDPOINT, "m", "a", "m")
    inventory = Inventory((endpoint, model))
    rules = [overlay("endpoint", serves="model:llm"), overlay("model", id="small")]
    applied, problems = apply_overlays(inventory, rules)
    assert problems == [] and applied.edges == (Edge("endpoint:m", "serves", "model:small", "overlay"),)
    assert apply_overlays(applied, rules)[0] == applied, "both names of the artifact are understood"
    assert apply_overlays(applied, [])[0] == inventory
    _, problems = apply_overlays(inventory, [overlay("endpoint", serves="model:other")])
    assert [(p.code, p.hint) for p in problems] == [("XL307", "model artifacts: model:llm")]
