"""One shard: some of what a settled comparison says is to do, carried by the threads of this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from crossload.engines.mover.copying import Notes
from crossload.engines.mover.options import CopyOptions, Watcher
from crossload.engines.mover.workers import Counts, Workers
from crossload.ledger.comparison import Todo
from crossload.ports.store import Store


@dataclass(slots=True)
class ShardReport:
    """What one shard came to; the fields are those of a pass. `known`: objects of it that an earlier owner had
    brought over already. Bytes are payload bytes."""

    copied: int = 0
    recognised: int = 0
    known: int = 0
    changed_during_copy: int = 0
    sent_bytes: int = 0
    resent_bytes: int = 0
    losses: dict[str, int] = field(default_factory=dict[str, int])
    hot: list[str] = field(default_factory=list[str])
    failures: list[str] = field(default_factory=list[str])

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ShardReport:
        return cls(**value)

    def add_to(self, whole: Counts) -> None:
        """What an earlier owner brought over and nobody counted is recognised: it was found there, and not sent."""
        whole.copied += self.copied
        whole.recognised += self.recognised + self.known
        whole.changed_during_copy += self.changed_during_copy
        whole.sent_bytes += self.sent_bytes
        whole.resent_bytes += self.resent_bytes
        for loss, count in self.losses.items():
            whole.losses[loss] = whole.losses.get(loss, 0) + count
        whole.hot += self.hot
        whole.failures += self.failures


class Lost(Exception):
    """The shard is somebody else's now, or the move has ended: what is under way may stop. No failure of an object,
    so it is none of the errors that are written down for one."""


class Progress:
    """How far a shard is; and the way to end it. Safe for any number of threads."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._end: BaseException | None = None
        self.moved = 0
        self.sent_bytes = 0

    def end(self, why: BaseException) -> None:
        """Whoever carries meets this at its next step: before it writes another object or part."""
        with self._mutex:
            self._end = self._end or why

    def step(self, objects: int, size_bytes: int) -> None:
        with self._mutex:
            self.moved += objects
            self.sent_bytes += size_bytes
            if self._end is not None:
                raise Lost

    def why(self) -> BaseException:
        """What `end` was told."""
        return self._end or Lost()


@dataclass(frozen=True, slots=True)
class Ends:
    """Both ends of a move, open."""

    source: Store
    source_bucket: str
    target: Store
    target_bucket: str


def carry_shard(
    ends: Ends, rows: list[Todo], notes: Notes, options: CopyOptions, progress: Progress, known: int = 0
) -> ShardReport:
    """Bring these objects over; `known` of the shard's are there already. All that arrived is noted and on disk when
    this returns. Raises Lost, or the first fatal error; single objects that failed are in the report."""
    report = ShardReport(known=known)
    if known:
        progress.moved += known
    if rows:
        watcher = Watcher(moved=progress.step)
        workers = Workers(
            ends.source, ends.source_bucket, ends.target, ends.target_bucket, notes, options, watcher, report
        )
        try:
            workers.run(_Rows(rows))
        except Lost as lost:
            raise progress.why() from lost
    notes.barrier()
    return report


class _Rows:
    """The rows of one shard as Workers read them; the largest first, so that none is left alone at the end."""

    def __init__(self, rows: list[Todo]) -> None:
        ordered = sorted(rows, key=lambda row: -row.entry.size_bytes)
        self._rows = list(enumerate(ordered, 1))

    def todo(self, after: int) -> list[tuple[int, Todo]]:
        return self._rows[after:]


class Beating:
    """Calls `beat` every so often in a thread of its own, until the block ends."""

    def __init__(self, seconds: float, beat: Callable[[Progress], None], progress: Progress) -> None:
        self._seconds, self._beat, self._progress = seconds, beat, progress
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="beating", daemon=True)

    def __enter__(self) -> Beating:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(timeout=self._seconds + 30)

    def _run(self) -> None:
        due = time.monotonic()
        while True:
            due = max(due + self._seconds, time.monotonic())
            if self._ended.wait(max(0.0, due - time.monotonic())):
                return
            try:
                self._beat(self._progress)
            except BaseException as error:  # noqa: BLE001 - ends the shard, and is raised where it is carried
                self._progress.end(error)
                return
