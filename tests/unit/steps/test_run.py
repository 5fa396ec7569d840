"""The durable run: whatever interrupts it, the next one goes on, and never does twice what is good."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crossload.estate.evidence import Outcome
from crossload.ledger.database import LedgerBroken
from crossload.ledger.ledger import Ledger
from crossload.ports.errors import AccessDenied, DigestMismatch, NotFound, NotSignedIn, Throttled, Unavailable
from crossload.steps.run import RunReport
from crossload.steps.step import Step

Make = Callable[..., Step]


def raises(error: BaseException) -> Callable[[], Outcome]:
    def answer() -> Outcome:
        raise error

    return answer


def said(report: RunReport) -> list[tuple[str, str]]:
    return [(item.step.id, item.status) for item in report.results]


def test_steps_are_performed_once_in_order(bench: Any, step: Make) -> None:
    steps = [step("b", "a"), step("a"), step("c", "b")]
    report = bench.run().apply(steps)
    assert said(report) == [("a", "done"), ("b", "done"), ("c", "done")]
    assert bench.stage.verbs("perform") == ["a", "b", "c"]
    assert [item.evidence.sequence for item in report.results if item.evidence] == [1, 2, 3]
    assert bench.ledger.outcomes()["b"] == {"made": "b"}
    again = bench.run().apply(steps)
    assert said(again) == [("a", "kept"), ("b", "kept"), ("c", "kept")]
    assert all(item.evidence is None for item in again.results)
    assert bench.stage.verbs("perform") == ["a", "b", "c"]


def test_a_failed_step_holds_back_only_those_that_wait_for_it(bench: Any, step: Make) -> None:
    steps = [step("a"), step("b", "a"), step("c", "b"), step("d"), step("e", "d", "c"), step("f", "d")]
    bench.stage.answers["perform", "a"] = raises(Unavailable("down", hint="start it"))
    report = bench.run().apply(steps)
    assert said(report) == [
        ("a", "failed"), ("b", "waiting"), ("c", "waiting"), ("d", "done"), ("e", "waiting"), ("f", "done"),
    ]  # fmt: skip
    assert [item.step.id for item in report.failed] == ["a"]
    failed = report.results[0]
    assert failed.error is not None
    assert failed.error.code == "unavailable"
    assert failed.evidence is not None
    assert failed.evidence.data == {"code": "unavailable", "retryable": True, "hint": "start it"}
    assert report.results[2].summary == "waits for a"
    bench.stage.answers.clear()
    assert said(bench.run().apply(steps)) == [
        ("a", "done"), ("b", "done"), ("c", "done"), ("d", "kept"), ("e", "done"), ("f", "kept"),
    ]  # fmt: skip


@pytest.mark.parametrize("outcome", [Outcome.failed("no"), Outcome.refused("no"), Outcome("pending", "waits")])
def test_what_is_not_good_is_asked_again(bench: Any, step: Make, outcome: Outcome) -> None:
    bench.stage.answers["perform", "a"] = lambda: outcome
    report = bench.run().apply([step("a"), step("b", "a")])
    assert said(report) == [("a", outcome.status), ("b", "waiting")]
    assert bool(report.failed) == (outcome.status != "pending")
    assert bool(report.pending) == (outcome.status == "pending")
    bench.stage.answers.clear()
    assert said(bench.run().apply([step("a"), step("b", "a")])) == [("a", "done"), ("b", "done")]


def test_only_chosen_steps_are_touched(bench: Any, step: Make) -> None:
    steps = [step("a"), step("b", "a"), step("c")]
    assert said(bench.run().apply(steps, lambda item: item.id == "c")) == [("c", "done")]
    assert said(bench.run().apply(steps, lambda item: item.id == "b")) == [("b", "waiting")]
    assert bench.stage.verbs("perform") == ["c"]
    assert said(bench.run().apply(steps, lambda item: item.id == "a")) == [("a", "done")]
    assert said(bench.run().apply(steps, lambda item: item.id == "b")) == [("b", "done")]


def test_a_dry_run_changes_nothing(bench: Any, step: Make) -> None:
    steps = [step("a"), step("b", "a")]
    report = bench.run().apply(steps, dry_run=True)
    assert said(report) == [("a", "would-run"), ("b", "would-run")]
    assert bench.stage.asked == []
    assert bench.ledger.states() == {}
    assert list(bench.ledger.evidence()) == []
    bench.run().apply(steps)
    assert said(bench.run().undo(steps, dry_run=True)) == [("b", "would-run"), ("a", "would-run")]
    assert bench.stage.effects == {"a", "b"}


def test_a_step_planned_with_other_parameters_is_other_work(bench: Any, step: Make) -> None:
    bench.run().apply([step("a", params={"bucket": "x"})])
    assert said(bench.run().apply([step("a", params={"bucket": "x"})])) == [("a", "kept")]
    assert said(bench.run().apply([step("a", params={"bucket": "y"})])) == [("a", "unchanged")]


def test_again_performs_what_is_good_too(bench: Any, step: Make) -> None:
    steps = [step("a"), step("b", "a")]
    bench.run().apply(steps)
    assert said(bench.run().apply(steps, lambda item: item.id == "b", again=True)) == [("b", "unchanged")]
    assert said(bench.run().apply(steps, again=True)) == [("a", "unchanged"), ("b", "unchanged")]
    assert bench.states() == {"a": "good", "b": "good"}


# -- interruptions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), SystemExit(1), ZeroDivisionError("a bug of ours")])
def test_an_interruption_leaves_the_step_running_and_the_next_apply_goes_on(
    bench: Any, step: Make, interruption: BaseException
) -> None:
    steps = [step("a"), step("b", "a"), step("c", "b")]
    bench.stage.answers["perform", "b"] = raises(interruption)
    with pytest.raises(type(interruption)):
        bench.run().apply(steps)
    assert bench.states() == {"a": "good", "b": "running"}
    bench.stage.answers.clear()
    assert said(bench.run().apply(steps)) == [("a", "kept"), ("b", "done"), ("c", "done")]


PROGRAM = """
import os, signal, sys
from pathlib import Path
from crossload.estate.evidence import Outcome
from crossload.ledger.ledger import Ledger
from crossload.steps.run import Run
from crossload.steps.step import Step

