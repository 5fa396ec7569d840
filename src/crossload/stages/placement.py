"""Step 3, placement: which allowed place each asset goes to, with the funnel, the runner-up and the reasons."""

from __future__ import annotations

from typing import Any

from crossload.engines.planner.offers import countries
from crossload.engines.planner.placement import Choice, choose
from crossload.estate.diagnostic import Diagnostic
from crossload.estate.evidence import Outcome
from crossload.estate.migration import Migration
from crossload.ports.world import World
from crossload.steps.step import Facts, Planned, Step

NAME = "placement"


def plan(migration: Migration, facts: Facts) -> Planned:
    """One step per asset, which records why it goes where it goes."""
    problems = list(_rule_problems(migration))
    if problems:
        return Planned((), tuple(problems))
    choices = choose(migration, facts.inventory)
    steps = [
        Step(
            f"{NAME}/choose/{name}", NAME, "choose", name, _title(choice), {"choice": choice.to_json()},
            (f"inventory/record/{name}",), undo="nothing to undo: a choice moves nothing",
        )
        for name, choice in choices.items()
    ]  # fmt: skip
    for choice in choices.values():
        problems += _choice_problems(choice)
    return Planned(tuple(steps), tuple(problems))


def perform(step: Step, world: World) -> Outcome:
    """Write the choice down, freshly made, so that evidence never differs from what the rules give now."""
    now = choose(world.migration, world.inventory).get(step.asset)
    if now is None or now.to_json() != step.params["choice"]:
        return Outcome.failed("the choice is not the planned one any more; plan again")
    if now.blocked:
        return Outcome.refused(_title(now), **now.to_json())
    data = now.to_json()
    return (
        Outcome.unchanged(_title(now), **data) if world.outcome(step.id) == data else Outcome.done(_title(now), **data)
    )


def verify(step: Step, world: World) -> Outcome:
    """Choose again from today's file, inventory and prices: the place must be the same."""
    held = (world.outcome(step.id) or {}).get("place")
    now = choose(world.migration, world.inventory).get(step.asset)
    if now is None:
        return Outcome.failed(f"{step.asset} is not in the inventory any more")
    if now.place != held:
        return Outcome.failed(f"{step.asset} would go to {now.place or 'no place'} today, not {held}", **now.to_json())
    return Outcome.done(_title(now), **now.to_json())


def undo(step: Step, world: World) -> Outcome:
    return Outcome.unchanged("nothing to undo: a choice moves nothing")


def _title(choice: Choice) -> str:
    if not choice.place:
        return f"{choice.asset}: {'; '.join(choice.reasons)}"
    standby = f", standby {choice.standby}" if choice.standby else ""
    return f"{choice.asset} goes to {choice.place}{standby}: {choice.reasons[0]}"


def _rule_problems(migration: Migration) -> list[Diagnostic]:
    found: list[Diagnostic] = []
    for sensitivity, names in migration.file.targets.residency.items():
        for name in names:
            try:
                countries([name])
            except KeyError:
                found.append(
                    Diagnostic.error(
                        "XL403", f"targets.residency.{sensitivity}: `{name}` is no country and no known set",
                        subject=str(migration.path.name), hint="ISO 3166 codes (DE, FR, US) or EU, EEA, US",
                    )
                )  # fmt: skip
    return found


def _choice_problems(choice: Choice) -> list[Diagnostic]:
    if choice.blocked:
        lost: dict[str, Any] = {place: why for sieve in choice.funnel for place, why in sieve.lost.items()}
        detail = "; ".join(f"{place}: {why}" for place, why in sorted(lost.items()))
        hint = "allow another place, loosen targets.residency, or set `move: no` for it in overlays"
        return [
            Diagnostic.error(
                "XL401", f"{choice.asset}: {choice.reasons[0]}", detail=detail, subject=choice.asset, hint=hint
            )
        ]
    found: list[Diagnostic] = []
    if choice.costs is not None and choice.costs.unknown:
        missing = ", ".join(f"{name} ({choice.costs.components[name].source})" for name in choice.costs.unknown)
        found.append(
            Diagnostic.warning(
                "XL402", f"{choice.asset}: the price at {choice.place} is unknown", detail=missing,
                subject=choice.asset, hint="the choice does not compare costs for it; totals will read unknown",
            )
        )  # fmt: skip
    found += [
        Diagnostic.note("XL404", f"{choice.asset} at {choice.place}: {text}", subject=choice.asset)
        for text in choice.losses
    ]
    return found
