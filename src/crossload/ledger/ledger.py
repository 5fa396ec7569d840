"""The ledger of one migration: a hash chain of evidence, the state of every step, and what was committed."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crossload.estate.digest import canonical_json
from crossload.estate.evidence import Evidence, Outcome
from crossload.ledger.database import DAMAGED, LedgerBroken, broken, connect, transaction

GENESIS = "0" * 64

_COLUMNS = "sequence, at, stage, step, asset, verb, status, summary, data, previous"
_STATE = "id, state, data, sequence, work"
# Sequence and hash of the newest record, kept apart from it: records lost at the end would leave a chain that is whole.
_HEAD = "evidence-head"

_SCHEMA = """
create table if not exists evidence(
    sequence integer primary key, at text not null, stage text not null, step text not null, asset text not null,
    verb text not null, status text not null, summary text not null, data text not null, previous text not null,
    hash text not null);
create index if not exists evidence_asset on evidence(asset, sequence);
create table if not exists step(
    id text primary key, state text not null, data text not null, sequence integer not null, work text not null)
    without rowid;
create table if not exists setting(name text primary key, value text not null) without rowid;
"""


@dataclass(frozen=True, slots=True)
class StepState:
    """`state`: running | good | failed | refused | broken (a verify found it wrong) | undone."""

    id: str
    state: str
    data: Mapping[str, Any]
    sequence: int
    work: str = ""


class Ledger:
    """Append-only evidence. Safe for threads of one process; one writing process at a time (see lock.py)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mutex = threading.RLock()
        self._database = connect(path, synchronous="FULL")
        with broken(path):
            self._database.executescript(_SCHEMA)

    def close(self) -> None:
        self._database.close()

    def record(
        self, stage: str, step: str, asset: str, verb: str, outcome: Outcome, *, settles: bool = True
    ) -> Evidence:
        """Append one record and, for perform/undo/verify of a step, set its state, in one transaction.

        `settles=False` keeps the state: a check that could not look has found nothing wrong."""
        with self._mutex, transaction(self._database, self.path) as db:
            last = db.execute("select sequence, hash from evidence order by sequence desc limit 1").fetchone()
            sequence, previous = (last[0] + 1, last[1]) if last else (1, GENESIS)
            at = datetime.now(UTC).isoformat(timespec="milliseconds")
            data = json.loads(canonical_json(dict(outcome.data)))
            item = Evidence(sequence, at, stage, step, asset, verb, outcome.status, outcome.summary, data, previous)
            text, digest = canonical_json(data).decode(), item.hash
            db.execute(
                "insert into evidence values(?,?,?,?,?,?,?,?,?,?,?)",
                (
                    sequence,
                    at,
                    stage,
                    step,
                    asset,
                    verb,
                    outcome.status,
                    outcome.summary,
                    text,
                    previous,
                    digest,
                ),
            )
            state = _state_after(verb, outcome)
            if state and step and settles:
                # Only a good perform replaces what later steps and undo read: a failed repeat must not make us forget
                # what the first one created. What was undone is no longer so, and nobody reads it any more.
                kept = text if verb == "perform" and outcome.good else "{}" if state == "undone" else None
                self._set_state(step, state, kept, sequence)
            db.execute("insert or replace into setting values(?,?)", (_HEAD, f"{sequence}:{digest}"))
        return item

    def begin(self, step: str, work: str = "") -> None:
        """Mark a step as running, before its effects begin: after a crash we know what may be half done.

        `work` is the digest of what the step is to do; it stays with the state."""
        with self._mutex, transaction(self._database, self.path):
            self._set_state(step, "running", work=work)

    def _set_state(
        self, step: str, state: str, data: str | None = None, sequence: int | None = None, work: str | None = None
    ) -> None:
        """What is None stays as it was."""
        self._database.execute(
            "insert into step values(:id, :state, coalesce(:data, '{}'), coalesce(:sequence, 0), coalesce(:work, '')) "
            "on conflict(id) do update set state=:state, data=coalesce(:data, data), "
            "sequence=coalesce(:sequence, sequence), work=coalesce(:work, work)",
            {"id": step, "state": state, "data": data, "sequence": sequence, "work": work},
        )

    def state(self, step: str) -> StepState | None:
        with self._mutex, broken(self.path):
            row = self._database.execute(f"select {_STATE} from step where id=?", (step,)).fetchone()  # noqa: S608
        with self._legible(f"step {step}"):
            return _state(row) if row else None

    def states(self) -> dict[str, StepState]:
        with self._mutex, broken(self.path):
            rows = self._database.execute(f"select {_STATE} from step").fetchall()  # noqa: S608
        with self._legible("a step"):
            return {row[0]: _state(row) for row in rows}

    @contextlib.contextmanager
    def _legible(self, what: str) -> Iterator[None]:
        """A damaged file may still be a database: what no longer reads as what we wrote is said in our words."""
        try:
            yield
        except (ValueError, TypeError) as error:
            raise LedgerBroken(f"{self.path}: {what} is damaged", hint=DAMAGED) from error

    def outcomes(self) -> dict[str, Mapping[str, Any]]:
        """Data of the last perform of every step that is good now."""
        return {name: state.data for name, state in self.states().items() if state.state == "good"}

    def evidence(self, asset: str = "", stage: str = "") -> Iterator[Evidence]:
        """In order; all, or of one asset, or of one stage."""
        query = f"select {_COLUMNS} from evidence"  # noqa: S608
        where = [f"{name}=?" for name, value in (("asset", asset), ("stage", stage)) if value]
        if where:
            query += " where " + " and ".join(where)
        with self._mutex, broken(self.path):
            rows = self._database.execute(query + " order by sequence", [v for v in (asset, stage) if v]).fetchall()
        for row in rows:
            with self._legible(f"record {row[0]}"):
                item = _evidence(row)
            yield item

    def check_chain(self) -> str:
        """ "" when every record hashes to what the next one says, else what is wrong. Anyone can redo this."""
        previous, expected = GENESIS, 0
        with self._mutex, broken(self.path):
            stored = self._database.execute(f"select {_COLUMNS}, hash from evidence order by sequence").fetchall()  # noqa: S608
        for expected, (*row, written) in enumerate(stored, 1):
            try:
                item = _evidence(row)
            except ValueError:
                return f"record {row[0]} was changed after it was written"
            if item.sequence != expected:
                return f"record {expected} is missing"
            if item.previous != previous:
                return f"record {item.sequence} does not follow the one before it"
            previous = item.hash
            if written != previous:
                return f"record {item.sequence} was changed after it was written"
        head = self.setting(_HEAD)
        if head and head != f"{expected}:{previous}":
            return f"record {head.partition(':')[0]} was the last one, record {expected} is the last one now"
        return ""

    def head(self) -> str:
        with self._mutex, broken(self.path):
            row = self._database.execute("select hash from evidence order by sequence desc limit 1").fetchone()
        return row[0] if row else GENESIS

    def setting(self, name: str) -> str:
        with self._mutex, broken(self.path):
            row = self._database.execute("select value from setting where name=?", (name,)).fetchone()
        return row[0] if row else ""

    def set_setting(self, name: str, value: str) -> None:
        with self._mutex, transaction(self._database, self.path) as db:
            db.execute("insert or replace into setting values(?,?)", (name, value))


def _evidence(row: Sequence[Any]) -> Evidence:
    """A row of `_COLUMNS`. Raises ValueError when its data is no JSON object any more."""
    sequence, at, stage, step, asset, verb, status, summary, data, previous = row
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError(f"data of record {sequence} is no object")
    return Evidence(sequence, at, stage, step, asset, verb, status, summary, value, previous)


def _state(row: Sequence[Any]) -> StepState:
    name, state, data, sequence, work = row
    return StepState(name, state, json.loads(data), sequence, work)


def _state_after(verb: str, outcome: Outcome) -> str:
    if verb == "perform":
        return "good" if outcome.good else outcome.status
    if verb == "undo":
        # `unchanged` says that there was nothing to undo (a measurement, a check): what it found stays true.
        return "undone" if outcome.status == "done" else ""
    if verb == "verify":
        return "" if outcome.good else "broken"
    return ""
