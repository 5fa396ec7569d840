"""The saved plan: a value, stable in its bytes, refused when the world it was made for has changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossload.estate.diagnostic import Diagnostic
from crossload.estate.digest import canonical_json, digest_of_json
from crossload.estate.whole import write_whole
from crossload.ports.errors import Invalid, Stale
from crossload.steps.step import Step

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """`migration` and `inventory` are digests of what the plan was computed from. `estimates` is JSON-shaped."""

    name: str
    migration: str
    inventory: str
    steps: tuple[Step, ...]
    diagnostics: tuple[Diagnostic, ...] = ()
    choices: Mapping[str, str] = field(default_factory=dict)
    estimates: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT, "name": self.name, "migration": self.migration, "inventory": self.inventory,
            "steps": [step.to_json() for step in self.steps], "choices": dict(self.choices),
            "diagnostics": [item.to_json() for item in self.diagnostics], "estimates": dict(self.estimates),
        }  # fmt: skip

    @property
    def digest(self) -> str:
        return digest_of_json(self.to_json()).hex

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, canonical_json({**self.to_json(), "digest": self.digest}) + b"\n")

    def check_fresh(self, migration: str, inventory: str) -> None:
        """Raises Stale when the migration file or the inventory changed since the plan was made."""
        changed = [
            what
            for what, planned, now in (
                ("the migration file", self.migration, migration), ("the inventory", self.inventory, inventory),
            )
            if planned != now
        ]  # fmt: skip
        if changed:
            raise Stale(
                f"the plan is stale: {' and '.join(changed)} changed since it was made", hint="run `crossload plan`"
            )


def load_plan(path: Path) -> Plan:
    """Raises Stale when there is none, Invalid when it is not ours or was edited by hand."""
    hint = "run `crossload plan` to write a new one"
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise Stale("there is no plan yet", hint="run `crossload plan` first") from error
    except (ValueError, RecursionError, OSError) as error:
        raise Invalid(f"{path} is not a plan: {error}", hint=hint) from error
    if not isinstance(value, dict):
        raise Invalid(f"{path} is not a plan", hint=hint)
    if value.get("format") != FORMAT:
        raise Invalid(f"{path} has format {value.get('format')}, this version reads {FORMAT}", hint=hint)
    try:
        plan = Plan(
            value["name"], value["migration"], value["inventory"],
            tuple(Step.from_json(item) for item in value["steps"]),
            tuple(Diagnostic.from_json(item) for item in value["diagnostics"]),
            value["choices"], value["estimates"],
        )  # fmt: skip
        digest = plan.digest
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Invalid(f"{path} is not a plan: {type(error).__name__} {error}", hint=hint) from error
    if value.get("digest") != digest:
        raise Invalid(f"{path} was changed since `crossload plan` wrote it: its digest does not fit", hint=hint)
    return plan
