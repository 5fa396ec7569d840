"""The transfer stage over indexes: what a kill leaves behind, what undo may remove, what verify holds the target to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from memory_vectors import MemoryVectors, point

from crossload.estate.digest import canonical_json
from crossload.estate.evidence import Outcome
from crossload.ports.errors import Unavailable
from crossload.ports.vectors import Block, IndexInfo, VectorRow
from crossload.stages import transfer
from crossload.steps.step import Step

INFO = IndexInfo("docs", 2, 40, "l2", "hnsw", {}, "all-MiniLM-L6-v2", "c9745ed1")
ROWS = [VectorRow(f"row-{n:02d}", point(n, n * 0.5 + 1), {"n": n}) for n in range(40)]
THEIRS = [VectorRow("theirs", point(9, 9), {})]


@dataclass
class Bench:
    source: MemoryVectors
    target: MemoryVectors
    workspace: Path
    kept: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    step: Step = field(
        default_factory=lambda: Step(
            "transfer/copy-index/index:docs", "transfer", "copy-index", "index:docs", "copy",
            {"source": "a", "target": "b", "table": "docs"},
        )
    )  # fmt: skip

    @property
    def world(self) -> Any:
        return SimpleNamespace(
            workspace=self.workspace, outcome=self.kept.get,
            vectors=lambda place: self.source if place == "a" else self.target,
            inventory=SimpleNamespace(of=lambda kind: [SimpleNamespace(id="endpoint:x")]),
        )  # fmt: skip

    def perform(self) -> Outcome:
        outcome = transfer.perform(self.step, self.world)
        canonical_json(dict(outcome.data))  # evidence must be JSON
        if outcome.good:
            self.kept[self.step.id] = outcome.data
        return outcome

    def verify(self) -> Outcome:
        return transfer.verify(self.step, self.world)

    def undo(self) -> Outcome:
        outcome = transfer.undo(self.step, self.world)
        if outcome.status == "done":
            self.kept.pop(self.step.id, None)
        return outcome

    def cut_over(self) -> None:
        self.kept["cutover/switch/endpoint:x"] = {"weight": 100}


@pytest.fixture(params=["exact", "float16"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    source, target = MemoryVectors("a"), MemoryVectors("b", request.param)
    # Not exact in float16: such a target keeps other bits than it was sent.
    source.fill(INFO, [replace(row, vector=point(n / 7, n / 3 + 1)) for n, row in enumerate(ROWS)])
    return Bench(source, target, tmp_path)


def test_perform_verify_undo(bench: Bench) -> None:
    done = bench.perform()
    assert done.status == "done", done.summary
    evidence = done.data["equality"]
    assert (evidence["ids_equal"], evidence["payload_equal"], evidence["problems"]) == (True, True, [])
    assert evidence["bits_equal"] is (bench.target.fineness == "exact")
    assert (done.data["model"], done.data["model_revision"]) == ("all-MiniLM-L6-v2", "c9745ed1")
    assert bench.verify().status == "done"
    again = bench.perform()
    assert (again.status, again.data["bits_sha256"]) == ("unchanged", done.data["bits_sha256"])
    assert bench.verify().status == "done", "an unchanged perform must not forget what the copy looked like"
    assert "dropped" in bench.undo().summary
    assert bench.target.infos == {}
    assert bench.undo().good
    assert bench.perform().data["bits_sha256"] == done.data["bits_sha256"]


def test_a_delta_is_brought_over(bench: Bench) -> None:
    bench.perform()
    bench.source.rows["docs"].append(VectorRow("row-99", point(1, 2), {}))
    assert bench.perform().status == "done"
    assert bench.verify().data["rows"] == 41


@pytest.mark.parametrize("part", ["vector", "payload", "id"])
def test_verify_finds_what_changed(bench: Bench, part: str) -> None:
    bench.perform()
    rows = bench.target.rows["docs"]
    other = {"vector": point(100, 1), "payload": {"n": 1000}, "id": "row-00x"}[part]
    rows[0] = replace(rows[0], **{part: other})
    assert bench.verify().status == "failed"
    assert bench.perform().status == "done"
    assert bench.verify().status == "done"


def test_verify_finds_that_the_search_index_is_gone(bench: Bench) -> None:
    bench.perform()
    bench.target.misses = 3
    found = bench.verify()
    assert found.status == "failed"
    assert "finds less" in found.summary


def test_rows_under_each_others_ids_fail_the_copy(bench: Bench) -> None:
    class Shuffles(MemoryVectors):
        def load(self, info: IndexInfo, blocks: Iterable[Block]) -> int:
            count = super().load(info, blocks)
            rows = self.rows[info.name]
            rows[3], rows[30] = replace(rows[3], vector=rows[30].vector), replace(rows[30], vector=rows[3].vector)
            return count

    bench.target = Shuffles("b", bench.target.fineness)
    assert bench.perform().status == "failed"


def test_killed_before_the_search_index_was_built(bench: Bench) -> None:
    def killed(info: IndexInfo) -> None:
        raise KeyboardInterrupt

    bench.target.build = killed  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        bench.perform()
    del bench.target.build
    assert bench.perform().good
    assert bench.target.built == ["docs"]
    assert bench.verify().good
    bench.undo()
    assert bench.target.infos == {}


def test_an_index_that_was_equal_already_is_not_ours(bench: Bench) -> None:
    bench.target.fineness = "exact"
    bench.target.fill(INFO, list(bench.source.rows["docs"]))
    assert bench.perform().status == "unchanged"
    assert bench.target.built == []
    assert "left" in bench.undo().summary
    assert "docs" in bench.target.infos


def test_a_copy_that_never_took_its_place_leaves_theirs(bench: Bench) -> None:
    """The load failed, and what lies there is what lay there: undo must not drop it."""
    bench.target.fill(INFO, list(THEIRS))

    def failing(info: IndexInfo, blocks: Iterable[Block]) -> int:
        raise Unavailable("down")

    bench.target.load = failing  # type: ignore[method-assign]
    for _ in range(2):
        with pytest.raises(Unavailable):
            bench.perform()
    assert "never took its place" in bench.undo().summary
    assert bench.target.rows["docs"] == THEIRS
    assert "left" in bench.undo().summary


def test_what_users_wrote_since_the_copy_is_kept(bench: Bench) -> None:
    bench.perform()
    bench.cut_over()
    bench.target.rows["docs"] += THEIRS
    assert bench.verify().status == "done"
    assert bench.perform().status == "refused"
    assert "others wrote to it" in bench.undo().summary
    assert bench.target.describe("docs").rows == 41


def test_undo_of_an_index_that_is_gone(bench: Bench) -> None:
    bench.perform()
    bench.target.drop("docs")
    assert bench.verify().status == "failed"
    assert "gone already" in bench.undo().summary
