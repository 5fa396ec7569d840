"""The order of steps: dependencies first, otherwise as planned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from crossload.ports.errors import Invalid
from crossload.steps.step import Step


def in_order(steps: Sequence[Step]) -> list[Step]:
    """Topological, stable. Raises Invalid for an unknown dependency, a circle or an id used twice, naming the steps."""
    by_id: dict[str, Step] = {}
    for step in steps:
        if step.id in by_id:
            raise Invalid(f"two steps are called {step.id}: one of them would be lost")
        by_id[step.id] = step
    placed: dict[str, Step] = {}
    for step in steps:
        _place(step, by_id, placed)
    return list(placed.values())


def _place(root: Step, by_id: Mapping[str, Step], placed: dict[str, Step]) -> None:
    """Put `root` behind all it waits for. A stack of our own: a chain may be longer than Python's."""
    if root.id in placed:
        return
    open_steps = {root.id: iter(root.after)}  # ordered: the way from the root to where we are
    while open_steps:
        here = next(reversed(open_steps))
        name = next(open_steps[here], None)
        if name is None:
            del open_steps[here]
            placed[here] = by_id[here]
        elif name not in by_id:
            raise Invalid(f"step {here} waits for {name}, which is not in the plan")
        elif name in open_steps:
            way = list(open_steps)
            circle = " -> ".join([*way[way.index(name) :], name])
            raise Invalid(f"steps wait for each other in a circle: {circle}")
        elif name not in placed:
            open_steps[name] = iter(by_id[name].after)
