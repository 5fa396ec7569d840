"""Whether an overwritten or deleted object can come back."""

from __future__ import annotations

from crossload.engines.checks.model import Comparison, Line, Pair
from crossload.engines.checks.ranking import ranked
from crossload.estate.asset import Kind
from crossload.ports.policy import VERSIONING

_RANK = {"off": 0, "on": 1}
_HINT = "turn versioning on at the target: without it an overwrite cannot be taken back"


def _lines(pair: Pair) -> list[Line]:
    if pair.asset.kind is Kind.INDEX:
        return []  # an index is built again from its source; its rows have no versions on either side
    return [ranked("versioning", "versioning", pair, VERSIONING, _RANK, _HINT)]


RULE = Comparison(id="versioning", title="Versioning", lines=_lines)
