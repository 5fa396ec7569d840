"""A good credential, replayed by a service it was shown to (RFC 8725 section 2.7; ATT&CK T1550.001)."""

from __future__ import annotations

from crossload.engines.checks.model import Attack
from crossload.engines.checks.moves import at_every_door, plainly, together
from crossload.ports.probe import LIST, OWN, READ, WRONG_AUDIENCE

RULE = Attack(
    id="wrong-audience",
    title="A credential that was meant for another service",
    tags=("T1550.001", "T1199"),
    needs=(OWN, WRONG_AUDIENCE),
    tries=together(at_every_door(LIST, WRONG_AUDIENCE), at_every_door(READ, WRONG_AUDIENCE)),
    controls=together(plainly(LIST), plainly(READ)),
    hint="make the server check the audience: a token for one service must open no other",
)
