"""A move by workers that share nothing but a durable server, and a migration that the server keeps; with a real
server on 127.0.0.1."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from fleet_parts import ends_of, fleet_at, fleet_server, migration_file, same, server_program, two_folders, worker

from crossload import wiring
from crossload.engines.mover.fleets import FleetMove, move_bucket_by_fleet
from crossload.engines.mover.options import CopyOptions, Watcher
from crossload.estate.place import Place
from crossload.ledger.journal import Journal
from crossload.ports.errors import AccessDenied, NotFound, Unavailable
from crossload.ports.fleet import DONE, ENDED, FAILED, RUNNING, Act, Beat, Carry, Ended, Fleet, Limits, Task
from crossload.ports.fleet import Migration as Kept
from crossload.ports.provider import Settings

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not server_program().exists(), reason="the fleet's server is not installed"),
    pytest.mark.filterwarnings("default::pytest.PytestUnraisableExceptionWarning"),
]

QUICK = Limits(at_once=4, silent_seconds=2.0, shard_seconds_max=60.0, starts_max=3)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with fleet_server(tmp_path_factory.mktemp("server")) as found:
        fleet_at(found)
        yield found


class Room:
    """A worker in this process, on a queue of its own."""

    def __init__(self, address: str, queue: str, carry: Carry, act: Act | None = None) -> None:
        self.fleet: Fleet = fleet_at(address, queue)
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=lambda: self.fleet.serve(carry, act, at_once=4, stop=self._stop), daemon=True
        )

    def __enter__(self) -> Fleet:
        self._thread.start()
        return self.fleet

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()


def until_over(fleet: Fleet, move: str, seconds: float = 30) -> Any:
    until = time.monotonic() + seconds
    while (standing := fleet.standing(move)) is not None and standing.state == RUNNING:
        assert time.monotonic() < until, "it does not end"
        time.sleep(0.1)
    return standing


def no_carry(task: Task, number: int, beat: Beat) -> dict[str, Any]:
    return {}


def test_three_workers_one_of_them_killed(tmp_path: Path, address: str) -> None:
    """Each worker opens both places by itself. The result is equal, and one shard at most is started again."""
    two_folders(tmp_path, 1200, large=3)
    migration = migration_file(tmp_path, address)
    workers = [worker(tmp_path) for _ in range(3)]
    fleet = wiring.open_fleet(migration, "there")
    killed = threading.Event()

    def on_moved(objects: int, size_bytes: int) -> None:
        if not killed.is_set():
            killed.set()
            workers[0].send_signal(signal.SIGKILL)

    move = FleetMove(fleet, ends_of(tmp_path), limits=QUICK, objects_max=60, poll_seconds=0.2, spool_folder=".spool")
    try:
        with Journal(tmp_path / "journal.db") as journal:
            report = move_bucket_by_fleet(move, journal, CopyOptions(workers=2), Watcher(moved=on_moved))
            assert journal.totals()["done"][0] == 1200
    finally:
        for one in workers:
            one.terminate()
        codes = [one.wait(20) for one in workers]
    assert codes == [-signal.SIGKILL, 0, 0], (tmp_path / "workers.log").read_text()
    assert same(tmp_path) and not list((tmp_path / "there").rglob("*.todo"))
    assert report.copied + report.recognised == 1200 and not report.failures
    assert starts_again(address, move.name) <= 1


def starts_again(address: str, move: str) -> int:
    """From the server's own history: how many starts of shards there were beyond the first."""
    shown = subprocess.run(
        [server_program(), "workflow", "show", "--address", address, "-w", f"crossload-move-{move}", "-o", "json"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    events = json.loads(shown)["events"]
    kind = "activityTaskStartedEventAttributes"
    started = [event[kind] for event in events if kind in event]
    assert len(started) == 20
    return sum(int(one.get("attempt", 1)) - 1 for one in started)


def test_a_silent_worker_loses_its_shard_and_progress_goes_with_it(address: str) -> None:
    starts: list[int] = []

    def carry(task: Task, number: int, beat: Beat) -> dict[str, Any]:
        starts.append(number)
        if len(starts) == 1:
            time.sleep(4)  # twice the silence that is allowed
            with pytest.raises(Ended):
                for _ in range(50):
                    beat({"objects": 1})
                    time.sleep(0.1)
            raise Ended
        return {"objects": 1}

    with Room(address, "silent", carry) as fleet:
        assert fleet.start("silent", {"x": 1}, 1, QUICK)
        assert until_over(fleet, "silent").state == DONE
    assert starts == [1, 1]


def test_a_long_move_goes_on_as_a_new_run(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every shard is started once, over several runs, never more than so many at a time."""
    from crossload.providers.temporal import fleet as module

    monkeypatch.setattr(module, "_SHARDS_PER_RUN", 7)
    mutex, numbers, now, most = threading.Lock(), list[int](), 0, 0

    def carry(task: Task, number: int, beat: Beat) -> dict[str, Any]:
        nonlocal now, most
        with mutex:
            numbers.append(number)
            now += 1
            most = max(most, now)
        time.sleep(0.02)
        with mutex:
            now -= 1
        return {}

    with Room(address, "long", carry) as fleet:
        assert fleet.start("long", {}, 25, Limits(at_once=3))
        assert until_over(fleet, "long").state == DONE
    assert sorted(numbers) == list(range(1, 26)) and 1 < most <= 3


def test_what_is_retryable_is_tried_again_and_what_is_not_ends_the_move(address: str) -> None:
    tries: dict[int, int] = {}

    def carry(task: Task, number: int, beat: Beat) -> dict[str, Any]:
        tries[number] = tries.get(number, 0) + 1
        if tries[number] == 1:
            raise Unavailable("the store is away")
        if number == 2:
            raise AccessDenied("not this one", hint="ask its owner")
        return {}

    with Room(address, "errors", carry) as fleet:
        fleet.start("errors-1", {}, 1, QUICK)
        assert until_over(fleet, "errors-1").state == DONE
        fleet.start("errors-2", {}, 2, QUICK)
        standing = until_over(fleet, "errors-2")
    assert standing.state == FAILED and standing.trouble == ("access-denied", "not this one", "ask its owner")
    assert tries[2] == 2


def test_one_move_of_a_name_at_a_time_and_it_can_be_ended(address: str) -> None:
    seen = threading.Event()

    def carry(task: Task, number: int, beat: Beat) -> dict[str, Any]:
        while True:
            seen.set()
            beat({})
            time.sleep(0.1)

    with Room(address, "ended", carry) as fleet:
        assert fleet.standing("ended") is None
        fleet.end("ended")
        assert fleet.start("ended", {}, 1, QUICK)
        assert not fleet.start("ended", {}, 1, QUICK)
        assert seen.wait(20)
        fleet.end("ended")
        assert until_over(fleet, "ended").state == ENDED


def eventually(fleet: Fleet, name: str, what: str, seconds: float = 15) -> Kept:
    until = time.monotonic() + seconds
    while True:
        kept = fleet.migration(name)
        assert kept is not None and time.monotonic() < until, kept
        if what in kept.acted:
            return kept
        time.sleep(0.1)


def test_approvals_and_timers_of_a_migration(address: str) -> None:
    """A freeze ends by itself, and a rollback comes unless somebody keeps what is there; each once."""
    acts: list[tuple[str, str, float]] = []

    def act(name: str, what: str) -> dict[str, Any]:
        acts.append((name, what, time.time()))
        if [one[1] for one in acts] == ["thaw"]:
            raise Unavailable("the source is away")  # asked again: it must not stay frozen
        return {"by": "this worker"}

    with Room(address, "desk", no_carry, act) as fleet:
        assert fleet.migration("desk") is None
        with pytest.raises(NotFound):
            fleet.approve("desk", "cutover", "ann")
        assert fleet.open_migration("desk") and not fleet.open_migration("desk")
        assert not fleet.wait_for("desk", "cutover", 0.1)
        fleet.approve("desk", "cutover", "ann")
        fleet.approve("desk", "cutover", "bob")
        assert fleet.wait_for("desk", "cutover", 5)
        at = time.time() + 1.5
        fleet.freeze_until("desk", at)
        fleet.roll_back_after("desk", 600)
        kept = fleet.migration("desk")
        assert kept is not None and kept.approvals == {"cutover": "ann"} and kept.frozen_until == at
        assert kept.roll_back_at is not None and abs(kept.roll_back_at - time.time() - 600) < 30
        kept = eventually(fleet, "desk", "thaw")
        assert acts[0][2] >= at - 0.5 and kept.acted["thaw"] == {"by": "this worker"} and kept.frozen_until is None
        fleet.roll_back_after("desk", 0.5)
        kept = eventually(fleet, "desk", "roll-back")
        assert [what for _, what, _ in acts] == ["thaw", "thaw", "roll-back"]
        fleet.close_migration("desk")
        fleet.close_migration("desk")
        until = time.monotonic() + 10
        while (kept := fleet.migration("desk")) is not None and kept.open:
            assert time.monotonic() < until
            time.sleep(0.1)


def test_what_was_kept_is_not_rolled_back_and_a_thawed_source_not_thawed(address: str) -> None:
    acts: list[str] = []

    def act(name: str, what: str) -> dict[str, Any]:
        acts.append(what)
        return {}

    with Room(address, "kept", no_carry, act) as fleet:
        fleet.open_migration("kept")
        fleet.roll_back_after("kept", 1.0)
        fleet.approve("kept", "keep", "ann")
        fleet.freeze_until("kept", time.time() + 1.0)
        fleet.freeze_until("kept", None)
        fleet.roll_back_after("kept", 0.5)
        time.sleep(2.5)
        kept = fleet.migration("kept")
        assert kept is not None and (kept.roll_back_at, kept.frozen_until) == (None, None)
        fleet.close_migration("kept")
    assert acts == []


def test_a_timer_outlives_the_worker_that_was_there_when_it_was_set(address: str) -> None:
    acts: list[str] = []

    def act(name: str, what: str) -> dict[str, Any]:
        acts.append(what)
        return {}

    with Room(address, "gone", no_carry) as fleet:
        fleet.open_migration("gone")
        fleet.freeze_until("gone", time.time() + 0.5)
    time.sleep(1)
    with Room(address, "gone", no_carry, act) as fleet:
        eventually(fleet, "gone", "thaw", 30)
        fleet.close_migration("gone")
    assert acts == ["thaw"]


def test_a_server_that_is_not_there_is_unavailable(dead_port: int) -> None:
    settings = Settings(Place("fleet", "temporal", ""), {"address": f"127.0.0.1:{dead_port}"}, {})
    with pytest.raises(Unavailable, match="connecting"):
        wiring.provider("temporal").open("fleet", settings).standing("x")
