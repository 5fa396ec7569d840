"""The Fleet port: machines that carry one move together, and a migration that waits for days, kept by a durable server.

A fleet knows nothing of objects. It hands numbers of shards to workers, again when one falls silent, and tells how far
they are; what a shard is, only the two ends of the move know: whoever starts it, and the callable that `serve` is
given. All that passes through it is small and plain JSON, without secrets and without the bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from crossload.ports import errors

Task = Mapping[str, Any]
Beat = Callable[[Mapping[str, Any]], None]
"""Tell how far a shard is, often: silence means death. Raises Ended when nobody wants it any more."""
Carry = Callable[[Task, int, Beat], Mapping[str, Any]]
"""Carry shard `number` of a task, and return in a few words what came of it. May be called again for the same shard,
here or elsewhere. A CrossloadError that is retryable has it tried again; any other ends the move."""
Act = Callable[[str, str], Mapping[str, Any]]
"""act(migration, what): do what a timer of a migration asks for (`thaw`, `roll-back`). May be called again."""

RUNNING, DONE, FAILED, ENDED = "running", "done", "failed", "ended"


class Ended(Exception):
    """The move was ended while a shard of it was under way."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`at_once`: shards under way over all workers. A shard whose worker is silent for `silent_seconds` is given to
    another, and so is one that takes longer than `shard_seconds_max`; `starts_max` times in all."""

    at_once: int = 16
    silent_seconds: float = 5.0
    shard_seconds_max: float = 6 * 3600.0
    starts_max: int = 5


@dataclass(frozen=True, slots=True)
class Standing:
    """`state` of a move is running, done, failed or ended. `trouble` is (code, message, hint) of a failed one."""

    state: str
    trouble: tuple[str, str, str] | None = None


@dataclass(frozen=True, slots=True)
class Migration:
    """What the server keeps of one migration. Times are seconds since the epoch, None when nothing was asked.

    `approvals` maps what was approved to by whom; `acted` what a timer has asked for to what the worker answered."""

    name: str
    open: bool
    approvals: Mapping[str, str]
    frozen_until: float | None
    roll_back_at: float | None
    acted: Mapping[str, Mapping[str, Any]]


class Fleet(Protocol):
    """All calls block and are safe from many threads. Errors are those of `ports.errors`; Unavailable when the server
    does not answer. Every call may be repeated."""

    place: str

    def start(self, move: str, task: Task, shards: int, limits: Limits) -> bool:
        """Have shards 1 to `shards` of a task carried. False when a move of this name is under way already: then that
        one goes on, and nothing else happens."""
        ...

    def standing(self, move: str) -> Standing | None:
        """None when no move of this name was ever started, or the server has forgotten it."""
        ...

    def end(self, move: str) -> None:
        """End it: workers hear of it at their next beat. Silent when it is over or unknown."""
        ...

    def serve(self, carry: Carry, act: Act | None, *, at_once: int, stop: threading.Event) -> None:
        """Carry shards, so many at a time, until `stop` is set: then those under way are left to others. `act` does
        what the timers of migrations ask for; a worker without it leaves that to others."""
        ...

    def open_migration(self, name: str) -> bool:
        """Have the server keep a migration. False when it does already."""
        ...

    def migration(self, name: str) -> Migration | None:
        """None when there is none of this name."""
        ...

    def approve(self, name: str, what: str, who: str) -> None:
        """Somebody said yes to `what`; the first to do so is remembered. NotFound when the migration is not kept."""
        ...

    def wait_for(self, name: str, what: str, seconds: float) -> bool:
        """Wait until `what` is approved, at most so long; whether it is."""
        ...

    def freeze_until(self, name: str, at: float | None) -> None:
        """At that time workers are asked to `thaw`, whoever else has ended by then. None: it is thawed already."""
        ...

    def roll_back_after(self, name: str, seconds: float | None) -> None:
        """So many seconds from now workers are asked to `roll-back`, unless `keep` was approved. None: never."""
        ...

    def close_migration(self, name: str) -> None:
        """No timer of it will fire any more."""
        ...


_CLASSES = {
    one.code: one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.CrossloadError)
}


def error_of(code: str, message: str, hint: str) -> errors.CrossloadError:
    """The error that another process, or another machine, has met."""
    made = _CLASSES.get(code, errors.CrossloadError)(message, hint=hint)
    made.code = code
    return made
