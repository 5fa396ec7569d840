"""How the bytes are encrypted where they lie, and whose key it is."""

from __future__ import annotations

from crossload.engines.checks.model import Comparison, Line, Pair
from crossload.engines.checks.ranking import ranked
from crossload.ports.policy import ENCRYPTION

_RANK = {"none": 0, "provider-key": 1, "customer-key": 2}
_HINT = "set a key of your own on the target bucket: the landing files hold one"


def _lines(pair: Pair) -> list[Line]:
    return [ranked("encryption", "encryption at rest", pair, ENCRYPTION, _RANK, _HINT)]


RULE = Comparison(id="encryption", title="Encryption at rest", lines=_lines)
