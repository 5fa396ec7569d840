"""Putting the sample workload "helpdesk" into cloud A: `seed(home)`. What it is: docs/helpdesk.md.

Safe to repeat and to break off: every part looks at what is there and writes only what is missing or different, and
the bytes are the same on every run. Only here does anybody act as the administrator of cloud A.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from crossload.lab.envfile import read_env
from crossload.lab.seed_account import seed_account
from crossload.lab.seed_clients import Clients, SeedError, SeedEvent, Tally
from crossload.lab.seed_index import seed_index
from crossload.lab.seed_store import seed_docs, seed_models

__all__ = ["SeedError", "SeedEvent", "SeedPart", "SeedReport", "seed", "workload_folder"]


@dataclass(frozen=True, slots=True)
class SeedPart:
    """One part (docs, models, index, account): items written now, items found right, bytes the part holds in all.

    `size_bytes` is of all versions; `made` names what was written."""

    name: str
    made: tuple[str, ...]
    kept: int
    size_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class SeedReport:
    parts: tuple[SeedPart, ...]
    seconds: float

    @property
    def changed(self) -> bool:
        return any(part.made for part in self.parts)

    def part(self, name: str) -> SeedPart:
        """Raises KeyError."""
        for part in self.parts:
            if part.name == name:
                return part
        raise KeyError(name)


def workload_folder() -> Path:
    """`examples/helpdesk` of this checkout, or the folder that CROSSLOAD_HELPDESK names. Raises SeedError."""
    named = os.environ.get("CROSSLOAD_HELPDESK")
    folder = Path(named) if named else Path(__file__).resolve().parents[3] / "examples" / "helpdesk"
    if not (folder / "agent.json").is_file():
        raise SeedError(f"no sample workload in {folder}: run from a checkout, or set CROSSLOAD_HELPDESK")
    return folder


def seed(lab_home: Path, on_event: Callable[[SeedEvent], None] | None = None, small: bool = False) -> SeedReport:
    """Fill cloud A of the lab in `lab_home`; `small` makes about 150 objects instead of 2,100, of the same shapes.

    `on_event` is called from worker threads, at most about ten times a second and part. Raises SeedError when the lab
    is not up, something is not installed, or a server refuses."""
    began = time.monotonic()
    workload = workload_folder()
    try:
        env = dict(read_env(lab_home))
    except FileNotFoundError:
        raise SeedError(f"no lab was ever up in {lab_home}: crossload lab up") from None
    database = env.get("CROSSLOAD_LAB_PG_A_SEED")
    if not database:
        raise SeedError("cloud A's database is not up here (CROSSLOAD_LAB_PG_A_SEED is missing): crossload lab up")
    clients = Clients(env)
    work: tuple[tuple[str, Callable[[Tally], None]], ...] = (
        ("account", lambda tally: seed_account(clients, lab_home, env, workload, tally)),
        ("index", lambda tally: seed_index(database, workload, tally)),
        ("models", lambda tally: seed_models(clients, tally)),
        ("docs", lambda tally: seed_docs(clients, tally, workload, small)),
    )
    parts = tuple(_run(name, act, on_event) for name, act in work)
    return SeedReport(parts, round(time.monotonic() - began, 2))


def _run(name: str, act: Callable[[Tally], None], on_event: Callable[[SeedEvent], None] | None) -> SeedPart:
    began = time.monotonic()
    tally = Tally(name, 0, on_event)
    try:
        act(tally)
    except _refusals() as error:
        raise SeedError(f"seeding {name}: {type(error).__name__}: {error}") from error
    return SeedPart(name, tuple(sorted(tally.made)), tally.kept, tally.size_bytes, round(time.monotonic() - began, 2))


def _refusals() -> tuple[type[Exception], ...]:
    """What the servers' SDKs raise. Anything else is a mistake of ours and keeps its trace."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    known: tuple[type[Exception], ...] = (ClientError, BotoCoreError, Boto3Error, OSError)
    try:
        from psycopg import Error
    except ImportError:
        return known
    return (*known, Error)
