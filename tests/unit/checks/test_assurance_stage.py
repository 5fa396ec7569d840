"""The assurance stage: what it plans, what it says of a safe and of an unsafe target, and that asking again is safe."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from crossload.estate.asset import Asset, Inventory, Kind
from crossload.estate.place import Place
from crossload.ports.errors import NotFound, Unavailable, Unsupported
from crossload.ports.policy import Fact, Posture
from crossload.ports.probe import LIST, NONE, OPERATIONS, OWN, READ, WRITE
from crossload.ports.store import ObjectInfo
from crossload.stages import assurance
from crossload.steps.step import Facts, Step

TAGGED = {"sensitivity": "internal"}
INVENTORY = Inventory(
    (
        Asset("dataset:docs", Kind.DATASET, "docs", "source", "docs", {"bucket": "docs"}, {}, TAGGED),
        Asset("index:chunks", Kind.INDEX, "chunks", "source", "chunks", {"table": "chunks"}, {}, TAGGED),
        Asset("model:smol", Kind.MODEL, "smol", "source", "m", {"bucket": "models", "key": "m.gguf"}, {}, TAGGED),
        Asset("secret:token", Kind.SECRET, "token", "source", "token"),
    )
)
CHOICES = {"dataset:docs": "target", "model:smol": "target", "index:chunks": "target"}


class Estate:
    """A World made of the table probe and table postures of conftest."""

    def __init__(self, make_probe: Callable[..., Any], facts: dict[str, object]) -> None:
        file = SimpleNamespace(targets=SimpleNamespace(residency={"internal": ["EU"]}))
        places = {
            "source": Place("source", "local", "eu-central-1", "DE"),
            "target": Place("target", "local", "europe-west3", "DE"),
        }  # fmt: skip
        self.migration = SimpleNamespace(name="m", places=places, file=file)
        self.inventory = INVENTORY
        self.workspace = Path("unused")
        self.outcomes: dict[str, Any] = {}
        self.probes = {place: make_probe(place) for place in places}
        self.facts = {"source": dict(facts), "target": dict(facts)}
        self.facts["source"]["region"] = "eu-central-1"
        self.unoffered: set[str] = set()
        self.empty = False
        self.asked: list[tuple[str, str]] = []

    def probe(self, place: str, port: str = "") -> Any:
        self.asked.append((place, port))
        if f"{place}/probe" in self.unoffered:
            raise Unsupported("no probe")
        return self.probes[place]

    def policy(self, place: str, port: str = "") -> Any:
        if f"{place}/policy" in self.unoffered:
            raise Unsupported("no policy")
        facts = {name: Fact(value, "table") for name, value in self.facts[place].items()}
        return SimpleNamespace(posture=lambda bucket: Posture(place, bucket, facts))

    def store(self, place: str, identity: str = "") -> Any:
        def listing(bucket: str, prefix: str = "") -> Any:
            if self.empty:
                raise NotFound(bucket)
            yield ObjectInfo(".crossload/attack/left", 5, "e")
            yield ObjectInfo("empty", 0, "e")
            yield from (ObjectInfo(key, 9, "e") for held, key in sorted(self.probes[place].objects) if held == bucket)

        return SimpleNamespace(list=listing)

    def outcome(self, step: str) -> Any:
        return self.outcomes.get(step)


@pytest.fixture
def estate(safe_probe: Any) -> Estate:
    def make(place: str) -> Any:
        probe = type(safe_probe)(place)
        probe.rights = {name: set(allowed) for name, allowed in safe_probe.rights.items()}
        probe.objects = set(safe_probe.objects)
        return probe

    safe = {"encryption": "customer-key", "public_access": "blocked", "versioning": "on", "transport": "tls-only",
            "access_logs": "on", "region": "europe-west3"}  # fmt: skip
    return Estate(make, safe)


def planned(estate: Estate, inventory: Inventory = INVENTORY) -> dict[str, Step]:
    result = assurance.plan(estate.migration, Facts(inventory, CHOICES))  # type: ignore[arg-type]
    return {step.id: step for step in result.steps}


def perform(estate: Estate, step_id: str) -> Any:
    outcome = assurance.perform(planned(estate)[step_id], estate)  # type: ignore[arg-type]
    json.dumps(outcome.data)
    estate.outcomes[step_id] = outcome.data
    return outcome


def test_plan_names_its_steps_and_does_no_work(estate: Estate) -> None:
    steps = planned(estate)
    assert list(steps) == [
        "assurance/compare/dataset:docs", "assurance/compare/index:chunks", "assurance/compare/model:smol",
        "assurance/residency/estate:m", "assurance/attack/target",
    ]  # fmt: skip
    assert steps["assurance/compare/dataset:docs"].after == ("transfer/copy/dataset:docs",)
    assert steps["assurance/attack/target"].params["buckets"] == ["docs", "models"]
    assert all("nothing to undo" in step.undo for step in steps.values())
    assert not estate.probes["target"].log


def test_plan_warns_of_data_without_sensitivity(estate: Estate) -> None:
    bare = Inventory((Asset("dataset:docs", Kind.DATASET, "docs", "source", "docs", {"bucket": "docs"}),))
    result = assurance.plan(estate.migration, Facts(bare, CHOICES))  # type: ignore[arg-type]
    assert [item.code for item in result.diagnostics] == ["XL850"]


def test_nothing_moves_nothing_is_asked(estate: Estate) -> None:
    assert not assurance.plan(estate.migration, Facts(INVENTORY)).steps  # type: ignore[arg-type]


def test_a_safe_target_is_good_and_asking_again_changes_nothing(estate: Estate) -> None:
    for step_id, step in planned(estate).items():
        assert perform(estate, step_id).status == "done", step_id
        assert assurance.perform(step, estate).status == "unchanged"  # type: ignore[arg-type]
        assert assurance.verify(step, estate).good  # type: ignore[arg-type]
        assert assurance.undo(step, estate).good  # type: ignore[arg-type]
    assert estate.probes["target"].objects == {("docs", "a.txt"), ("models", "m.gguf")}


def test_an_index_is_asked_of_the_service_that_holds_it(estate: Estate) -> None:
    for probe in estate.probes.values():
        probe.objects.add(("chunks", "chunks"))
    outcome = perform(estate, "assurance/compare/index:chunks")
    assert estate.asked == [("source", "vectors"), ("target", "vectors")]
    assert outcome.good
    subjects = {line["subject"] for line in outcome.data["lines"]}
    assert "app may read" in subjects
    assert "versioning" not in subjects


def test_weaker_rights_are_named_and_do_not_stop(estate: Estate) -> None:
    estate.probes["target"].rights["audit"] = {LIST, READ}
    outcome = perform(estate, "assurance/compare/dataset:docs")
    assert outcome.good
    assert outcome.data["counts"]["weaker"] == 1
    worst = outcome.data["lines"][0]
    assert (worst["subject"], worst["source"], worst["target"]) == ("audit may read", "no", "yes")
    assert worst["hint"]
    assert "audit may read: no -> yes" in outcome.summary


def test_an_identity_only_one_side_knows_is_unknown(estate: Estate) -> None:
    del estate.probes["target"].rights["app"]
    lines = perform(estate, "assurance/compare/dataset:docs").data["lines"]
    assert {line["verdict"] for line in lines if line["subject"].startswith("app ")} == {"unknown"}


def test_an_open_bucket_refuses(estate: Estate) -> None:
    estate.probes["target"].rights[NONE] = {READ}
    assert perform(estate, "assurance/compare/dataset:docs").status == "refused"
    attack = perform(estate, "assurance/attack/target")
    assert attack.status == "refused"
    assert "Anybody reads an object" in attack.summary
    assert attack.data["counts"]["open"] == 1


def test_a_change_since_the_last_look_is_not_unchanged(estate: Estate) -> None:
    perform(estate, "assurance/compare/dataset:docs")
    estate.facts["target"]["versioning"] = "off"
    outcome = perform(estate, "assurance/compare/dataset:docs")
    assert outcome.status == "done"
    assert outcome.data["counts"]["weaker"] == 1


def test_residency_stops_outside(estate: Estate) -> None:
    assert perform(estate, "assurance/residency/estate:m").good
    estate.migration.places["target"] = Place("target", "local", "us-east1", "US")
    estate.facts["target"]["region"] = "us-east1"
    outcome = perform(estate, "assurance/residency/estate:m")
    assert outcome.status == "refused"
    assert outcome.data["counts"]["weaker"] == 3


def test_ports_that_are_not_offered_leave_unknown_and_never_good(estate: Estate) -> None:
    estate.unoffered = {"target/policy", "target/probe"}
    lines = perform(estate, "assurance/compare/dataset:docs").data["lines"]
    assert {line["verdict"] for line in lines} == {"unknown"}
    assert perform(estate, "assurance/attack/target").status == "failed"


def test_an_empty_target_cannot_be_attacked_and_is_not_called_safe(estate: Estate) -> None:
    estate.empty = True
    assert perform(estate, "assurance/attack/target").status == "failed"


def test_a_broken_control_fails_the_step(estate: Estate) -> None:
    estate.probes["target"].rights[OWN] = set(OPERATIONS) - {WRITE}
    outcome = perform(estate, "assurance/attack/target")
    assert outcome.status == "failed"
    assert "control" in outcome.summary


def test_what_is_left_behind_fails_the_step(estate: Estate) -> None:
    estate.probes["target"].sticky = True
    outcome = perform(estate, "assurance/attack/target")
    assert outcome.status == "failed"
    assert "LEFT BEHIND" in outcome.summary


def test_a_target_that_is_down_is_an_error_of_the_step(estate: Estate) -> None:
    estate.probes["target"].down = True
    assert perform(estate, "assurance/attack/target").status == "failed"
    with pytest.raises(Unavailable):
        estate.probes["target"].request(LIST, "docs", "", OWN)
