"""The chain of evidence: whoever changes, adds or removes a record afterwards is found out."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from crossload.estate.evidence import Evidence, Outcome
from crossload.ledger.ledger import GENESIS, Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "ledger.db")
    for number in range(1, 6):
        step = f"transfer/copy/dataset:{number}"
        opened.record(
            "transfer", step, f"dataset:{number}", "perform", Outcome.done(f"copied {number}", objects=number)
        )
    yield opened
    opened.close()


def tamper(ledger: Ledger, statement: str, *values: object) -> None:
    database = sqlite3.connect(ledger.path)
    with database:
        assert database.execute(statement, values).rowcount >= 1
    database.close()


def test_a_whole_chain(ledger: Ledger) -> None:
    assert ledger.check_chain() == ""
    records = list(ledger.evidence())
    assert [item.sequence for item in records] == [1, 2, 3, 4, 5]
    assert records[0].previous == GENESIS
    for before, after in pairwise(records):
        assert after.previous == before.hash
    assert ledger.head() == records[-1].hash
    assert records[2].id == f"E3-{records[2].hash[:8]}"


def test_a_stranger_can_check_it_with_sha256_alone(ledger: Ledger) -> None:
    """The rule in one line: SHA-256 over sorted, space-free JSON of the record."""
    import hashlib

    previous = GENESIS
    for item in ledger.evidence():
        text = json.dumps(item.to_json(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert item.previous == previous
        previous = hashlib.sha256(text.encode()).hexdigest()
    assert previous == ledger.head()


COLUMNS = {
    "sequence": 30, "at": "2001-01-01T00:00:00.000+00:00", "stage": "goals", "step": "x/y/z", "asset": "dataset:other",
    "verb": "verify", "status": "failed", "summary": "nothing happened", "data": '{"objects":1000}',
    "previous": "f" * 64, "hash": "f" * 64,
}  # fmt: skip


@pytest.mark.parametrize("record", [1, 3, 5])
@pytest.mark.parametrize("column", COLUMNS)
def test_every_changed_column_is_found(ledger: Ledger, column: str, record: int) -> None:
    tamper(ledger, f"update evidence set {column}=? where sequence=?", COLUMNS[column], record)
    assert ledger.check_chain() != ""


def test_the_columns_are_all_there_are(ledger: Ledger) -> None:
    database = sqlite3.connect(ledger.path)
    names = [row[1] for row in database.execute("pragma table_info(evidence)")]
    database.close()
    assert names == list(COLUMNS)
    assert {*names} - {"hash"} == set(Evidence.__dataclass_fields__)


@pytest.mark.parametrize("text", ["", "{", "[]", "7"])
def test_data_that_is_no_json_object_is_a_finding_and_no_crash(ledger: Ledger, text: str) -> None:
    tamper(ledger, "update evidence set data=? where sequence=2", text)
    assert ledger.check_chain() == "record 2 was changed after it was written"


@pytest.mark.parametrize("record", [1, 2, 3, 4, 5])
def test_every_removed_record_is_found(ledger: Ledger, record: int) -> None:
    tamper(ledger, "delete from evidence where sequence=?", record)
    assert ledger.check_chain() != ""


def test_all_records_removed_is_found(ledger: Ledger) -> None:
    tamper(ledger, "delete from evidence")
    assert ledger.check_chain() != ""


def test_records_in_another_order_are_found(ledger: Ledger) -> None:
    tamper(ledger, "update evidence set sequence=99 where sequence=2")
    tamper(ledger, "update evidence set sequence=2 where sequence=3")
    tamper(ledger, "update evidence set sequence=3 where sequence=99")
    assert ledger.check_chain() != ""


def test_a_record_slipped_in_at_the_end_is_found(ledger: Ledger) -> None:
    last = list(ledger.evidence())[-1]
    forged = Evidence(6, last.at, "cutover", "", "estate:x", "commit", "done", "committed", {}, last.hash)
    tamper(
        ledger, "insert into evidence values(?,?,?,?,?,?,?,?,?,?,?)", 6, forged.at, forged.stage, forged.step,
        forged.asset, forged.verb, forged.status, forged.summary, "{}", forged.previous, forged.hash,
    )  # fmt: skip
    assert ledger.check_chain() != ""


def test_two_ledgers_of_one_file_go_on_with_one_chain(ledger: Ledger) -> None:
    other = Ledger(ledger.path)
    for number in range(6):
        (ledger if number % 2 else other).record("goals", "", "estate:x", "note", Outcome.done(f"{number}"))
    other.close()
    assert ledger.check_chain() == ""
    assert len(list(ledger.evidence())) == 11


def test_threads_write_one_chain(ledger: Ledger) -> None:
    def write(name: str) -> None:
        for number in range(10):
            ledger.record("goals", "", f"estate:{name}", "note", Outcome.done(f"{number}"))

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.check_chain() == ""
    assert len(list(ledger.evidence())) == 45


def test_evidence_of_one_asset_or_one_stage(ledger: Ledger) -> None:
    ledger.record("goals", "", "dataset:2", "note", Outcome.done("noted"))
    assert [item.sequence for item in ledger.evidence("dataset:2")] == [2, 6]
    assert [item.sequence for item in ledger.evidence(stage="goals")] == [6]
    assert [item.sequence for item in ledger.evidence("dataset:2", "transfer")] == [2]


def test_only_its_owner_can_read_it(ledger: Ledger) -> None:
    for path in ledger.path.parent.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path


# -- states ----------------------------------------------------------------------------------------------------------


def record(ledger: Ledger, verb: str, outcome: Outcome) -> str:
    ledger.record("transfer", "transfer/copy/x", "dataset:x", verb, outcome)
    state = ledger.state("transfer/copy/x")
    return state.state if state else ""


def test_states_after_each_verb(ledger: Ledger) -> None:
    ledger.begin("transfer/copy/x")
    assert ledger.states()["transfer/copy/x"].state == "running"
    assert record(ledger, "perform", Outcome.failed("no")) == "failed"
    assert record(ledger, "perform", Outcome.refused("no")) == "refused"
    assert record(ledger, "perform", Outcome("pending", "waits")) == "pending"
    assert record(ledger, "perform", Outcome.done("yes")) == "good"
    assert record(ledger, "verify", Outcome.done("still")) == "good"
    assert record(ledger, "verify", Outcome.failed("gone")) == "broken"
    assert record(ledger, "perform", Outcome.unchanged("mended")) == "good"
    assert record(ledger, "undo", Outcome.failed("could not")) == "good"
    assert record(ledger, "undo", Outcome.unchanged("a measurement: nothing to undo")) == "good"
    assert record(ledger, "undo", Outcome.done("removed")) == "undone"
    assert record(ledger, "note", Outcome.done("by the way")) == "undone"


def test_a_failed_repeat_does_not_forget_what_the_first_perform_created(ledger: Ledger) -> None:
    """undo asks this data which bucket is ours to remove."""
    record(ledger, "perform", Outcome.done("copied", bucket_created=True))
    record(ledger, "verify", Outcome.failed("one object is wrong", wrong=["a"]))
    record(ledger, "perform", Outcome.failed("the store is down", code="unavailable"))
    state = ledger.state("transfer/copy/x")
    assert state is not None
    assert state.state == "failed"
    assert state.data == {"bucket_created": True}
    assert "transfer/copy/x" not in ledger.outcomes()
    record(ledger, "perform", Outcome.done("mended", bucket_created=True, objects=3))
    assert ledger.outcomes()["transfer/copy/x"] == {"bucket_created": True, "objects": 3}


def test_settings_are_kept_apart_from_the_chain(ledger: Ledger) -> None:
    assert ledger.setting("committed") == ""
    ledger.set_setting("committed", "2026-01-01")
    ledger.set_setting("committed", "2026-01-02")
    assert ledger.setting("committed") == "2026-01-02"
    assert ledger.check_chain() == ""


def test_what_cannot_be_written_leaves_no_trace(ledger: Ledger) -> None:
    with pytest.raises(TypeError):
        ledger.record("goals", "goals/x/y", "estate:x", "perform", Outcome.done("bad", value=object()))
    assert ledger.state("goals/x/y") is None
    assert ledger.check_chain() == ""
    assert len(list(ledger.evidence())) == 5
