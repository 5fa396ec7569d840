"""Once users work at the target, what differs there is their work: never copied over, never called wrong.
And no user is sent to data that has not arrived."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from desk_project import FILE

from crossload.engines.planner.lock import write_lock
from crossload.estate.asset import Asset, Inventory, Kind
from crossload.estate.evidence import Outcome
from crossload.ledger.ledger import Ledger
from crossload.ports.vectors import Block, IndexInfo, VectorRow
from crossload.stages import cutover, transfer
from crossload.steps.step import Facts, Step

DOCS = Asset("dataset:docs", Kind.DATASET, "docs", "a", "docs", {"bucket": "docs"})
INDEX = Asset("index:docs", Kind.INDEX, "docs", "a", "docs", {"table": "docs"})
CHAT = Asset("endpoint:chat", Kind.ENDPOINT, "chat", "a", "chat", {"model": "m"})
ESTATE = Inventory((DOCS, CHAT, INDEX))


class Rows:
    """Vectors of one index, held in memory."""

    def __init__(self, *ids: str) -> None:
        self.ids = list(ids)

    def describe(self, name: str) -> IndexInfo:
        return IndexInfo(name, 1, len(self.ids))

    wire = ""

    def precision(self, metric: str) -> str:
        return "exact"

    def export(self, name: str, *, after: str = "", wire: str = "") -> Iterator[Block]:
        rows = [VectorRow(item, b"\0\0\0\0", {}) for item in sorted(self.ids) if item > after]
        return iter([Block.of(rows)] if rows else [])

    def load(self, info: IndexInfo, blocks: Iterable[Block]) -> int:
        self.ids = [name for block in blocks for name in block.ids]
        return len(self.ids)

    def build(self, info: IndexInfo) -> None: ...

    def search(self, name: str, queries: Any, k: int, *, exact: bool = False) -> list[list[str]]:
        return [sorted(self.ids)[:k] for _ in queries]

    def drop(self, name: str) -> None:
        self.ids = []


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Any]:
    ledger = Ledger(tmp_path / "ledger.db")
    places = {"a": Rows("1", "2"), "b": Rows()}

    def outcome(name: str) -> Any:
        state = ledger.state(name)
        return state.data if state is not None and state.data else None

    def went(step: str, verb: str, outcome: Outcome) -> None:
        ledger.record(step.partition("/")[0], step, "x", verb, outcome)

    yield SimpleNamespace(
        workspace=tmp_path, inventory=ESTATE, outcome=outcome, vectors=places.__getitem__, places=places, went=went
    )
    ledger.close()


COPY = Step("transfer/copy-index/index:docs", "transfer", "copy-index", INDEX.id, "copy",
            {"source": "a", "target": "b", "table": "docs"})  # fmt: skip
SWITCH = "cutover/switch/endpoint:chat"


def test_an_index_that_users_write_to_is_left_alone(desk: Any) -> None:
    desk.went(COPY.id, "perform", transfer.perform(COPY, desk))
    assert desk.places["b"].ids == ["1", "2"]
    desk.places["b"].ids.append("damage")
    assert transfer.verify(COPY, desk).status == "failed"  # before the switch nobody but us writes there
    assert transfer.perform(COPY, desk).status == "done"
    assert desk.places["b"].ids == ["1", "2"]

    desk.went(SWITCH, "perform", Outcome.done("all traffic is at the target", weights=[]))
    desk.places["b"].ids.append("written by a user")
    seen = transfer.verify(COPY, desk)
    assert seen.good and "not compared" in seen.summary
    assert transfer.perform(COPY, desk).status == "refused"
    assert desk.places["b"].ids == ["1", "2", "written by a user"]

    desk.went(SWITCH, "undo", Outcome.done("all traffic is at the source"))
    assert transfer.verify(COPY, desk).status == "failed"  # the source is the home again


def test_undo_leaves_an_index_that_was_there_before(desk: Any) -> None:
    desk.places["b"].ids = ["1", "2"]
    assert transfer.perform(COPY, desk).status == "unchanged"
    assert "was there before" in transfer.undo(COPY, desk).summary
    assert desk.places["b"].ids == ["1", "2"]
    desk.places["b"].ids = []
    transfer.perform(COPY, desk)
    assert "dropped" in transfer.undo(COPY, desk).summary
    assert desk.places["b"].ids == []


def test_a_new_plan_does_not_forget_a_freeze(tmp_path: Path) -> None:
    """The source would stay frozen for ever: rollback undoes what is planned."""
    from crossload.api import open_project
    from crossload.ports.errors import Refused

    path = tmp_path / "migration.yaml"
    path.write_text(FILE, encoding="utf-8")
    folder = tmp_path / ".crossload" / "desk"
    write_lock(folder / "inventory.lock.json", Inventory((DOCS,)))
    open_project(path).make_plan()
    ledger = Ledger(folder / "ledger.db")
    ledger.record("cutover", "cutover/freeze/dataset:docs", DOCS.id, "perform", Outcome.done("frozen", token="x"))
    path.write_text(FILE + "overlays: [{match: {name: docs}, set: {move: 'no'}}]\n", encoding="utf-8")
    held = (folder / "plan.lock.json").read_bytes()
    with pytest.raises(Refused, match="freeze/dataset:docs"):
        open_project(path).make_plan()
    assert (folder / "plan.lock.json").read_bytes() == held
    ledger.record("cutover", "cutover/freeze/dataset:docs", DOCS.id, "undo", Outcome.done("lifted"))
    ledger.close()
    assert not [step for step in open_project(path).make_plan().steps if step.stage == "cutover"]


def test_nobody_is_sent_to_data_that_has_not_arrived() -> None:
    rules = SimpleNamespace(canary_weights=[100], drill=True, questions="q.jsonl", mirror_requests=20)
    migration: Any = SimpleNamespace(file=SimpleNamespace(cutover=rules), name="desk")
    choices = {asset.id: "b" for asset in ESTATE.assets}
    steps = {step.action: step for step in cutover.plan(migration, Facts(ESTATE, choices)).steps}
    for action in ("drill", "ramp"):
        assert {"transfer/copy/dataset:docs", "transfer/copy-index/index:docs"} <= set(steps[action].after)
