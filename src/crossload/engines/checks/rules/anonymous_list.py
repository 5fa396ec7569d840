"""Without any credential: the names of all objects (ATT&CK T1619, Cloud Storage Object Discovery)."""

from __future__ import annotations

from crossload.engines.checks.model import Attack
from crossload.engines.checks.moves import at_every_door, plainly
from crossload.ports.probe import LIST, NONE, OWN

RULE = Attack(
    id="anonymous-list",
    title="Anybody lists the bucket",
    tags=("T1619",),
    needs=(OWN, NONE),
    tries=at_every_door(LIST, NONE),
    controls=plainly(LIST),
    hint="remove every grant to everybody, and turn public access prevention on",
)
