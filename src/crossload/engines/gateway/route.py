"""Which arm answers: an immutable table behind one reference, so that a change is a pointer swap."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crossload.estate.whole import write_whole

SOURCE = "source"
TARGET = "target"
ARMS = (SOURCE, TARGET)


class RouteInvalid(ValueError):
    """These weights cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Table:
    """`weights_percent` maps arm -> share of traffic in percent and sums to 100; `epoch` counts changes, so that a
    log row can say under which table it was routed."""

    weights_percent: Mapping[str, float]
    epoch: int = 0

    @property
    def target_share(self) -> float:
        """The target's share as a fraction in [0, 1]."""
        return self.weights_percent.get(TARGET, 0) / 100

    def arm_for(self, point: float) -> str:
        """`point` in [0, 1). The target owns [0, share): raising its weight moves sessions one way only."""
        return TARGET if point < self.target_share else SOURCE


def checked_weights(weights: Any) -> dict[str, float]:
    """Raises RouteInvalid unless both arms have a share >= 0 and the shares sum to 100."""
    if not isinstance(weights, Mapping) or set(weights) != set(ARMS):
        raise RouteInvalid("weights must name both arms: source and target")
    for arm, share in weights.items():
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 100:
            raise RouteInvalid(f"the weight of {arm} must be a number from 0 to 100 (percent)")
    if abs(sum(weights.values()) - 100) > 1e-9:
        raise RouteInvalid(f"weights must sum to 100 percent, these sum to {sum(weights.values()):g}")
    return {arm: weights[arm] for arm in ARMS}


def session_point(salt: str, session: str) -> float:
    """Where a session stands in [0, 1): the same for the same salt, evenly spread over sessions."""
    digest = hashlib.blake2b(session.encode(), key=salt.encode()[:64], digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def random_point() -> float:
    """Requests without a session: an arm each, from the system's randomness (no client can steer it)."""
    return secrets.randbits(53) / 2**53


@dataclass(frozen=True, slots=True)
class State:
    """What survives a kill: the table, the salt that keeps sessions on their arm, and the port clients know."""

    table: Table
    salt: str
    port: int = 0


def read_state(path: Path, weights: Mapping[str, float]) -> State:
    """The state file, or a first state with these weights when there is none. Raises RouteInvalid on a broken one:
    guessing weights could send users to an arm nobody chose."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return State(Table(checked_weights(weights)), secrets.token_hex(16))
    try:
        value = json.loads(text)
        return State(Table(checked_weights(value["weights"]), int(value["epoch"])), value["salt"], int(value["port"]))
    except (ValueError, KeyError, TypeError) as error:
        raise RouteInvalid(
            f"{path} cannot be read ({error}); remove it to begin with the configured weights"
        ) from error


def write_state(path: Path, state: State) -> None:
    """Whole or not at all, and on disk before we return: a kill after an answer must not bring old weights back."""
    value = {
        "weights": dict(state.table.weights_percent),
        "epoch": state.table.epoch,
        "salt": state.salt,
        "port": state.port,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(value), durable=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def with_weights(state: State, weights: Mapping[str, float]) -> State:
    return replace(state, table=Table(checked_weights(weights), state.table.epoch + 1))
