"""The right claims and no signature at all (RFC 8725 section 2.1; ATT&CK T1606)."""

from __future__ import annotations

from crossload.engines.checks.model import Attack
from crossload.engines.checks.moves import at_every_door, plainly, together
from crossload.ports.probe import LIST, OWN, READ, UNSIGNED, WRITE

RULE = Attack(
    id="unsigned-token",
    title="A credential without a signature (alg none)",
    tags=("T1606",),
    needs=(OWN, UNSIGNED),
    tries=together(at_every_door(LIST, UNSIGNED), at_every_door(READ, UNSIGNED), at_every_door(WRITE, UNSIGNED)),
    controls=together(plainly(LIST), plainly(READ), plainly(WRITE)),
    hint="allow only the one signature algorithm that the issuer uses",
)
