"""Pipes that break, signals, odd terminals, names that drive a terminal, files that cannot be written."""

from __future__ import annotations

import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from desk_project import FILE, WITHOUT, completed

from crossload.api import check_file
from crossload.cli.progress import BarProgress
from crossload.cli.render import visible
from crossload.cli.running import finish
from crossload.engines.planner.lock import write_lock
from crossload.estate.asset import Inventory
from crossload.estate.evidence import Outcome
from crossload.ledger.database import LedgerBroken
from crossload.ledger.ledger import Ledger
from crossload.ports.errors import NotFound, Unavailable
from crossload.steps.run import RunReport, StepResult
from crossload.steps.step import Step


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with an empty inventory; we stand in its folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CROSSLOAD_FILE", raising=False)
    (tmp_path / "migration.yaml").write_text(FILE, encoding="utf-8")
    write_lock(workspace(tmp_path) / "inventory.lock.json", Inventory())
    return tmp_path


def workspace(folder: Path) -> Path:
    return folder / ".crossload" / "desk"


# -- streams ---------------------------------------------------------------------------------------------------------

TALKATIVE = """
import sys, pathlib
from crossload.cli.streams import steady
with steady():
    for number in range(3):
        print("talk", file=sys.stderr, flush=True)
        print("data", flush=True)
pathlib.Path(sys.argv[1]).write_text("the work went on to its end")
"""


@pytest.mark.parametrize("redirection", ["2>&1 | true", "2>&-", ">&-", "2>&- >&- <&-", "2>/dev/full"])
def test_work_outlives_whoever_listened(tmp_path: Path, redirection: str) -> None:
    done = tmp_path / "done"
    command = f'set -o pipefail; "$0" -c "$1" "$2" {redirection}'
    code = subprocess.run(["bash", "-c", command, sys.executable, TALKATIVE, done], check=False).returncode
    assert (code, done.read_text()) == (0, "the work went on to its end")


