"""The transfer stage over two stores in memory: its four verbs, and what they must remember between two runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from memory_store import Call, MemoryStore

from crossload.estate.evidence import Outcome
from crossload.estate.migration import DataRules, PlaceSection, Targets
from crossload.estate.place import Place
from crossload.ports.errors import Unavailable
from crossload.stages import transfer
from crossload.steps.step import Step


@dataclass
class Bench:
    """What the run would do around the stage: outcomes of good performs are kept, all else is forgotten."""

    source: MemoryStore
    target: MemoryStore
    workspace: Path
    step: Step
    kept: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    rules: DataRules = field(default_factory=lambda: DataRules(workers=2))

    @property
    def world(self) -> Any:
        talk = SimpleNamespace(
            start=lambda *_: None, advance=lambda *_: None, finish=lambda *_: None, say=lambda *_: None
        )
        return SimpleNamespace(
            workspace=self.workspace,
            progress=talk,
            store=lambda place, identity="": self.source if place == "a" else self.target,
            outcome=self.kept.get,
            migration=SimpleNamespace(
                name="tidy",
                places={"a": Place("a", "aws", "eu-central-1")},
                target_ids=(),
                source_ids=("a",),
                file=SimpleNamespace(
                    data=self.rules,
                    targets=Targets(allow=[PlaceSection(id="b", provider="gcp", region="europe-west3")]),
                ),
            ),
        )

    def perform(self) -> Outcome:
        outcome = transfer.perform(self.step, self.world)
        if outcome.good:
            self.kept[self.step.id] = outcome.data
        return outcome

    def verify(self) -> Outcome:
        return transfer.verify(self.step, self.world)

    def undo(self) -> Outcome:
        return transfer.undo(self.step, self.world)


@pytest.fixture
def bench(tmp_path: Path, source: MemoryStore) -> Bench:
    for key, size in (("a", 5), ("b", 70), ("c/d", 200)):
        source.put("docs", key, key.encode()[:1] * size)
    params = {"source": "a", "target": "b", "bucket": "docs", "prefix": ""}
    step = Step("transfer/copy/dataset:docs", "transfer", "copy", "dataset:docs", "copy", params)
    return Bench(source, MemoryStore("b"), tmp_path, step)


def failing(error: BaseException, name: str, key: str = "") -> Callable[[Call], None]:
    def hook(call: Call) -> None:
        if call.name == name and call.when == "before" and (not key or call.key == key):
            raise error

    return hook


def test_perform_verify_undo(bench: Bench) -> None:
    done = bench.perform()
    assert (done.status, done.data["objects"], done.data["bucket_created"]) == ("done", 3, True)
    assert bench.target.bytes_of("docs") == bench.source.bytes_of("docs")
    assert bench.verify().status == "done"
    again = bench.perform()
    assert (again.status, again.data["manifest_root"]) == ("unchanged", done.data["manifest_root"])
    assert again.data["bucket_created"] is True
    assert bench.undo().status == "done"
    assert bench.target.objects == {}, "the bucket that we made goes too"
    assert bench.undo().good
    assert bench.perform().data["manifest_root"] == done.data["manifest_root"]


def test_a_difference_is_named_and_mended(bench: Bench) -> None:
    bench.perform()
    bench.target.flip("docs", "b", 7)
    found = bench.verify()
    assert found.status == "failed"
    assert list(found.data["wrong"]) == ["b"]
    assert bench.perform().status == "done"
    assert bench.verify().status == "done"
    assert bench.target.bytes_of("docs") == bench.source.bytes_of("docs")


def test_a_bucket_that_was_there_before_stays(bench: Bench) -> None:
    bench.target.ensure_bucket("docs")
    bench.target.put("docs", "theirs", b"theirs")
    assert bench.perform().data["bucket_created"] is False
    bench.undo()
    assert bench.target.bytes_of("docs") == {"theirs": b"theirs"}


def test_a_second_verify_still_names_what_is_wrong(bench: Bench) -> None:
    bench.perform()
    bench.target.flip("docs", "b", 7)
    assert bench.verify().status == "failed"
    assert bench.verify().status == "failed"


def test_a_bucket_made_by_a_perform_that_failed_is_still_ours(bench: Bench) -> None:
    bench.target.hook = failing(Unavailable("down"), "write", "a")
    with pytest.raises(Unavailable):
        bench.perform()
    bench.target.hook = lambda _: None
    assert bench.perform().good
    bench.undo()
    assert bench.target.objects == {}


def test_undo_after_a_kill_leaves_nothing_of_ours(bench: Bench) -> None:
    """The object had become visible when we died; the journal knows it as `sending` only."""

    class Killed(BaseException):
        pass

    def die(call: Call) -> None:
        if call.name == "write" and call.key == "a" and call.when == "after":
            raise Killed

    bench.target.hook = die
    with pytest.raises(Killed):
        bench.perform()
    bench.target.hook = lambda _: None
    bench.undo()
    assert bench.target.objects == {}


def test_history_is_carried_checked_and_taken_back(bench: Bench) -> None:
    """`data.versions: all`: what an object was before arrives too, and goes with the undo."""
    bench.source.put("docs", "a", b"second")
    bench.rules = DataRules(workers=2, versions="all")
    outcome = bench.perform()
    assert outcome.good, outcome.summary
    assert outcome.data["history"]["versions_carried"] == 4
    versions = [info for info in bench.target.versions("docs") if info.key == "a"]
    assert sorted(info.size_bytes for info in versions) == [5, 6]
    assert next(info for info in versions if info.is_latest).size_bytes == 6
    assert bench.verify().good
    bench.undo()
    assert bench.target.objects.get("docs", {}) == {}


def test_the_bill_of_what_left_is_in_the_evidence(bench: Bench) -> None:
    data = bench.perform().data["egress_of_place"]
    assert data["places"][0]["place"] == "a"
    assert data["places"][0]["size_bytes"] == 275
    assert data["cost"]["unit"] == "usd"
    assert data["cost"]["value"] != "unknown"
