"""Without any credential: an object of ours changed (ATT&CK T1565.001, Stored Data Manipulation; T1485)."""

from __future__ import annotations

from crossload.engines.checks.model import Attack
from crossload.engines.checks.moves import at_every_door, plainly, together
from crossload.ports.probe import DELETE, NONE, OWN, WRITE

RULE = Attack(
    id="anonymous-write",
    title="Anybody writes or deletes an object",
    tags=("T1565.001", "T1485"),
    needs=(OWN, NONE),
    tries=together(at_every_door(WRITE, NONE, "anonymous"), at_every_door(DELETE, NONE, "anonymous")),
    controls=together(plainly(WRITE), plainly(DELETE)),
    hint="remove every grant to everybody; check each address the server listens on",
)