def test_a_full_disk_under_stdout_is_an_error(desk: Path) -> None:
    command = f"{sys.executable} -m crossload schema > /dev/full"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["error: [Errno 28] No space left on device"]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_is_json_in_every_encoding(desk: Path, encoding: str) -> None:
    (desk / "migration.yaml").write_text(FILE.replace("owner:", "öwner:"), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "crossload", "validate", "--json"], capture_output=True, check=False,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )  # fmt: skip
    told = json.loads(done.stdout.decode("utf-8"))  # RFC 8259: JSON between systems is UTF-8
    assert "metadata.öwner" in " ".join(item["summary"] for item in told["problems"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_term_and_hup_stop_as_ctrl_c_does(
    desk: Path, say: Any, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    import crossload.api

    def stopped(path: Path) -> Any:
        os.kill(os.getpid(), number)
        return check_file(path)

    before = signal.getsignal(number)
    monkeypatch.setattr(crossload.api, "check_file", stopped)
    code, out, err = say("validate", "--json")
    assert code == 130
    assert json.loads(out)["error"]["code"] == "interrupted"
    assert "run the same command again" in err
    assert signal.getsignal(number) == before


def test_an_interrupted_bar_gives_the_cursor_back(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    screen.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    bars = BarProgress()
    bars.start("dataset:docs", 100, "B")
    bars.close()
    assert screen.getvalue().rindex("\x1b[?25h") > screen.getvalue().rindex("\x1b[?25l")


def test_names_do_not_drive_the_terminal() -> None:
    shown = visible("\x1b]0;mine\x07 a\tb\n✓ transfer dataset:docs all is well")
    assert "\x1b" not in shown and "\x07" not in shown
    assert shown.splitlines()[1].startswith("    ")  # no result of its own


# -- JSON and exit codes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, code, word",
    [
        (["status"], 3, "stale"), (["trace", "dataset:nobody"], 2, "invalid"), (["apply"], 3, "stale"),
        (["plan", "-f", "nowhere.yaml"], 2, "bad-file"), (["cutover"], 3, "stale"), (["rollback"], 3, "stale"),
        (["report"], 3, "stale"), (["commit", "--yes"], 3, "stale"), (["verify", "--onyl"], 2, "usage"),
        (["init", "--lab", "nowhere"], 2, "usage"), (["init", "--lab", "nowhere", "-f", "x.yaml"], 2, "invalid"),
        (["schema", "-o", "no/such/folder"], 2, "usage"), (["inventory"], 1, "unsupported"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)  # fmt: skip
def test_json_tells_errors_too(desk: Path, say: Any, arguments: list[str], code: int, word: str) -> None:
    got, out, err = say(*arguments, "--json")
    told = json.loads(out)
    assert got == code
    if "error" in told:
        assert told["error"]["code"] == word and told["error"]["message"]
        assert err.strip()
    else:  # a step that failed is a result, not an error of the verb
        assert told["results"][0]["status"] == "failed"


def step(status: str, error: Exception | None = None, *, blind: bool = False) -> StepResult:
    made = Step("transfer/copy/dataset:docs", "transfer", "copy", "dataset:docs", "copy")
    return StepResult(made, status, "waits for transfer/copy/x", None, error, blind)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "results, failing, code",
    [
        ([step("kept"), step("waiting")], 1, 3),  # asked for and not done is no success
        ([step("done"), step("open")], 4, 1),  # verified only in part
        ([step("failed", Unavailable("down"), blind=True)], 4, 1),  # nobody looked, so nobody found a difference
        ([step("failed", Unavailable("down"), blind=True), step("failed", NotFound("gone"))], 4, 4),
    ],
)
def test_what_was_not_done_is_no_success(results: list[StepResult], failing: int, code: int) -> None:
    with pytest.raises(click.exceptions.Exit) as stop:
        finish(RunReport(results), False, failing=failing)
    assert stop.value.exit_code == code


@pytest.mark.parametrize("answer, code", [("n\n", 3), ("", 130)])
def test_a_no_to_commit_is_refused(
    desk: Path, say: Any, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    say("plan")
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    got, out, err = say("commit")
    assert (got, out) == (code, "")
    assert ("--yes" in err) == (answer == "")


def test_a_lost_ledger_verifies_nothing(desk: Path, say: Any) -> None:
    say("plan")
    code, _, err = say("verify")
    assert code == 3 and "nothing was performed" in err


# -- files -----------------------------------------------------------------------------------------------------------


def test_from_a_folder_below_the_hint_says_where_the_file_is(
    desk: Path, say: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (desk / "app" / "deep").mkdir(parents=True)
    monkeypatch.chdir(desk / "app" / "deep")
    code, _, err = say("status")
    assert code == 2 and str(desk / "migration.yaml") in err


def test_init_keeps_no_secret(desk: Path, say: Any) -> None:
    place = "id=a,provider=aws,region=eu-central-1,client_secret=hunter2hunter2"
    code, out, err = say("init", "-f", "other.yaml", "--source", place)
    assert code == 2 and "client_secret=env:NAME" in err
    assert "hunter2" not in out + err
    assert not (desk / "other.yaml").exists()


@pytest.mark.parametrize("value", [".nan", ".inf"])
def test_a_limit_must_be_a_number_one_can_pass(desk: Path, say: Any, value: str) -> None:
    (desk / "migration.yaml").write_text(FILE.replace("limit: 0.01", f"limit: {value}"), encoding="utf-8")
    assert say("validate")[0] == 2


@pytest.mark.parametrize("text", ["- a\n- list\n", "word", "~"])
def test_a_file_that_is_no_mapping_is_told_so(desk: Path, say: Any, text: str) -> None:
    (desk / "migration.yaml").write_text(text, encoding="utf-8")
    code, _, err = say("validate")
    assert code == 2 and "must be a mapping" in err


def test_a_report_never_replaces_what_is_no_file(desk: Path, say: Any) -> None:
    say("plan")
    os.mkfifo(desk / "pipe")
    reader = os.open(desk / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        code, _, _ = say("report", "-o", "pipe")
        assert code == 0 and (desk / "pipe").is_fifo()
        assert os.read(reader, 15) == b"<!doctype html>"
    finally:
        os.close(reader)


def test_damaged_records_are_said_in_our_words(desk: Path, say: Any) -> None:
    say("plan")
    path = workspace(desk) / "ledger.db"
    ledger = Ledger(path)
    ledger.record("transfer", "transfer/copy/dataset:docs", "dataset:docs", "perform", Outcome.done("all is well"))
    ledger.close()
    for table in ("evidence", "step"):
        with sqlite3.connect(path) as database:
            database.execute(f"update {table} set data='{{'")
        code, _, err = say("status")
        assert code == 1 and "damaged" in err and "hint: restore" in err


def test_a_ledger_in_a_folder_that_is_read_only_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger.db"
    ledger = Ledger(path)
    ledger.record("transfer", "x", "dataset:docs", "perform", Outcome.done("all is well"))
    ledger.close()

    def nothing(*_: object) -> bool:
        return False

    monkeypatch.setattr(os, "access", nothing)
    looking = Ledger(path)
    try:
        assert [item.summary for item in looking.evidence("dataset:docs")] == ["all is well"]
        with pytest.raises(LedgerBroken):
            looking.set_setting("committed", "now")
    finally:
        looking.close()


# -- this machine ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        (["doctor"], 0, "crossload[aws]"),
        (["plan"], 0, ""),  # no code is named, so nothing that converts code is needed
        (["lab", "seed", "--home", "."], 1, "no lab was ever up"),
    ],
)
def test_without_any_extra(desk: Path, arguments: list[str], code: int, words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *arguments], capture_output=True, text=True, check=False,
        env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert words in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words, wanted",
    [
        (["crossload", "ro"], "rollback"),
        (["crossload", "lab", "se"], "seed"),
        (["crossload", "apply", "--st"], "--stage"),
    ],
)
def test_bash_completes_verbs_and_options(tmp_path: Path, words: list[str], wanted: str) -> None:
    done = completed(tmp_path, *words)
    assert done.stdout.split() == [wanted], done.stderr
