"""The durable run: load a step, do it, write down what it came to. Killed anywhere, the next run goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from crossload.estate.evidence import Evidence, Outcome
from crossload.ledger.ledger import Ledger
from crossload.ports.errors import CrossloadError
from crossload.ports.world import World
from crossload.steps.graph import in_order
from crossload.steps.step import Stage, Step


@dataclass(slots=True)
class StepResult:
    """`evidence` is None for steps that were not touched (already good, waiting for a failed one, dry run). `blind`: a
    verify that could not look, which has found no difference."""

    step: Step
    status: str  # done | unchanged | failed | refused | pending | kept | waiting | open | would-run
    summary: str
    evidence: Evidence | None = None
    error: CrossloadError | None = None
    blind: bool = False


@dataclass(slots=True)
class RunReport:
    results: list[StepResult] = field(default_factory=list)

    @property
    def failed(self) -> list[StepResult]:
        return [item for item in self.results if item.status in ("failed", "refused")]

    @property
    def pending(self) -> list[StepResult]:
        return [item for item in self.results if item.status == "pending"]


# Kept out, or without the means: an SDK that is not installed here, a setting that is not set here.
_BLIND = ("not-signed-in", "access-denied", "unsupported", "invalid")

Told = Callable[[StepResult], None]
Chosen = Callable[[Step], bool]


class Run:
    """Runs verbs over the steps of a plan. `told` hears every result as it happens."""

    def __init__(self, stages: Mapping[str, Stage], ledger: Ledger, world: World, told: Told = lambda _: None) -> None:
        self._stages = stages
        self._ledger = ledger
        self._world = world
        self._told = told

    def apply(
        self, steps: Sequence[Step], chosen: Chosen = lambda _: True, *, dry_run: bool = False, again: bool = False
    ) -> RunReport:
        """Perform what is not good yet, in order; with `again` also what is. A failed step holds back only those that
        wait for it."""
        report = RunReport()
        states = self._ledger.states()
        blocked: dict[str, str] = {}
        for step in in_order(steps):
            state = states.get(step.id)
            good = state is not None and state.state == "good" and state.work in ("", step.digest)
            if good and not (again and chosen(step)):
                if chosen(step):
                    self._tell(report, StepResult(step, "kept", "already good"))
                continue
            if not chosen(step):
                blocked[step.id] = step.id
                continue
            missing = next((blocked[name] for name in step.after if name in blocked), "")
            if missing:
                blocked[step.id] = missing
                self._tell(report, StepResult(step, "waiting", f"waits for {missing}"))
            elif dry_run:
                self._tell(report, StepResult(step, "would-run", step.summary))
            else:
                self._ledger.begin(step.id, step.digest)
                result = self._do(step, "perform", self._stages[step.stage].perform)
                if result.status not in ("done", "unchanged"):
                    blocked[step.id] = step.id
                self._tell(report, result)
        return report

    def verify(self, steps: Sequence[Step], chosen: Chosen = lambda _: True) -> RunReport:
        """Re-check every step that was good (or found broken before), from the stores. A step found wrong becomes
        `broken`, so that the next apply mends it. A step whose last run did not end well is told as `open`: there is
        nothing to compare it with, and silence would read as approval."""
        report = RunReport()
        states = self._ledger.states()
        for step in in_order(steps):
            state = states.get(step.id)
            if not chosen(step) or state is None or state.state == "undone":
                continue
            if state.state not in ("good", "broken"):
                self._tell(report, StepResult(step, "open", f"not verified: its last run is {state.state}"))
                continue
            self._tell(report, self._do(step, "verify", self._stages[step.stage].verify))
        return report

    def undo(self, steps: Sequence[Step], chosen: Chosen = lambda _: True, *, dry_run: bool = False) -> RunReport:
        """Undo what was begun, last first."""
        report = RunReport()
        states = self._ledger.states()
        for step in reversed(in_order(steps)):
            state = states.get(step.id)
            if not chosen(step) or state is None or state.state == "undone":
                continue
            if dry_run:
                self._tell(report, StepResult(step, "would-run", step.undo or "nothing to undo"))
                continue
            result = self._do(step, "undo", self._stages[step.stage].undo)
            self._tell(report, result)
            if result.status not in ("done", "unchanged"):
                break  # what came before this step may still be needed by it
        return report

    def _do(self, step: Step, verb: str, call: Callable[[Step, World], Outcome]) -> StepResult:
        error: CrossloadError | None = None
        try:
            outcome = call(step, self._world)
        except CrossloadError as caught:
            if caught.code == "ledger":
                raise  # we could not write the failure down either
            error = caught
            data = {"code": caught.code, "retryable": caught.retryable, "hint": caught.hint}
            outcome = Outcome("refused" if caught.code == "refused" else "failed", str(caught), data)
        # A store that is down, or that does not let us in, was not found wrong: what was good stays good.
        blind = verb == "verify" and error is not None and (error.retryable or error.code in _BLIND)
        evidence = self._ledger.record(step.stage, step.id, step.asset, verb, outcome, settles=not blind)
        return StepResult(step, outcome.status, outcome.summary, evidence, error, blind)

    def _tell(self, report: RunReport, result: StepResult) -> None:
        report.results.append(result)
        self._told(result)
