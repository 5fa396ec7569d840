"""One pass by many processes of this machine: what is to do is cut into shards, and each process takes the next one.

The journal stays the truth: all processes write to it, and a shard that is begun again asks it first. So a process
that is killed costs one shard's walk through the journal, and the objects that were just then under way."""

from __future__ import annotations

import contextlib
import os
import pickle
import secrets
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from crossload.engines.mover.bucket import PassReport, move_bucket
from crossload.engines.mover.carrying import ShardReport
from crossload.engines.mover.options import AS_USUAL, NOBODY, CopyOptions, Watcher
from crossload.ledger.comparison import Settled
from crossload.ledger.journal import Journal
from crossload.ledger.lease import Leases, Shard, remove
from crossload.ports.errors import CrossloadError
from crossload.ports.fleet import error_of
from crossload.ports.store import Store

OBJECTS_MAX = 500
BYTES_MAX = 2**30
LEASE_SECONDS = 15.0
_RESTARTS_MAX = 4  # for each process
_POLL_SECONDS = 0.1
_TELL_SECONDS = 0.5  # each look at how far all are reads the whole table
_LEAVE_SECONDS_MAX = 6.0
_LINES = 5

Say = Callable[[str], None]
Opener = Callable[[Say], Store]
"""Opens a store in whatever process calls it. It is pickled: a function of a module, or an instance of a class of a
module that holds plain settings. Secrets are resolved where it is called, and do not travel."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a process is told when it starts."""

    open_source: Opener
    source_bucket: str
    open_target: Opener
    target_bucket: str
    journal: Path
    options: CopyOptions
    lease_seconds: float
    owner: str = ""


class WorkerLost(CrossloadError):
    """Processes that carry the move ended by themselves, again and again."""

    code = "worker-lost"


def cut(
    sizes: Iterator[tuple[int, int, bool]], objects_max: int = OBJECTS_MAX, bytes_max: int = BYTES_MAX
) -> Iterator[tuple[Shard, list[int]]]:
    """Shards of neighbouring keys, none over either limit, except for one object that is larger by itself; with each
    the numbers of those that the journal calls done before anybody began. `sizes` is (number, bytes, done)."""
    number = first = last = count = total = 0
    again: list[int] = []
    for at, size_bytes, done in sizes:
        if count and (count >= objects_max or total + size_bytes > bytes_max):
            number += 1
            yield Shard(number, first, last, count, total), again
            count, total, again = 0, 0, []
        if not count:
            first = at
        last = at
        count += 1
        total += size_bytes
        if done:
            again.append(at)
    if count:
        yield Shard(number + 1, first, last, count, total), again


def move_bucket_by(
    processes: int, open_source: Opener, source_bucket: str, open_target: Opener, target_bucket: str,
    journal: Journal, options: CopyOptions = AS_USUAL, watcher: Watcher = NOBODY, prefix: str = "",
    *, objects_max: int = OBJECTS_MAX, bytes_max: int = BYTES_MAX, lease_seconds: float = LEASE_SECONDS,
    started: Callable[[int], None] = lambda pid: None,
) -> PassReport:  # fmt: skip
    """`move_bucket` with so many processes that each have `options.workers` threads, buffers of
    `options.buffer_bytes_max`, and an equal part of every ceiling on the link. One process needs none of this, and
    is the plain pass. `started` hears the id of every process.

    Raises what `move_bucket` raises; WorkerLost when processes keep dying; Worn when one shard ends them all."""
    source, target = open_source(watcher.say), open_target(watcher.say)

    def carry(report: PassReport) -> None:
        shared = replace(options, calendar=options.calendar.share(processes))
        job = Job(open_source, source_bucket, open_target, target_bucket, journal.path, shared, lease_seconds)
        carry_shards(processes, job, report, watcher, objects_max, bytes_max, started)

    by_them = carry if processes > 1 else None
    return move_bucket(source, source_bucket, target, target_bucket, journal, options, watcher, prefix, by_them)


def leases_of(journal: Path) -> Path:
    """Where the pass over this journal keeps its leases."""
    return journal.with_name(f"{journal.stem}.leases")


