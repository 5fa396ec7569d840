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
from crossload.engines.mover.options import NOBODY, Watcher
from crossload.ledger.lock import WorkspaceLock

if TYPE_CHECKING:
    from crossload.engines.mover.ends import End
    from crossload.engines.mover.move import FollowReport, MoveReport, Preview
    from crossload.engines.mover.proof import ProofReport
    from crossload.engines.mover.removal import RemovalReport
    from crossload.engines.mover.returning import ReturnReport

__all__ = ["Move", "MoveOptions", "Watcher", "open_move"]


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
    """Nothing is touched before a method is called. Raises Invalid for an address or settings that cannot be read,
    Refused for a `state` that lies in what is moved."""
    return Move(source, target, options or MoveOptions(), say or Quiet().say)


class Move:
    """Every method takes the move's lock, so that two processes never work on one move. Watchers may be called from
    any thread."""

    def __init__(self, source: str, target: str, options: MoveOptions, say: Any) -> None:
        from crossload.engines.mover.calendar import Calendar
        from crossload.engines.mover.ends import refuse_state_inside
        from crossload.engines.mover.move import Move as Engine
        from crossload.engines.mover.options import CopyOptions

        copy = CopyOptions(
            part_size_bytes=options.part_size_bytes, workers=options.workers,
            buffer_bytes_max=options.buffer_bytes_max, calendar=Calendar(default=options.bandwidth),
            allow_mass_delete=options.allow_mass_delete,
        )  # fmt: skip

        def from_end(identity: str = "") -> End:
            return wiring.end_of_move(
                source, options.source_settings, options.source_region, options.file, say, identity=identity
            )

        def to_end(single: str) -> End:
            return wiring.end_of_move(
                target, options.target_settings, options.target_region, options.file, say, single=single
            )

        first, last = from_end(), to_end("")
        self.what = f"{source} -> {target}"
        self.folder = options.state or Path(".crossload") / "moves" / _slug(first.uri, last.uri)
        refuse_state_inside(self.folder, first, last)
        self._engine = Engine(
            first, to_end, self.folder, copy, back=lambda: from_end("return"), chosen=options.state is not None,
            key=options.key, environment=wiring.environment(None, ""),
        )  # fmt: skip

    def preview(self, *, probe_seconds: float = 0.0) -> Preview:
        with self._lock("move --dry-run"):
            return self._engine.preview(probe_seconds=probe_seconds)

    def run(self, watcher: Watcher = NOBODY) -> MoveReport:
        with self._lock("move"):
            return self._engine.run(watcher)

    def follow(self, watcher: Watcher, told: Any, *, every_seconds: float, passes: int | None = None) -> FollowReport:
        with self._lock("move --follow"):
            return self._engine.follow(watcher, told, every_seconds=every_seconds, passes=passes)

    def verify(self, *, reread_sample: float) -> tuple[ProofReport, bool]:
        with self._lock("move --verify"):
            return self._engine.verify(reread_sample=reread_sample)

    def bring_back(self) -> ReturnReport:
        with self._lock("move --back"):
            return self._engine.bring_back()

    def undo(self) -> tuple[RemovalReport, bool]:
        with self._lock("move --undo"):
            return self._engine.undo()

    def running(self) -> Any:
        """An estimator of the time left: feed `start` and `moved`, ask `left()` about once a second."""
        from crossload.engines.mover.running import Running

        return Running(self._engine.options.calendar, workers=self._engine.options.workers)

    def _lock(self, verb: str) -> WorkspaceLock:
        return WorkspaceLock(self.folder / "lock", verb)


def _slug(*uris: str) -> str:
    """A folder's name that people can read, one for all ways to write the same addresses."""
    words = "-to-".join(re.sub(r"[^A-Za-z0-9]+", "-", uri).strip("-").lower()[-30:].lstrip("-") for uri in uris)
    return f"{words}-{hashlib.sha256(' '.join(uris).encode()).hexdigest()[:8]}"
