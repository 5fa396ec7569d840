"""Without any credential: the bytes of an object (ATT&CK T1530, Data from Cloud Storage)."""

from __future__ import annotations

from crossload.engines.checks.model import Attack
from crossload.engines.checks.moves import at_every_door, plainly
from crossload.ports.probe import NONE, OWN, READ

RULE = Attack(
    id="anonymous-read",
    title="Anybody reads an object",
    tags=("T1530",),
    needs=(OWN, NONE),
    tries=at_every_door(READ, NONE),
    controls=plainly(READ),
    hint="remove every grant to everybody, and turn public access prevention on",
)
