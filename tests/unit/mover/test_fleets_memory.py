"""A move by a fleet, with a fleet in this process: every shard goes through JSON, is carried by threads, and may be
started again, as a real one does."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from memory_store import Call, MemoryStore

from crossload.engines.mover.carrying import Ends
from crossload.engines.mover.fleets import FleetMove, carry_from_spool, move_bucket_by_fleet, serve_fleet
from crossload.engines.mover.options import CopyOptions
from crossload.engines.mover.spool import DONE, FOLDER, PART, TODO, Slip, Spool, todo_out
from crossload.ledger.comparison import Todo
from crossload.ledger.journal import Entry, Journal
from crossload.ports.errors import AccessDenied, CrossloadError, Invalid, Locked
from crossload.ports.fleet import DONE as OVER
from crossload.ports.fleet import ENDED, FAILED, RUNNING, Act, Carry, Limits, Standing, Task
from crossload.ports.store import ObjectMeta

OPTIONS = CopyOptions(part_size_bytes=16, workers=2)


class Crash(BaseException):
    """The machine is gone."""


class OneRoomFleet:
    """Carries at once, in the thread that starts it. `twice` has every shard started once more after it ended."""

    place = "fleet"

    def __init__(self, *, twice: bool = False) -> None:
        self.twice = twice
        self.carry: Carry | None = None
        self.moves: dict[str, Standing] = {}
        self.starts: Counter[int] = Counter()
        self.messages: list[str] = []
        self.deaf = False

    def serve(self, carry: Carry, act: Act | None, *, at_once: int, stop: threading.Event) -> None:
        self.carry = carry

    def start(self, move: str, task: Task, shards: int, limits: Limits) -> bool:
        if move in self.moves and self.moves[move].state == RUNNING:
            return False
        self.moves[move] = Standing(RUNNING)
        if not self.deaf:
            self.run(move, task, shards)
        return True

    def run(self, move: str, task: Task, shards: int) -> None:
        assert self.carry is not None
        message = json.dumps(task)
        self.messages.append(message)
        try:
            for number in range(1, shards + 1):
                for _ in range(1 + self.twice):
                    self.starts[number] += 1
                    self.messages.append(json.dumps(self.carry(json.loads(message), number, lambda _: None)))
        except CrossloadError as error:
            self.moves[move] = Standing(FAILED, (error.code, str(error), error.hint))
            return
        self.moves[move] = Standing(OVER)

    def standing(self, move: str) -> Standing | None:
        return self.moves.get(move)

    def end(self, move: str) -> None:
        self.moves[move] = Standing(ENDED)


def fill(store: MemoryStore, count: int) -> None:
    for number in range(count):
        store.write("docs", f"k{number:03d}", bytes([number % 256]) * (40 if number % 9 == 0 else 5), ObjectMeta())


def held(store: MemoryStore) -> dict[str, bytes]:
    return {info.key: store.read("docs", info.key) for info in store.list("docs")}


Scene = tuple[OneRoomFleet, FleetMove]


@pytest.fixture
def scene(source: MemoryStore, target: MemoryStore) -> Scene:
    fill(source, 25)
    fleet: Any = OneRoomFleet()
    stores = {"a": source, "b": target}
    serve_fleet(fleet, stores.__getitem__, OPTIONS)
    return fleet, FleetMove(fleet, Ends(source, "docs", target, "docs"), objects_max=10, poll_seconds=0.01)


def test_a_fleet_moves_a_bucket_and_leaves_nothing_behind(
    scene: Scene, source: MemoryStore, target: MemoryStore, open_journal: Callable[..., Journal]
) -> None:
    fleet, move = scene
    journal = open_journal()
    report = move_bucket_by_fleet(move, journal, OPTIONS)
    assert (report.listed, report.copied, report.failures) == (25, 25, [])
    assert report.sent_bytes == sum(map(len, held(source).values()))
    assert held(target) == held(source)
    assert fleet.starts == Counter({1: 1, 2: 1, 3: 1})
    assert journal.totals()["done"][0] == 25
    again = move_bucket_by_fleet(move, journal, OPTIONS)
    assert again.empty and fleet.starts.total() == 3, "a pass that has nothing to do needs no fleet"


def test_what_passes_through_the_server_is_small_and_names_no_object(
    scene: Scene, open_journal: Callable[..., Journal]
) -> None:
    fleet, move = scene
    move_bucket_by_fleet(move, open_journal(), OPTIONS)
    assert max(map(len, fleet.messages)) < 500
    assert not [message for message in fleet.messages if "k0" in message]


def test_a_shard_that_is_started_twice_counts_once(
    scene: Scene, source: MemoryStore, target: MemoryStore, open_journal: Callable[..., Journal]
) -> None:
    fleet, move = scene
    fleet.twice = True
    report = move_bucket_by_fleet(move, open_journal(), OPTIONS)
    assert fleet.starts == Counter({1: 2, 2: 2, 3: 2})
    assert report.copied == 25 and held(target) == held(source)
    assert report.sent_bytes == sum(map(len, held(source).values()))


def test_a_worker_that_dies_in_a_shard_costs_what_it_had_not_saved(
    scene: Scene, source: MemoryStore, target: MemoryStore
) -> None:
    """The machine is gone in the middle of an upload: the next start goes on with that very upload."""
    source.write("docs", "large", b"0123456789abcdef" * 4, ObjectMeta())
    infos = list(source.list("docs"))
    rows = [Todo(Entry(info.key, info.size_bytes, info.etag), None, False) for info in infos]
    ends, spool = Ends(source, "docs", target, "docs"), Spool(target, "docs", "m")
    spool.put(Slip("r", 1, TODO), todo_out(rows))
    parts = 0

    def hook(call: Call) -> None:
        nonlocal parts
        parts += call.when == "after" and call.name == "write_part" and call.key == "large"
        if parts >= 2:
            raise Crash

    target.hook = hook
    with pytest.raises(Crash):
        carry_from_spool(ends, spool, "r", 1, CopyOptions(part_size_bytes=16, workers=1), lambda _: None)
    target.hook = lambda _: None
    saved = spool.get(Slip("r", 1, PART))
    assert saved and [row[4] for row in saved if row[0] == "large"] != [""], "the open upload was written down"
    target.log.clear()
    told = carry_from_spool(ends, spool, "r", 1, OPTIONS, lambda _: None)
    assert told["objects"] == len(rows) and told["sent_bytes"] < sum(info.size_bytes for info in infos)
    result = spool.get(Slip("r", 1, DONE))
    assert sorted(row[0] for row in result["entries"]) == sorted(info.key for info in infos)
    assert {row[3] for row in result["entries"]} == {"done"}
    assert {key: data for key, data in held(target).items() if not key.startswith(FOLDER)} == held(source)


def test_a_coordinator_that_died_is_followed_by_one_that_collects(
    scene: Scene, source: MemoryStore, target: MemoryStore, open_journal: Callable[..., Journal]
) -> None:
    _, move = scene
    journal = open_journal()

    def die(call: Call) -> None:
        if call.when == "before" and call.name == "delete":  # after the first result went into the journal
            raise Crash

    target.hook = die
    with pytest.raises(Crash):
        move_bucket_by_fleet(move, journal, OPTIONS)
    target.hook = lambda _: None
    assert list(Spool(target, "docs", move.name).slips()), "there is nothing to collect"
    written = sum(1 for name, key in target.log if name == "write" and key.startswith("k"))
    report = move_bucket_by_fleet(move, journal, OPTIONS)
    assert report.empty and report.kept == 25, "what the fleet had finished was known"
    assert written == sum(1 for name, key in target.log if name == "write" and key.startswith("k"))
    assert held(target) == held(source)


def test_an_error_of_a_worker_ends_the_move_as_what_it_is(
    scene: Scene, source: MemoryStore, target: MemoryStore, open_journal: Callable[..., Journal]
) -> None:
    _, move = scene

    def deny(call: Call) -> None:
        if call.when == "before" and call.key == "k015" and call.name != "list-item":
            raise AccessDenied("k015 is not for you", hint="ask its owner")

    source.hook = deny
    journal = open_journal()
    with pytest.raises(AccessDenied, match="k015") as caught:
        move_bucket_by_fleet(move, journal, OPTIONS)
    assert caught.value.hint == "ask its owner"
    assert journal.totals()["done"][0] >= 10, "the first shard was finished, and is known"
    source.hook = lambda _: None
    move_bucket_by_fleet(move, journal, OPTIONS)
    assert held(target) == held(source)


def test_a_move_of_somebody_else_is_left_alone(
    scene: Scene, source: MemoryStore, target: MemoryStore, open_journal: Callable[..., Journal]
) -> None:
    fleet, move = scene
    fleet.start = lambda *_: False  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(Locked):
        move_bucket_by_fleet(move, open_journal(), OPTIONS)


def test_a_result_that_is_missing_is_no_success(
    scene: Scene, target: MemoryStore, open_journal: Callable[..., Journal]
) -> None:
    fleet, move = scene
    carry = fleet.carry
    assert carry is not None

    def forgetful(task: Task, number: int, beat: Any) -> Any:
        return carry(task, number, beat) if number != 2 else {}

    fleet.carry = forgetful
    with pytest.raises(Invalid, match="1 of 3 shards"):
        move_bucket_by_fleet(move, open_journal(), OPTIONS)


def test_ctrl_c_ends_the_move_at_the_fleet(
    scene: Scene, open_journal: Callable[..., Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet, move = scene
    fleet.deaf = True

    def pressed(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("crossload.engines.mover.fleets.time.sleep", pressed)
    with pytest.raises(KeyboardInterrupt):
        move_bucket_by_fleet(move, open_journal(), OPTIONS)
    assert fleet.moves[move.name].state == ENDED