folder, moment = Path(sys.argv[1]), sys.argv[2]

class Stage:
    NAME = "goals"

    def perform(self, step, world):
        path = folder / step.id
        if moment == f"before {step.id}":
            os.kill(os.getpid(), signal.SIGKILL)
        made = not path.exists()
        with path.open("a") as out:
            out.write("x" if made else "")
        if moment == f"after {step.id}":
            os.kill(os.getpid(), signal.SIGKILL)
        return Outcome.done("made") if made else Outcome.unchanged("there")

steps = [Step(n, "goals", "make", "dataset:x", n, after=a) for n, a in (("a", ()), ("b", ("a",)), ("c", ("b",)))]
report = Run({"goals": Stage()}, Ledger(folder / "ledger.db"), None).apply(steps)
print([item.status for item in report.results])
"""


@pytest.mark.parametrize(
    "moment, expected",
    [
        ("before b", "['kept', 'done', 'done']"),
        ("after b", "['kept', 'unchanged', 'done']"),
        ("after c", "['kept', 'kept', 'unchanged']"),
    ],
)
def test_a_run_killed_for_real_goes_on(tmp_path: Path, moment: str, expected: str) -> None:
    def run(when: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", PROGRAM, str(tmp_path), when]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))

    assert run(moment).returncode == -signal.SIGKILL
    ledger = Ledger(tmp_path / "ledger.db")
    assert ledger.check_chain() == ""
    assert [state.state for state in ledger.states().values()].count("running") == 1
    done = run("never")
    assert (done.returncode, done.stdout.strip()) == (0, expected), done.stderr
    assert [(tmp_path / name).read_text() for name in "abc"] == ["x", "x", "x"]
    assert ledger.check_chain() == ""
    ledger.close()


def test_a_ledger_that_cannot_be_written_stops_the_run(bench: Any, step: Make) -> None:
    """A step whose outcome cannot be written down must not be followed by others."""
    bench.stage.answers["perform", "a"] = raises(LedgerBroken("disk full"))
    with pytest.raises(LedgerBroken):
        bench.run().apply([step("a"), step("b")])
    assert bench.stage.verbs("perform") == ["a"]
    assert bench.states() == {"a": "running"}


def test_results_are_told_as_they_happen(bench: Any, step: Make) -> None:
    from crossload.steps.run import Run

    told: list[tuple[str, int]] = []
    run = Run(
        {"goals": bench.stage}, bench.ledger, bench.world, lambda r: told.append((r.step.id, len(bench.stage.asked)))
    )
    run.apply([step("a"), step("b")])
    assert told == [("a", 1), ("b", 2)]


# -- verify ----------------------------------------------------------------------------------------------------------


def test_verify_marks_what_is_wrong_and_apply_mends_it(bench: Any, step: Make) -> None:
    steps = [step("a"), step("b", "a"), step("never")]
    bench.run().apply(steps, lambda item: item.id != "never")
    bench.stage.effects.discard("a")
    report = bench.run().verify(steps)
    assert said(report) == [("a", "failed"), ("b", "done")]
    assert [item.step.id for item in report.failed] == ["a"]
    assert bench.states() == {"a": "broken", "b": "good"}
    assert said(bench.run().verify(steps)) == [("a", "failed"), ("b", "done")]  # it stays wrong until it is mended
    assert said(bench.run().apply(steps, lambda item: item.id != "never")) == [("a", "done"), ("b", "kept")]
    assert bench.states() == {"a": "good", "b": "good"}
    assert said(bench.run().verify(steps)) == [("a", "done"), ("b", "done")]


@pytest.mark.parametrize("error", [NotFound("gone"), DigestMismatch("other bytes")])
def test_an_error_that_is_a_finding_breaks_the_step(bench: Any, step: Make, error: Exception) -> None:
    bench.run().apply([step("a")])
    bench.stage.answers["verify", "a"] = raises(error)
    assert bench.run().verify([step("a")]).failed
    assert bench.states() == {"a": "broken"}


@pytest.mark.parametrize("error", [Unavailable("down"), Throttled("slow"), NotSignedIn("expired"), AccessDenied("no")])
def test_a_check_that_could_not_look_claims_nothing(bench: Any, step: Make, error: Exception) -> None:
    """It is reported and it fails the verb, but the step is not called broken: apply would do it all again."""
    bench.run().apply([step("a")])
    bench.stage.answers["verify", "a"] = raises(error)
    report = bench.run().verify([step("a")])
    assert said(report) == [("a", "failed")]
    assert report.failed[0].error is error
    assert bench.states() == {"a": "good"}
    assert [item.verb for item in bench.ledger.evidence()] == ["perform", "verify"]


# -- undo ------------------------------------------------------------------------------------------------------------


def test_undo_goes_backwards_and_once(bench: Any, step: Make) -> None:
    steps = [step("a"), step("b", "a"), step("c", "b"), step("d")]
    bench.run().apply(steps, lambda item: item.id != "d")
    assert said(bench.run().undo(steps)) == [("c", "done"), ("b", "done"), ("a", "done")]
    assert bench.stage.effects == set()
    assert bench.states() == {"a": "undone", "b": "undone", "c": "undone"}
    assert said(bench.run().undo(steps)) == []
    assert said(bench.run().apply(steps)) == [("a", "done"), ("b", "done"), ("c", "done"), ("d", "done")]


def test_undo_of_what_was_cut_short(bench: Any, step: Make) -> None:
    """A step that was running when we died may have half its effects: it is undone too."""
    steps = [step("a"), step("b", "a")]
    bench.stage.answers["perform", "b"] = raises(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        bench.run().apply(steps)
    assert said(bench.run().undo(steps)) == [("b", "done"), ("a", "done")]


def test_an_undo_that_fails_stops_there(bench: Any, step: Make) -> None:
    """What came before may still be needed by what could not be undone."""
    steps = [step("a"), step("b", "a"), step("c", "b")]
    bench.run().apply(steps)
    bench.stage.answers["undo", "b"] = raises(Unavailable("down"))
    assert said(bench.run().undo(steps)) == [("c", "done"), ("b", "failed")]
    assert bench.states() == {"a": "good", "b": "good", "c": "undone"}
    bench.stage.answers.clear()
    assert said(bench.run().undo(steps)) == [("b", "done"), ("a", "done")]


def test_an_undo_cut_short_is_gone_on_with(bench: Any, step: Make) -> None:
    steps = [step("a"), step("b", "a")]
    bench.run().apply(steps)
    bench.stage.answers["undo", "a"] = raises(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        bench.run().undo(steps)
    assert bench.states() == {"a": "good", "b": "undone"}
    bench.stage.answers.clear()
    assert said(bench.run().undo(steps)) == [("a", "done")]


def test_undo_of_a_measurement_keeps_what_it_found(bench: Any, step: Make) -> None:
    steps = [step("a")]
    bench.run().apply(steps)
    bench.stage.answers["undo", "a"] = lambda: Outcome.unchanged("nothing to undo")
    assert said(bench.run().undo(steps)) == [("a", "unchanged")]
    assert bench.states() == {"a": "good"}
