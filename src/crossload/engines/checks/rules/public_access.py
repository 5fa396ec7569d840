"""Whether anybody without a credential gets in: what the settings say, and what a real request says."""

from __future__ import annotations

from crossload.engines.checks.model import EQUAL, STRICTER, UNKNOWN, WEAKER, Comparison, Line, Pair, Side
from crossload.ports.policy import PUBLIC_ACCESS
from crossload.ports.probe import NONE, OPERATIONS

_HINT = "close the target to everybody before any traffic moves"


def _lines(pair: Pair) -> list[Line]:
    source, how_source = _public(pair.source)
    target, how_target = _public(pair.target)
    verdict = UNKNOWN
    if target == "open":
        # An open target is never as good as the source, not even as an open one: nobody would choose it twice.
        verdict = WEAKER
    elif target == "blocked":
        verdict = STRICTER if source == "open" else EQUAL
    hint = {WEAKER: _HINT, UNKNOWN: f"the target does not tell ({how_target})"}.get(verdict, "")
    how = f"source: {how_source}; target: {how_target}"
    return [Line("public-access", "public access", source, target, verdict, hint, how, blocks=verdict == WEAKER)]


def _public(side: Side) -> tuple[str, str]:
    """A request that got through beats every setting; one that was refused proves only its own operation, so all of
    them must be refused before the answer is `blocked`."""
    asked = {operation: side.access[NONE, operation] for operation in OPERATIONS if (NONE, operation) in side.access}
    through = [operation for operation, access in asked.items() if access.allowed]
    fact = side.posture.fact(PUBLIC_ACCESS)
    if through:
        return "open", f"anybody may {', '.join(through)}: {asked[through[0]].how}"
    if fact.value == "open":
        return "open", fact.how
    refused = [operation for operation, access in asked.items() if access.allowed is False]
    if len(refused) == len(OPERATIONS):
        return "blocked", f"{', '.join(refused)} without a credential refused ({asked[refused[0]].how})"
    if fact.value == "blocked":
        return "blocked", fact.how
    return "unknown", fact.how


RULE = Comparison(id="public-access", title="Public access", lines=_lines)
