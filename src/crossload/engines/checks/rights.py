"""Comparing who may do what: the target must let nobody do more than the source did."""

from __future__ import annotations

from collections.abc import Iterable

from crossload.engines.checks.model import EQUAL, STRICTER, UNKNOWN, WEAKER, Access, Line, Pair
from crossload.ports.probe import NONE, OWN

_SILENT = Access(None, "not asked")


def rights(rule: str, pair: Pair, operations: Iterable[str]) -> list[Line]:
    """One line per identity and operation. Our own identity is left out: carrying the data is its work on both sides,
    and it differs on purpose (reads there, writes here). Nobody (`none`) is the public-access rule's line."""
    names = {identity for identity, _ in (*pair.source.access, *pair.target.access)} - {OWN, NONE}
    lines: list[Line] = []
    for identity in sorted(names):
        for operation in operations:
            source = pair.source.access.get((identity, operation), _SILENT)
            target = pair.target.access.get((identity, operation), _SILENT)
            verdict, hint = _verdict(identity, operation, source, target)
            how = f"source: {source.how}; target: {target.how}"
            lines.append(Line(rule, f"{identity} may {operation}", source.word, target.word, verdict, hint, how))
    return lines


def _verdict(identity: str, operation: str, source: Access, target: Access) -> tuple[str, str]:
    if target.allowed is False:
        hint = f"{identity} cannot {operation} any more: grant it if the workload needs it" if source.allowed else ""
        return (EQUAL if source.allowed is False else STRICTER), hint
    if target.allowed is None:
        return UNKNOWN, f"ask the target by hand whether {identity} may {operation} ({target.how})"
    if source.allowed is True:
        return EQUAL, ""
    if source.allowed is None:
        return UNKNOWN, f"the source did not tell whether {identity} may {operation} ({source.how})"
    return WEAKER, f"take `{operation}` away from {identity} at the target: the source does not allow it"
