"""Whether the bytes can be read on the way."""

from __future__ import annotations

from crossload.engines.checks.model import Comparison, Line, Pair
from crossload.engines.checks.ranking import ranked
from crossload.ports.policy import TRANSPORT

_RANK = {"plain-possible": 0, "tls-only": 1}
_HINT = "refuse requests without TLS at the target"


def _lines(pair: Pair) -> list[Line]:
    return [ranked("transport", "encryption on the way", pair, TRANSPORT, _RANK, _HINT)]


RULE = Comparison(id="transport", title="Encryption on the way", lines=_lines)