def carry_shards(
    processes: int, job: Job, report: PassReport, watcher: Watcher = NOBODY, objects_max: int = OBJECTS_MAX,
    bytes_max: int = BYTES_MAX, started: Callable[[int], None] = lambda pid: None,
) -> None:  # fmt: skip
    """Have what the settled comparison beside `job.journal` says carried, and count it in the report. The first fatal
    error of any process ends all of them and is raised here; so does Ctrl-C."""
    path = leases_of(job.journal)
    leases = Leases.fresh(path)
    try:
        _fill(leases, job.journal, objects_max, bytes_max)
        _Crew(processes, job, leases, watcher, started).run()
        for told in leases.reports():
            ShardReport.from_json(told).add_to(report)
    finally:
        leases.close()
        remove(path)


def _fill(leases: Leases, journal: Path, objects_max: int, bytes_max: int) -> None:
    with Settled(journal) as listing:
        shards: list[Shard] = []
        again: list[int] = []
        for shard, done in cut(listing.sizes(), objects_max, bytes_max):
            shards.append(shard)
            again += done
            if len(shards) + len(again) >= 10_000:
                leases.fill(shards, again)
                shards, again = [], []
        leases.fill(shards, again)


@dataclass(slots=True)
class _Hand:
    """One process. It ends when its standard input does: so none of them outlives us, however we end."""

    owner: str
    process: subprocess.Popen[bytes]
    lines: deque[str]
    reader: threading.Thread


class _Crew:
    def __init__(
        self, processes: int, job: Job, leases: Leases, watcher: Watcher, started: Callable[[int], None]
    ) -> None:
        self._job, self._leases, self._watcher, self._started = job, leases, watcher, started
        self._processes = processes
        self._restarts_left = _RESTARTS_MAX * processes
        self._hands: list[_Hand] = []
        self._told = (0, 0)

    def run(self) -> None:
        count = min(self._processes, max(1, self._leases.standing().shards))
        told = time.monotonic()
        try:
            self._hands = [self._hire() for _ in range(count)]
            while not self._leases.over():
                self._look_after()
                if time.monotonic() - told >= _TELL_SECONDS:
                    self._tell()
                    told = time.monotonic()
                time.sleep(_POLL_SECONDS)
        finally:
            self._dismiss()
        self._tell()
        trouble = self._leases.trouble()
        if trouble is not None:
            raise error_of(*trouble)

    def _look_after(self) -> None:
        """What a dead process held is free at once, and another takes its place."""
        for hand in list(self._hands):
            code = hand.process.poll()
            if code is None:
                continue
            self._leases.give_back(hand.owner)
            self._hands.remove(hand)
            _put_away(hand)
            if self._leases.over():
                return
            said = "; ".join(hand.lines)
            if not self._restarts_left:
                raise WorkerLost(
                    f"processes of this move end again and again, the last with status {code}{said and f': {said}'}",
                    hint="look at the machine's memory, or move with one process",
                )
            self._restarts_left -= 1
            self._watcher.say(f"a process of this move ended with status {code}; another takes its place")
            self._hands.append(self._hire())

    def _tell(self) -> None:
        standing = self._leases.standing()
        moved, sent = max(standing.moved, self._told[0]), max(standing.sent_bytes, self._told[1])
        if (moved, sent) != self._told:
            self._watcher.moved(moved - self._told[0], sent - self._told[1])
            self._told = (moved, sent)

    def _hire(self) -> _Hand:
        job = replace(self._job, owner=f"{os.getpid()}-{secrets.token_hex(4)}")
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "crossload.engines.mover.shard_process"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )  # fmt: skip
        lines: deque[str] = deque(maxlen=_LINES)
        reader = threading.Thread(target=self._listen, args=(process, lines), name="crew", daemon=True)
        reader.start()
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died at once: that is seen like any other death
            pickle.dump(job, process.stdin)
            process.stdin.flush()
        self._started(process.pid)
        return _Hand(job.owner, process, lines, reader)

    def _listen(self, process: subprocess.Popen[bytes], lines: deque[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            text = line.decode("utf-8", "replace").strip()
            if text:
                lines.append(text)
                self._watcher.say(text)

    def _dismiss(self) -> None:
        for hand in self._hands:
            assert hand.process.stdin is not None
            with contextlib.suppress(OSError):
                hand.process.stdin.close()
        until = time.monotonic() + _LEAVE_SECONDS_MAX  # for all of them: one may be waiting for a store
        for hand in self._hands:
            try:
                hand.process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                hand.process.kill()
                hand.process.wait()
            _put_away(hand)
        self._hands = []


def _put_away(hand: _Hand) -> None:
    """Of a process that has ended."""
    hand.reader.join(timeout=1)
    for pipe in (hand.process.stdin, hand.process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
