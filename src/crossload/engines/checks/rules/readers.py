"""Who may list the names and read the bytes, identity by identity, by real requests on both sides."""

from __future__ import annotations

from crossload.engines.checks.model import Comparison, Line, Pair
from crossload.engines.checks.rights import rights
from crossload.ports.probe import LIST, READ


def _lines(pair: Pair) -> list[Line]:
    return rights("readers", pair, (LIST, READ))


RULE = Comparison(id="readers", title="Who may list and read", lines=_lines)
