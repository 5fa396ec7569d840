"""The moves attacks are made of: the same operation at every door of the server, with one credential."""

from __future__ import annotations

from collections.abc import Callable

from crossload.engines.checks.model import AttackTools, Scene, Try
from crossload.ports.probe import DELETE, OWN, WRITE

Move = Callable[[Scene, AttackTools], list[Try]]


def at_every_door(operation: str, credential: str, label: str = "") -> Move:
    """One request per address under which the server answers the operation. Writes use a fresh key each; deletes are
    harmless, because what an attack deletes does not come back."""

    def move(scene: Scene, tools: AttackTools) -> list[Try]:
        out: list[Try] = []
        for index, _ in enumerate(tools.doors(operation, scene.bucket, scene.key)):
            key = _key(operation, scene, tools, label or credential)
            # A door's path holds the key, so it is asked for again with the key of this request.
            path = tools.doors(operation, scene.bucket, key)[index]
            out.append(Try(operation, credential, scene.bucket, key, path, harmless=operation == DELETE))
        return out

    return move


def plainly(operation: str, credential: str = OWN) -> Move:
    """The operation once, the usual way; with our own credential this is the control."""

    def move(scene: Scene, tools: AttackTools) -> list[Try]:
        key = _key(operation, scene, tools, "control")
        return [Try(operation, credential, scene.bucket, key, harmless=operation == DELETE)]

    return move


def together(*moves: Move) -> Move:
    def move(scene: Scene, tools: AttackTools) -> list[Try]:
        return [item for one in moves for item in one(scene, tools)]

    return move


def _key(operation: str, scene: Scene, tools: AttackTools, label: str) -> str:
    return tools.fresh_key(label) if operation in (WRITE, DELETE) else scene.key
