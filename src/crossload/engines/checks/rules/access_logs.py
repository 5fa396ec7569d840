"""Whether it is written down who touched what."""

from __future__ import annotations

from crossload.engines.checks.model import Comparison, Line, Pair
from crossload.engines.checks.ranking import ranked
from crossload.ports.policy import ACCESS_LOGS

_RANK = {"off": 0, "on": 1}
_HINT = "log access to the target bucket: the landing files hold a sink"


def _lines(pair: Pair) -> list[Line]:
    return [ranked("access-logs", "access logs", pair, ACCESS_LOGS, _RANK, _HINT)]


RULE = Comparison(id="access-logs", title="Access logs", lines=_lines)
