"""One pass by many machines: a fleet hands out the shards, workers with rights of their own carry them, and whoever
started the move writes what came of them into its journal.

The coordinator may die: the fleet goes on, and the next pass begins with what was finished meanwhile."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from crossload.engines.mover.bucket import PassReport, move_bucket
from crossload.engines.mover.carrying import Beating, Ends, Progress, ShardReport, carry_shard
from crossload.engines.mover.listing import paged
from crossload.engines.mover.options import AS_USUAL, NOBODY, CopyOptions, Watcher
from crossload.engines.mover.shards import BYTES_MAX, OBJECTS_MAX, cut
from crossload.engines.mover.spool import (
    DONE,
    FOLDER,
    PART,
    TODO,
    Notebook,
    Slip,
    Spool,
    entries_in,
    left_to_do,
    result_out,
    todo_in,
    todo_out,
)
from crossload.ledger.comparison import Settled
from crossload.ledger.journal import Journal
from crossload.ports.errors import Invalid, Locked
from crossload.ports.fleet import FAILED, RUNNING, Act, Beat, Fleet, Limits, Standing, Task, error_of
from crossload.ports.store import Store

_POLL_SECONDS = 1.0
_QUIET_SECONDS = 30.0
_SAVE_SECONDS = 5.0
_BEAT_SECONDS = 1.0
_WRITERS = 8

OpenStore = Callable[[str], Store]


@dataclass(frozen=True, slots=True)
class FleetMove:
    """Both ends as the coordinator opened them. The names of their places go to the workers, nothing else of them
    does: each worker opens a place by that name with settings and credentials of its own."""

    fleet: Fleet
    ends: Ends
    prefix: str = ""
    limits: Limits = field(default_factory=Limits)
    objects_max: int = OBJECTS_MAX
    bytes_max: int = BYTES_MAX
    poll_seconds: float = _POLL_SECONDS
    spool_folder: str = FOLDER  # a store that keeps `.crossload/` to itself needs another

    @property
    def name(self) -> str:
        """The same for the same two ends, so that a pass finds what an earlier one left running."""
        ends = self.ends
        words = f"{ends.source.uri(ends.source_bucket)} {ends.target.uri(ends.target_bucket)} {self.prefix}"
        return hashlib.sha256(words.encode()).hexdigest()[:24]


def move_bucket_by_fleet(
    move: FleetMove, journal: Journal, options: CopyOptions = AS_USUAL, watcher: Watcher = NOBODY
) -> PassReport:
    """`move_bucket` with a fleet in place of our own threads. Nothing moves until workers serve the fleet.

    Raises what `move_bucket` raises, Locked when the same move is under way and not ours, and the error that made a
    worker give up. On Ctrl-C the fleet is told to end it."""
    ends = move.ends
    spool = Spool(ends.target, ends.target_bucket, move.name, move.spool_folder)
    collect_left(move, spool, journal, watcher)

    def carry(report: PassReport) -> None:
        run = secrets.token_hex(8)
        shards = _write_shards(move, spool, run, journal)
        if shards:
            _Coordinator(move, spool, run, journal, watcher, report).run(shards)

    return move_bucket(
        ends.source, ends.source_bucket, ends.target, ends.target_bucket, journal, options, watcher, move.prefix, carry
    )


def collect_left(move: FleetMove, spool: Spool, journal: Journal, watcher: Watcher = NOBODY) -> int:
    """Write down what an earlier coordinator started and did not live to hear of, waiting for it where it is still
    under way. Returns how many shards that was."""
    standing = move.fleet.standing(move.name)
    if standing is not None and standing.state == RUNNING:
        watcher.say("an earlier pass of this move is still under way at the fleet: waiting for it")
        while standing is not None and standing.state == RUNNING:
            time.sleep(move.poll_seconds)
            standing = move.fleet.standing(move.name)
    found = {(slip.run, slip.number) for slip in spool.slips()}
    for run, number in sorted(found):
        result = spool.get(Slip(run, number, DONE))
        rows = result["entries"] if result is not None else spool.get(Slip(run, number, PART)) or []
        for entry in entries_in(rows):
            known = journal.get(entry.key)
            # A worker that was given up may have written late: what is known as done since then is newer.
            if known is None or known.state != "done":
                journal.put(entry)
        journal.barrier()
        spool.drop(run, number)
    return len(found)


def _write_shards(move: FleetMove, spool: Spool, run: str, journal: Journal) -> int:
    count = 0
    with Settled(journal.path) as listing, ThreadPoolExecutor(_WRITERS) as pool:

        def slips() -> Iterator[tuple[Slip, Any]]:
            for shard, _ in cut(listing.sizes(), move.objects_max, move.bytes_max):
                rows = [todo for _, todo, _ in listing.between(shard.first, shard.last)]
                yield Slip(run, shard.number, TODO), todo_out(rows)

        for some in paged(slips(), 4 * _WRITERS):
            list(pool.map(spool.put, *zip(*some, strict=True)))
            count += len(some)
    return count


class _Coordinator:
    def __init__(
        self, move: FleetMove, spool: Spool, run: str, journal: Journal, watcher: Watcher, report: PassReport
    ) -> None:
        self._move, self._spool, self._run = move, spool, run
        self._journal, self._watcher, self._report = journal, watcher, report
        self._collected = 0

    def run(self, shards: int) -> None:
        move, ends = self._move, self._move.ends
        task = {
            "move": move.name, "run": self._run, "at_once": move.limits.at_once,
            "source": ends.source.place, "source_bucket": ends.source_bucket,
            "target": ends.target.place, "target_bucket": ends.target_bucket,
            "spool": move.spool_folder,
        }  # fmt: skip
        if not move.fleet.start(move.name, task, shards, move.limits):
            raise Locked("the same move is under way at the fleet", hint="wait for whoever started it, or end that one")
        try:
            standing = self._follow(move.name)
        except BaseException:  # Ctrl-C
            move.fleet.end(move.name)
            raise
        finally:
            self._collect()
        if standing is None or standing.state == FAILED:
            trouble = standing.trouble if standing is not None else None
            raise error_of(*(trouble or ("unavailable", "the fleet has forgotten the move", "run it again")))
        if self._collected < shards:
            raise Invalid(f"{shards - self._collected} of {shards} shards have no result", hint="run the move again")

    def _follow(self, name: str) -> Standing | None:
        heard = time.monotonic()
        while True:
            standing = self._move.fleet.standing(name)
            if standing is None or standing.state != RUNNING:
                return standing
            if self._collect():
                heard = time.monotonic()
            elif time.monotonic() - heard > _QUIET_SECONDS:
                self._watcher.say("no shard has come back for a while: does a worker serve this fleet?")
                heard = time.monotonic()
            time.sleep(self._move.poll_seconds)

    def _collect(self) -> int:
        """What is finished by now, into the journal; only then may its slips go."""
        numbers = sorted(slip.number for slip in self._spool.slips(self._run) if slip.kind == DONE)
        for number in numbers:
            result = self._spool.get(Slip(self._run, number, DONE))
            if result is None:
                continue
            for entry in entries_in(result["entries"]):
                self._journal.put(entry)
            self._journal.barrier()
            self._spool.drop(self._run, number)
            report = ShardReport.from_json(result["report"])
            report.add_to(self._report)
            self._watcher.moved(report.copied + report.recognised + report.known, report.sent_bytes)
            self._collected += 1
        return len(numbers)


def serve_fleet(
    fleet: Fleet, open_store: OpenStore, options: CopyOptions = AS_USUAL, act: Act | None = None,
    *, at_once: int = 1, stop: threading.Event | None = None, watcher: Watcher = NOBODY,
) -> None:  # fmt: skip
    """Carry shards for whoever asks the fleet, until `stop` is set. `open_store` opens a place by its name, with this
    machine's own credentials. Each of `at_once` shards has `options.workers` threads."""
    opened: dict[str, Store] = {}
    mutex = threading.Lock()

    def store(place: str) -> Store:
        with mutex:
            if place not in opened:
                opened[place] = open_store(place)
            return opened[place]

    def carry(task: Task, number: int, beat: Beat) -> dict[str, Any]:
        ends = Ends(store(task["source"]), task["source_bucket"], store(task["target"]), task["target_bucket"])
        calendar = options.calendar.share(max(1, task["at_once"]))
        spool = Spool(ends.target, ends.target_bucket, task["move"], task["spool"])
        told = carry_from_spool(ends, spool, task["run"], number, replace(options, calendar=calendar), beat)
        watcher.moved(told["objects"], told["sent_bytes"])
        return told

    fleet.serve(carry, act, at_once=at_once, stop=stop or threading.Event())


