"""A credential that was good once (ATT&CK T1550.001, Application Access Token)."""

from __future__ import annotations

from crossload.engines.checks.model import Attack
from crossload.engines.checks.moves import at_every_door, plainly, together
from crossload.ports.probe import EXPIRED, LIST, OWN, READ, WRITE

RULE = Attack(
    id="expired-token",
    title="A credential that has run out is used again",
    tags=("T1550.001",),
    needs=(OWN, EXPIRED),
    tries=together(at_every_door(LIST, EXPIRED), at_every_door(READ, EXPIRED), at_every_door(WRITE, EXPIRED)),
    controls=together(plainly(LIST), plainly(READ), plainly(WRITE)),
    hint="make the server check the end of every credential, with at most a minute of clock skew",
)
