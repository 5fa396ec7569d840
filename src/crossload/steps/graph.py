"""The order of steps: dependencies first, otherwise as planned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from crossload.ports.errors import Invalid
from crossload.steps.step import Step


def in_order(steps: Sequence[Step]) -> list[Step]:
    """Topological, stable. Raises Invalid for an unknown dependency or a circle, naming the steps."""
    by_id = {step.id: step for step in steps}
    placed: dict[str, Step] = {}
    visiting: list[str] = []

    def place(step: Step) -> None:
        if step.id in placed:
            return
        if step.id in visiting:
            circle = " -> ".join([*visiting[visiting.index(step.id) :], step.id])
            raise Invalid(f"steps wait for each other in a circle: {circle}")
        visiting.append(step.id)
        for name in step.after:
            if name not in by_id:
                raise Invalid(f"step {step.id} waits for {name}, which is not in the plan")
            place(by_id[name])
        visiting.pop()
        placed[step.id] = step

    for step in steps:
        place(step)
    return list(placed.values())


def dependents(steps: Iterable[Step], roots: Iterable[str]) -> set[str]:
    """Ids of all steps that wait, directly or not, for one of `roots`; the roots included."""
    found = set(roots)
    listed = list(steps)
    grew = True
    while grew:
        grew = False
        for step in listed:
            if step.id not in found and found & set(step.after):
                found.add(step.id)
                grew = True
    return found
