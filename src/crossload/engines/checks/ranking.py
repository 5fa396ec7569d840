"""Comparing two facts that have an order: which side protects more."""

from __future__ import annotations

from collections.abc import Mapping

from crossload.engines.checks.model import EQUAL, STRICTER, UNKNOWN, WEAKER, Line, Pair


def ranked(rule: str, subject: str, pair: Pair, name: str, rank: Mapping[str, int], hint: str) -> Line:
    """`rank` orders the fact's values, the weakest first. What the target does not tell is unknown, never equal; an
    unknown source is no excuse for a target at the lowest rank, and none is needed for one at the highest."""
    source, target = pair.source.posture.fact(name), pair.target.posture.fact(name)
    have, want = rank.get(str(target.value)), rank.get(str(source.value))
    how = f"source: {source.how}; target: {target.how}"
    if have is None:
        verdict, advice = UNKNOWN, f"the target does not tell ({target.how}); look it up by hand"
    elif want is None:
        top = have == max(rank.values())
        verdict, advice = (STRICTER, "") if top else (UNKNOWN, f"the source does not tell ({source.how})")
    elif have < want:
        verdict, advice = WEAKER, hint
    else:
        verdict, advice = (EQUAL, "") if have == want else (STRICTER, "")
    return Line(rule, subject, word(source.value), word(target.value), verdict, advice, how)


def word(value: object) -> str:
    return "unknown" if value is None else str(value)
