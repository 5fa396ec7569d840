"""Our own claims under our own key id, signed by somebody else (ATT&CK T1606, Forge Web Credentials)."""

from __future__ import annotations

from crossload.engines.checks.model import Attack
from crossload.engines.checks.moves import at_every_door, plainly, together
from crossload.ports.probe import FORGED, LIST, OWN, READ, WRITE

RULE = Attack(
    id="forged-token",
    title="A credential signed with a foreign key",
    tags=("T1606", "T1550.001"),
    needs=(OWN, FORGED),
    tries=together(at_every_door(LIST, FORGED), at_every_door(READ, FORGED), at_every_door(WRITE, FORGED)),
    controls=together(plainly(LIST), plainly(READ), plainly(WRITE)),
    hint="make the server check signatures against the keys of the one issuer it trusts",
)
