"""A step is one promise: it can be performed, verified and undone, each any number of times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from crossload.estate.asset import Inventory
from crossload.estate.diagnostic import Diagnostic
from crossload.estate.digest import digest_of_json
from crossload.estate.evidence import Outcome
from crossload.estate.migration import Migration
from crossload.ports.world import World


@dataclass(frozen=True, slots=True)
class Step:
    """`id` is `stage/action/asset-id`, stable between plans so that a second apply recognises finished work.

    `params` is JSON-shaped, fixed at plan time, without secrets. `after` names step ids that must be good first.
    `risk` is low | medium | high; `wave` counts from 1."""

    id: str
    stage: str
    action: str
    asset: str
    summary: str
    params: Mapping[str, Any] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    undo: str = ""
    risk: str = "low"
    wave: int = 1

    @property
    def digest(self) -> str:
        """Of what the step does: a step planned with other parameters is other work, whatever its id."""
        return digest_of_json([self.action, dict(self.params)]).hex

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id, "stage": self.stage, "action": self.action, "asset": self.asset, "summary": self.summary,
            "params": dict(self.params), "after": list(self.after), "undo": self.undo, "risk": self.risk,
            "wave": self.wave,
        }  # fmt: skip

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Step:
        return cls(
            value["id"], value["stage"], value["action"], value["asset"], value["summary"], value["params"],
            tuple(value["after"]), value["undo"], value["risk"], value["wave"],
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Facts:
    """What `plan` may look at besides the migration file: pure data, gathered before.

    `inventory` is the locked inventory; `choices` maps asset id -> target place id (from placement), and is empty
    while placement itself plans; `outcomes` maps step id -> data of its last good perform; `today` is an ISO date."""

    inventory: Inventory
    choices: Mapping[str, str] = field(default_factory=dict)
    outcomes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    today: str = "unknown"


@dataclass(frozen=True, slots=True)
class Planned:
    steps: tuple[Step, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()


class Stage(Protocol):
    """A stage module: four verbs, always in this order. `plan` does no I/O."""

    NAME: str

    def plan(self, migration: Migration, facts: Facts) -> Planned: ...
    def perform(self, step: Step, world: World) -> Outcome: ...
    def verify(self, step: Step, world: World) -> Outcome: ...
    def undo(self, step: Step, world: World) -> Outcome: ...
