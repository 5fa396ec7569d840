"""Moves without a migration file: an address here, an address there."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossload import wiring
from crossload.api.project import Quiet
from crossload.ledger.lock import WorkspaceLock

if TYPE_CHECKING:
    from crossload.engines.mover.move import MoveReport, Preview
    from crossload.engines.mover.options import Watcher
    from crossload.engines.mover.proof import ProofReport
    from crossload.engines.mover.removal import RemovalReport
    from crossload.engines.mover.returning import ReturnReport


@dataclass(frozen=True, slots=True)
class MoveOptions:
    """`settings` are connection settings as in a migration file, secrets only as references. `file` is a migration
    file whose places may stand in an address: PLACE:BUCKET/PREFIX. Sizes are bytes; `bandwidth` is bytes/s."""

    source_settings: Mapping[str, str] = field(default_factory=dict)
    target_settings: Mapping[str, str] = field(default_factory=dict)
    source_region: str = ""
    target_region: str = ""
    file: Path | None = None
    state: Path | None = None
    part_size_bytes: int = 16 * 2**20
    workers: int = 8
    buffer_bytes_max: int = 64 * 2**20
    bandwidth: float | None = None
    allow_mass_delete: bool = False
    key: str = ""


def open_move(source: str, target: str, options: MoveOptions | None = None, say: Any = None) -> Move:
    """Nothing is touched before a method is called. Raises Invalid for an address that cannot be read."""
    return Move(source, target, options or MoveOptions(), say or Quiet().say)


class Move:
    """Every method takes the move's lock, so that two processes never work on one move."""

    def __init__(self, source: str, target: str, options: MoveOptions, say: Any) -> None:
        from crossload.engines.mover.calendar import Calendar
        from crossload.engines.mover.move import Move as Engine
        from crossload.engines.mover.options import CopyOptions

        self.folder = options.state or Path(".crossload") / "moves" / _slug(source, target)
        copy = CopyOptions(
            part_size_bytes=options.part_size_bytes, workers=options.workers,
            buffer_bytes_max=options.buffer_bytes_max, calendar=Calendar(default=options.bandwidth),
            allow_mass_delete=options.allow_mass_delete,
        )  # fmt: skip
        environment = wiring.environment(None, "")
        from_end = wiring.end_of_move(source, options.source_settings, options.source_region, options.file, say)
        to_end = wiring.end_of_move(target, options.target_settings, options.target_region, options.file, say)
        self._engine = Engine(from_end, to_end, self.folder, copy, key=options.key, environment=environment)

    @property
    def what(self) -> str:
        return f"{self._engine.source.address} -> {self._engine.target.address}"

    def preview(self, *, probe_seconds: float = 0.0) -> Preview:
        with self._lock("preview"):
            return self._engine.preview(probe_seconds=probe_seconds)

    def run(self, watcher: Watcher | None = None) -> MoveReport:
        with self._lock("move"):
            return self._engine.run(watcher) if watcher else self._engine.run()

    def follow(self, watcher: Watcher, told: Any, *, every_seconds: float, passes: int | None = None) -> list[Any]:
        with self._lock("follow"):
            return self._engine.follow(watcher, told, every_seconds=every_seconds, passes=passes)

    def verify(self, *, reread_sample: float) -> ProofReport:
        with self._lock("verify"):
            return self._engine.verify(reread_sample=reread_sample)

    def bring_back(self) -> ReturnReport:
        with self._lock("bring back"):
            return self._engine.bring_back()

    def undo(self) -> tuple[RemovalReport, bool]:
        with self._lock("undo"):
            return self._engine.undo()

    def watcher(self, *, start: Any, moved: Any, say: Any) -> Watcher:
        """Callbacks for live talk: start(objects, bytes), moved(objects, bytes), say(text); from any thread."""
        from crossload.engines.mover.options import Watcher

        return Watcher(start=start, moved=moved, say=say)

    def running(self) -> Any:
        """An estimator of the time left: feed `start` and `moved`, ask `left()` about once a second."""
        from crossload.engines.mover.running import Running

        return Running(self._engine.options.calendar, workers=self._engine.options.workers)

    def _lock(self, verb: str) -> WorkspaceLock:
        return WorkspaceLock(self.folder / "lock", verb)


def _slug(source: str, target: str) -> str:
    """A folder's name that people can read, and that differs whenever the addresses do."""
    words = re.sub(r"[^A-Za-z0-9]+", "-", f"{source} {target}").strip("-").lower()[:60]
    return f"{words}-{hashlib.sha256(f'{source} {target}'.encode()).hexdigest()[:8]}"
