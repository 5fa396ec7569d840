"""The command line: data on stdout, talk on stderr, one clear line for an error, and the documented exit code."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from desk_project import FILE

from crossload import __version__
from crossload.cli import exits
from crossload.cli.main import VERBS, main
from crossload.cli.progress import LineProgress, shown
from crossload.cli.running import finish
from crossload.ports import errors
from crossload.steps.run import RunReport, StepResult
from crossload.steps.step import Step

GOOD = FILE.replace("name: desk", "name: helpdesk")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a good migration file, and nothing done yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CROSSLOAD_FILE", raising=False)
    (tmp_path / "migration.yaml").write_text(GOOD)
    return tmp_path


def test_help_names_every_verb_and_every_exit_code(say: Any) -> None:
    code, out, err = say("--help")
    assert (code, err) == (0, "")
    for verb, (_, line) in VERBS.items():
        assert verb in out
        assert line.split(";")[0].split(".")[0] in " ".join(out.split())
    for value in (0, 1, 2, 3, 4, 5, 6, 130):
        assert f"{value} " in out


def test_version(say: Any) -> None:
    assert say("--version") == (0, f"crossload, version {__version__}\n", "")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(say: Any, verb: str) -> None:
    code, out, err = say(verb, "--help")
    assert (code, err) == (0, "")
    assert f"crossload {verb}" in out


@pytest.mark.parametrize("word, hint", [("aply", "apply"), ("rolback", "rollback"), ("zzzz", "")])
def test_an_unknown_verb_gets_a_suggestion(say: Any, word: str, hint: str) -> None:
    code, out, err = say(word)
    assert (code, out) == (2, "")
    assert f"`{word}`" in err
    assert (f"Did you mean `{hint}`?" in err) == bool(hint)


def test_an_unknown_option_is_a_usage_error(say: Any, project: Path) -> None:
    code, out, err = say("apply", "--al")
    assert (code, out) == (2, "")
    assert "--al" in err


# -- the file --------------------------------------------------------------------------------------------------------


def test_a_valid_file(say: Any, project: Path) -> None:
    assert say("validate") == (0, "migration.yaml: valid (helpdesk)\n", "")
    code, out, err = say("validate", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {"file": "migration.yaml", "valid": True, "problems": []}


def test_a_bad_file_says_everything_and_leaves_with_2(say: Any, project: Path) -> None:
    (project / "migration.yaml").write_text(GOOD.replace("owner", "ownr").replace("limit: 60", "limit: fast"))
    code, out, err = say("validate")
    assert (code, out) == (2, "")
    assert [line for line in err.splitlines() if line.startswith("migration.yaml:")] == [
        line for line in err.splitlines() if ": error XL1" in line
    ]
    assert [word for word in ("XL110", "XL111", "XL112") if word in err] == ["XL110", "XL111", "XL112"]
    assert "did you mean `owner`?" in err
    code, out, err = say("validate", "--json")
    assert (code, err) == (2, "")
    told = json.loads(out)
    assert told["valid"] is False
    assert {problem["code"] for problem in told["problems"]} == {"XL110", "XL111", "XL112"}
    for verb in ("status", "apply", "plan", "verify"):
        code, out, err = say(verb)
        assert (code, out) == (2, ""), verb
        assert "XL110" in err
        assert "error: 3 error(s) in the migration file" in err


def test_no_file_at_all(say: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = say("status")
    assert (code, out) == (2, "")
    assert "crossload init" in err


def test_the_file_may_be_named_by_option_or_environment(
    say: Any, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "migration.yaml").rename(project / "other.yaml")
    assert say("validate", "-f", "other.yaml")[0] == 0
    monkeypatch.setenv("CROSSLOAD_FILE", "other.yaml")
    assert say("validate")[1] == "other.yaml: valid (helpdesk)\n"


def test_the_schema_is_json_on_stdout_or_in_a_file(say: Any, project: Path) -> None:
    code, out, _ = say("schema")
    assert code == 0
    assert json.loads(out)["properties"]["apiVersion"]["const"] == "crossload/v1"
    assert say("schema", "-o", "schema.json") == (0, "schema.json\n", "")
    assert (project / "schema.json").read_text() == out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_taken_by_their_shells(say: Any, shell: str) -> None:
    code, out, err = say("completion", shell)
    assert (code, err) == (0, "")
    assert "_CROSSLOAD_COMPLETE" in out
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=out, text=True, check=True, capture_output=True)


# -- before anything was done ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        (["status"], 3, "crossload plan"),
        (["apply"], 3, "crossload plan"),
        (["verify"], 3, "crossload plan"),
        (["cutover"], 3, "crossload plan"),
        (["rollback"], 3, "crossload plan"),
        (["commit", "--yes"], 3, "crossload plan"),
        (["plan"], 3, "crossload inventory"),
        (["trace", "dataset:docs"], 2, "nothing is recorded about dataset:docs"),
        (["apply", "--stage", "nonsense"], 2, "no stage is called nonsense"),
        (["rollback", "--to", "nonsense"], 2, "no stage is called nonsense"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_done_yet_says_what_comes_first(
    say: Any, project: Path, arguments: list[str], code: int, words: str
) -> None:
    got, out, err = say(*arguments)
    assert (got, out) == (code, "")
    assert words in err
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 3


def test_commit_asks_first(say: Any, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer is no: nothing is committed by a script that has no terminal."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    code, out, err = say("commit")
    assert code != 0
    assert out == ""
    assert "rollback" in err


# -- exit codes ------------------------------------------------------------------------------------------------------


def test_every_error_of_the_tree_has_its_code() -> None:
    tree = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    codes = {kind.code: exits.exit_code(kind("x")) for kind in tree}  # type: ignore[attr-defined]
    assert codes == {
        "error": 1, "access-denied": 6, "not-signed-in": 6, "not-found": 1, "precondition-failed": 1,
        "digest-mismatch": 4, "unsupported": 1, "throttled": 1, "unavailable": 1, "invalid": 2, "locked": 5, "stale": 3,
        "refused": 3,
    }  # fmt: skip
    assert exits.exit_code(ZeroDivisionError()) is None


def test_a_strangers_error_is_not_dressed_up(monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    """A bug of ours shows its traceback: hiding it would help nobody."""
    import crossload.api

    def broken(path: Path) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(crossload.api, "check_file", broken)
    with pytest.raises(ZeroDivisionError):
        main(["validate"])


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), click.Abort()])
def test_ctrl_c_is_130_and_says_that_nothing_is_lost(
    say: Any, project: Path, monkeypatch: pytest.MonkeyPatch, interruption: BaseException
) -> None:
    import crossload.api

    def interrupted(path: Path) -> None:
        raise interruption

    monkeypatch.setattr(crossload.api, "check_file", interrupted)
    code, out, err = say("validate")
    assert (code, out) == (130, "")
    assert "run the same command again" in err


def test_a_reader_that_leaves_early_is_no_error(project: Path) -> None:
    """`crossload schema | head -1` ends quietly."""
    command = f"{sys.executable} -m crossload schema | head -1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False)
    assert done.stdout == "{\n"
    assert "Traceback" not in done.stderr


def test_another_process_at_work_is_5(say: Any, project: Path) -> None:
    from crossload.ledger.lock import WorkspaceLock

    workspace = project / ".crossload" / "helpdesk"
    with WorkspaceLock(workspace / "lock", "apply"):
        code, out, err = say("inventory")
    assert (code, out) == (5, "")
    assert f"`crossload apply` holds the lock: pid {os.getpid()}" in err


def result(status: str, error: Exception | None = None) -> StepResult:
    step = Step("goals/x/y", "goals", "x", "dataset:y", "summary")
    return StepResult(step, status, "summary", None, error)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "results, failing, code",
    [
        ([], 1, 0),
        ([result("done"), result("kept"), result("pending")], 1, 0),
        ([result("done"), result("failed")], 1, 1),
        ([result("failed")], 4, 4),
        ([result("refused")], 1, 3),
        ([result("refused"), result("failed")], 1, 1),
        ([result("failed", errors.NotSignedIn("x"))], 1, 6),
        ([result("failed", errors.AccessDenied("x"))], 4, 6),
    ],
)
def test_a_report_leaves_with_its_code(
    results: list[StepResult], failing: int, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    for as_json in (False, True):
        got = 0
        try:
            finish(RunReport(list(results)), as_json, failing=failing)
        except click.exceptions.Exit as stop:
            got = stop.exit_code
        assert got == code
        out, err = capsys.readouterr()
        assert err == ""
        if as_json:
            assert [item["status"] for item in json.loads(out)["results"]] == [item.status for item in results]
        else:
            assert out.strip()


# -- progress --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value, unit, words",
    [
        (0, "B", "0 B"), (1023, "B", "1,023 B"), (1024, "B", "1.0 KiB"), (5 * 2**20, "B", "5.0 MiB"),
        (3 * 2**40, "B", "3,072.0 GiB"), (12, "requests", "12 requests"),
    ],
)  # fmt: skip
def test_amounts(value: float, unit: str, words: str) -> None:
    assert shown(value, unit) == words


def test_lines_of_progress_have_rate_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from crossload.cli import progress

    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    talk = LineProgress(every_seconds=5.0)
    talk.start("dataset:docs", 100 * 2**20, "B")
    talk.advance("dataset:docs", 10 * 2**20)
    assert capsys.readouterr().err == ""  # not more often than every few seconds
    now = 110.0
    talk.advance("dataset:docs", 10 * 2**20)
    assert capsys.readouterr().err == "  dataset:docs: 20.0 MiB of 100.0 MiB, 2.0 MiB/s, about 40 s left\n"
    talk.advance("nobody", 1)
    talk.finish("nobody")
    talk.finish("dataset:docs")
    talk.say("something")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("  something\n")