def carry_from_spool(
    ends: Ends, spool: Spool, run: str, number: int, options: CopyOptions, beat: Beat
) -> dict[str, Any]:
    """One shard whose slip lies in the spool; its result goes there too. Begun again, it goes on where the last save
    of the earlier worker was. Returns {"objects", "sent_bytes"} of this start alone."""
    wanted = spool.get(Slip(run, number, TODO))
    if wanted is None or spool.get(Slip(run, number, DONE)) is not None:
        return {"objects": 0, "sent_bytes": 0}  # an earlier start ended well, and only its answer was lost
    rows = todo_in(wanted)
    before = {entry.key: entry for entry in entries_in(spool.get(Slip(run, number, PART)) or [])}
    left = left_to_do(rows, before)
    notes = Notebook(spool, Slip(run, number, PART), before.values())
    saved = time.monotonic()

    def live(progress: Progress) -> None:
        nonlocal saved
        beat({"objects": progress.moved, "of": len(rows), "sent_bytes": progress.sent_bytes})
        if time.monotonic() - saved >= _SAVE_SECONDS:
            notes.barrier()
            saved = time.monotonic()

    progress = Progress()
    with Beating(_BEAT_SECONDS, live, progress):
        report = carry_shard(ends, left, notes, options, progress, known=len(rows) - len(left))
        spool.put(Slip(run, number, DONE), result_out(notes.entries(), report))
    return {"objects": len(left), "sent_bytes": report.sent_bytes}
