"""The identity that only looks changes what it looks at (ATT&CK T1078.004, T1565.001, T1485)."""

from __future__ import annotations

from crossload.engines.checks.model import Attack
from crossload.engines.checks.moves import at_every_door, plainly, together
from crossload.ports.probe import DELETE, LIST, OWN, WRITE

RULE = Attack(
    id="auditor-writes",
    title="The auditor writes or deletes",
    tags=("T1078.004", "T1565.001", "T1485"),
    needs=(OWN, "audit"),
    tries=together(at_every_door(WRITE, "audit"), at_every_door(DELETE, "audit")),
    controls=together(plainly(WRITE), plainly(LIST, "audit")),
    hint="an identity that only looks needs no right to write or delete",
)
