"""Step 1, goals: find contradictions before anything is planned on them, and wire rollback triggers to the cutover."""

from __future__ import annotations

from typing import Any

from crossload.engines.planner.forecast import estimate, link_from
from crossload.engines.planner.goals import contradictions, triggers
from crossload.engines.planner.placement import choose
from crossload.estate.evidence import Outcome
from crossload.estate.migration import Migration
from crossload.ports.world import World
from crossload.steps.step import Facts, Planned, Step

NAME = "goals"


def plan(migration: Migration, facts: Facts) -> Planned:
    """One step that writes down what success is and what sends traffic back; every contradiction as a diagnostic."""
    file = migration.file
    expected = estimate(
        facts.inventory, choose(migration, facts.inventory), link_from(facts.outcomes, file.data.workers)
    )
    diagnostics = contradictions(
        file.goals.metrics, file.goals.budget, file.metadata.deadline, facts.today, facts.inventory, expected
    )
    wired = _wired(migration)
    step = Step(
        step_id(migration), NAME, "wire", f"estate:{migration.name}",
        f"wire {len(wired['triggers'])} of {len(wired['metrics'])} metric(s) to rollback", wired,
        undo="the cutover forgets its triggers with the migration",
    )  # fmt: skip
    return Planned((step,), tuple(diagnostics))


def step_id(migration: Migration) -> str:
    """Where the cutover finds the triggers: `world.outcome(step_id)["triggers"]`."""
    return f"{NAME}/wire/estate:{migration.name}"


def perform(step: Step, world: World) -> Outcome:
    wired = dict(step.params)
    names = ", ".join(f"{item['measure']} at {item['at']:g} {item['unit']}" for item in wired["triggers"])
    words = f"{len(wired['metrics'])} metric(s); traffic goes back on {names or 'nothing: no metric has rollback_at'}"
    return Outcome.unchanged(words, **wired) if world.outcome(step.id) == wired else Outcome.done(words, **wired)


def verify(step: Step, world: World) -> Outcome:
    """The triggers the cutover reads are still those of the migration file."""
    held, now = world.outcome(step.id) or {}, _wired(world.migration)
    if held.get("triggers") != now["triggers"] or held.get("metrics") != now["metrics"]:
        return Outcome.failed("the goals in the migration file are not those that were wired", held=dict(held), now=now)
    return Outcome.done(f"{len(now['triggers'])} trigger(s) wired as the file says", **now)


def undo(step: Step, world: World) -> Outcome:
    return Outcome.unchanged("nothing outside was changed by goals")


def _wired(migration: Migration) -> dict[str, Any]:
    metrics = [metric.model_dump(mode="json") for metric in migration.file.goals.metrics]
    return {"triggers": [item.to_json() for item in triggers(migration.file.goals.metrics)], "metrics": metrics}
