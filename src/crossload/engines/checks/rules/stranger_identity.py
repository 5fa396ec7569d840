"""Signed in, and nothing more (ATT&CK T1078.004, Valid Accounts: Cloud Accounts)."""

from __future__ import annotations

from crossload.engines.checks.model import Attack
from crossload.engines.checks.moves import at_every_door, plainly, together
from crossload.ports.probe import DELETE, LIST, OWN, READ, WRITE

RULE = Attack(
    id="stranger-identity",
    title="A valid identity without rights reads, lists and writes",
    tags=("T1078.004", "T1530"),
    needs=(OWN, "stranger"),
    tries=together(
        at_every_door(LIST, "stranger"),
        at_every_door(READ, "stranger"),
        at_every_door(WRITE, "stranger"),
        at_every_door(DELETE, "stranger"),
    ),
    controls=together(plainly(LIST), plainly(READ), plainly(WRITE)),
    hint="grant by name: signed in must not mean allowed",
)
