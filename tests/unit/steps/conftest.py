"""A world of promises: stages that write down what was asked of them, and fail when they are told to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from crossload.estate.evidence import Outcome
from crossload.ledger.ledger import Ledger
from crossload.steps.run import Run
from crossload.steps.step import Step


@dataclass
class FakeStage:
    """`effects` is the outside world: what has been done and not undone. `answers` overrides one verb of one step."""

    NAME: str = "goals"
    effects: set[str] = field(default_factory=set)
    asked: list[tuple[str, str]] = field(default_factory=list)
    answers: dict[tuple[str, str], Callable[[], Outcome]] = field(default_factory=dict)

    def _answer(self, verb: str, step: Step) -> Outcome | None:
        self.asked.append((verb, step.id))
        answer = self.answers.get((verb, step.id))
        return answer() if answer else None

    def perform(self, step: Step, world: Any) -> Outcome:
        given = self._answer("perform", step)
        if given is not None:
            return given
        if step.id in self.effects:
            return Outcome.unchanged("there already", made=step.id)
        self.effects.add(step.id)
        return Outcome.done("made", made=step.id)

    def verify(self, step: Step, world: Any) -> Outcome:
        given = self._answer("verify", step)
        if given is not None:
            return given
        return Outcome.done("is there") if step.id in self.effects else Outcome.failed("is gone")

    def undo(self, step: Step, world: Any) -> Outcome:
        given = self._answer("undo", step)
        if given is not None:
            return given
        self.effects.discard(step.id)
        return Outcome.done("removed")

    def verbs(self, verb: str) -> list[str]:
        return [step for asked, step in self.asked if asked == verb]


@dataclass
class Bench:
    stage: FakeStage
    ledger: Ledger
    world: Any

    def run(self) -> Run:
        """As a new process would: nothing is remembered but the ledger."""
        return Run({"goals": self.stage}, self.ledger, self.world)  # type: ignore[dict-item]

    def states(self) -> Mapping[str, str]:
        return {name: state.state for name, state in self.ledger.states().items()}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    ledger = Ledger(tmp_path / "ledger.db")
    yield Bench(FakeStage(), ledger, object())
    assert ledger.check_chain() == ""
    ledger.close()


@pytest.fixture
def step() -> Callable[..., Step]:
    def make(name: str, *after: str, **more: Any) -> Step:
        return Step(name, "goals", "make", f"dataset:{name}", f"make {name}", after=after, **more)

    return make
