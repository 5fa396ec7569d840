"""Two sides, the same conversations: are the tool calls the same?

Only names and arguments are compared, in order. Texts differ between runtimes without meaning anything.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crossload.engines.agents.decide import Call


@dataclass(frozen=True, slots=True)
class Difference:
    """The first difference of one case. `kind` is missing (the target made fewer calls) | extra | tool | arguments |
    absent (the case was not run on one side). `position` counts from 0."""

    case: str
    kind: str
    position: int
    source: str
    target: str

    def to_json(self) -> dict[str, Any]:
        return {
            "case": self.case, "kind": self.kind, "position": self.position, "source": self.source,
            "target": self.target,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Comparison:
    """`cases` were compared, `same` of them without any difference, `silent` without a call on either side: those
    prove nothing about calls, so a report names them."""

    cases: int
    same: int
    silent: int
    calls_source: int
    calls_target: int
    differences: tuple[Difference, ...]

    @property
    def equal(self) -> bool:
        """Every case the same, and at least one call in all: nothing compared is no proof."""
        return self.cases > 0 and self.same == self.cases and self.calls_source > 0

    @property
    def rate(self) -> float | None:
        """Share of cases that are the same; None when none was run."""
        return self.same / self.cases if self.cases else None

    @property
    def rate_low(self) -> float | None:
        """Lower end of the 95 % interval of the rate (Wilson 1927): 8 of 8 promises no more than 0.68."""
        if not self.cases:
            return None
        z, n, p = 1.959964, self.cases, self.same / self.cases
        middle = p + z * z / (2 * n)
        spread = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, (middle - spread) / (1 + z * z / n))

    def summary(self) -> str:
        """One line for tables and evidence."""
        if not self.cases:
            return "no conversation was run"
        calls = f"{self.calls_source} vs {self.calls_target} calls"
        text = f"{self.same} of {self.cases} conversations with the same tool calls ({calls})"
        if self.differences:
            worst = self.differences[0]
            text += (
                f"; first difference in {worst.case}: {worst.source or 'no call'} became {worst.target or 'no call'}"
            )
        return text

    def to_json(self) -> dict[str, Any]:
        return {
            "cases": self.cases, "same": self.same, "silent": self.silent, "rate": self.rate, "rate_low": self.rate_low,
            "calls_source": self.calls_source, "calls_target": self.calls_target, "equal": self.equal,
            "differences": [item.to_json() for item in self.differences],
        }  # fmt: skip


def compare(source: Mapping[str, Sequence[Call]], target: Mapping[str, Sequence[Call]]) -> Comparison:
    """Case id -> calls in order, on both sides. A case that only one side has is a difference."""
    cases = sorted({*source, *target})
    differences = tuple(item for case in cases if (item := _difference(case, source.get(case), target.get(case))))
    silent = sum(1 for case in cases if not source.get(case) and not target.get(case))
    return Comparison(
        len(cases), len(cases) - len(differences), silent, _count(source.values()), _count(target.values()), differences
    )


def _count(calls: Iterable[Sequence[Call]]) -> int:
    return sum(len(listed) for listed in calls)


def _difference(case: str, source: Sequence[Call] | None, target: Sequence[Call] | None) -> Difference | None:
    if source is None or target is None:
        return Difference(
            case, "absent", 0, "not run" if source is None else "run", "not run" if target is None else "run"
        )
    for position in range(max(len(source), len(target))):
        left = source[position] if position < len(source) else None
        right = target[position] if position < len(target) else None
        if left is None or right is None:
            kind = "extra" if left is None else "missing"
        elif left.tool != right.tool:
            kind = "tool"
        elif left.canonical != right.canonical:
            kind = "arguments"
        else:
            continue
        return Difference(case, kind, position, left.canonical if left else "", right.canonical if right else "")
    return None
