"""Who may write and delete, identity by identity, by real requests on both sides."""

from __future__ import annotations

from crossload.engines.checks.model import Comparison, Line, Pair
from crossload.engines.checks.rights import rights
from crossload.ports.probe import DELETE, WRITE


def _lines(pair: Pair) -> list[Line]:
    return rights("writers", pair, (WRITE, DELETE))


RULE = Comparison(id="writers", title="Who may write and delete", lines=_lines)
