"""Compare one asset on both sides, by every comparison rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from crossload.engines.checks.access import who_may
from crossload.engines.checks.model import EQUAL, STRICTER, UNKNOWN, WEAKER, Comparison, Line, Pair, Side
from crossload.estate.place import Place
from crossload.ports.policy import Policy, Posture
from crossload.ports.probe import Probe


def look(
    place: Place, policy: Policy | None, probe: Probe | None, bucket: str, key: str, identities: Iterable[str]
) -> Side:
    """Everything one side tells about the bucket. A port that is not offered leaves its facts unknown."""
    posture = policy.posture(bucket) if policy else Posture(place.id, bucket)
    access = who_may(probe, bucket, key, identities) if probe else {}
    return Side(place, posture, access)


def compare(pair: Pair, rules: Iterable[Comparison]) -> list[Line]:
    return [line for rule in rules for line in rule.lines(pair)]


def tally(lines: Iterable[Line]) -> Mapping[str, int]:
    counts: dict[str, int] = dict.fromkeys((EQUAL, STRICTER, WEAKER, UNKNOWN), 0)
    for line in lines:
        counts[line.verdict] += 1
    return counts


def table(lines: Iterable[Line]) -> list[dict[str, Any]]:
    """JSON for the evidence: the worst first, then in the rules' order."""
    order = {WEAKER: 0, UNKNOWN: 1, STRICTER: 2, EQUAL: 3}
    return [line.to_json() for line in sorted(lines, key=lambda line: order[line.verdict])]
