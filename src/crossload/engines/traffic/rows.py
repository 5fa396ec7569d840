"""What is kept of each request: enough to compute every verdict again, and nothing anybody wrote or read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from crossload.engines.traffic.compare import Side
from crossload.estate.digest import canonical_json

SOURCE = "source"
TARGET = "target"


@dataclass(frozen=True, slots=True)
class MirrorRow:
    """One request sent to both arms. `again` is the second answer of the source where it was asked twice (the noise
    floor). The differences are None when a side has no answer to compare."""

    number: int
    request: str
    source: Side
    target: Side
    again: Side | None = None
    target_differs: tuple[str, ...] | None = None
    again_differs: tuple[str, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "request": self.request,
            "source": self.source.to_json(),
            "target": self.target.to_json(),
            "again": None if self.again is None else self.again.to_json(),
            "target_differs": None if self.target_differs is None else list(self.target_differs),
            "again_differs": None if self.again_differs is None else list(self.again_differs),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> MirrorRow:
        return cls(
            value["number"], value["request"], Side.from_json(value["source"]), Side.from_json(value["target"]),
            None if value["again"] is None else Side.from_json(value["again"]),
            None if value["target_differs"] is None else tuple(value["target_differs"]),
            None if value["again_differs"] is None else tuple(value["again_differs"]),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class CanaryRow:
    """One request of live traffic. `arm` is where it was routed, also when another arm had to answer (then it counts as
    a failure of `arm`); "" when nobody said where: missing telemetry. `target_share` is the weight in force."""

    number: int
    step: int
    target_share: float
    arm: str
    side: Side
    session: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "number": self.number, "step": self.step, "target_share": self.target_share, "arm": self.arm,
            "side": self.side.to_json(), "session": self.session,
        }  # fmt: skip

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> CanaryRow:
        made: dict[str, Any] = {**value, "side": Side.from_json(value["side"])}
        return cls(**made)


def rows_digest(rows: Iterable[MirrorRow | CanaryRow]) -> str:
    """`sha256:hex` over the rows in order: a record and its rows belong together or do not."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(canonical_json(row.to_json()) + b"\n")
    return f"sha256:{digest.hexdigest()}"


def quantile(values: Iterable[float], share: float) -> float | None:
    """Nearest-rank quantile; None of nothing."""
    ordered = sorted(values)
    if not ordered:
        return None
    rank = -(-share * len(ordered) // 1)  # ceiling
    return ordered[max(0, min(len(ordered), int(rank)) - 1)]


def summary(sides: Iterable[Side]) -> dict[str, Any]:
    """Counts, rates, latency and tokens of one arm. Rates are None without requests, tokens None when any answer did
    not report them: a sum with holes would look like a saving."""
    listed = list(sides)
    answered = [side for side in listed if side.ok]
    latencies = [side.latency_seconds for side in answered if side.latency_seconds is not None]
    firsts = [side.first_token_seconds for side in answered if side.first_token_seconds is not None]
    inputs = [side.input_tokens for side in answered]
    outputs = [side.output_tokens for side in answered]
    return {
        "requests": len(listed),
        "errors": sum(not side.ok for side in listed),
        "contract_breaks": sum(bool(side.broken) for side in answered),
        "error_rate": sum(side.bad for side in listed) / len(listed) if listed else None,
        "latency_p50_seconds": quantile(latencies, 0.5),
        "latency_p95_seconds": quantile(latencies, 0.95),
        "first_token_p50_seconds": quantile(firsts, 0.5),
        "first_token_p95_seconds": quantile(firsts, 0.95),
        "input_tokens": None if None in inputs or not inputs else sum(value or 0 for value in inputs),
        "output_tokens": None if None in outputs or not outputs else sum(value or 0 for value in outputs),
    }
