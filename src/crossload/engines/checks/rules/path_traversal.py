"""Around the check by the path: `..`, `%2e`, doubled slashes, other spellings (ATT&CK T1190; CWE-22)."""

from __future__ import annotations

from crossload.engines.checks.model import Attack, AttackTools, Scene, Try
from crossload.engines.checks.moves import plainly
from crossload.ports.probe import NONE, OWN, READ, WRITE

_STRANGER = "stranger"


def _tries(scene: Scene, tools: AttackTools) -> list[Try]:
    """Detours with no credential and with one that has no rights, if there is one; then a write whose key climbs out of
    its bucket.

    Our own credential takes no detour: it may read both buckets, so that getting there proves nothing."""
    other, key = (scene.other, scene.other_key) if scene.other else (scene.bucket, scene.key)
    out = [
        Try(READ, credential, scene.bucket, key, detour.path, aim=detour.aim)
        for credential in (NONE, _STRANGER)
        for detour in tools.detours(scene.bucket, other, key)
    ]
    if scene.other:
        escaped = tools.fresh_key("escape")
        climb = f"../{scene.other}/{escaped}"
        aim = f"an object in bucket {scene.other}"
        out.append(Try(WRITE, OWN, scene.bucket, climb, aim=aim, lands=(scene.other, escaped)))
        deeper = f"x/../../{scene.other}/{escaped}"
        out.append(Try(WRITE, OWN, scene.bucket, deeper, aim=aim, lands=(scene.other, escaped)))
    return out


RULE = Attack(
    id="path-traversal",
    title="A path that climbs into another bucket or around the check",
    tags=("T1190", "CWE-22"),
    needs=(OWN, NONE),
    tries=_tries,
    controls=plainly(READ),
    hint="normalise the path before the rights are checked, and refuse `..` in keys where the store is a file system",
)
