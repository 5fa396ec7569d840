"""Settings of a judgement, and the record of one: a JSON value from which, with its rows, everything follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

ACCEPT = "accept"
ROLL_BACK = "roll-back"
HOLD = "hold"
ENGINE = "traffic/1"
METRICS = ("errors", "latency", "agreement")


@dataclass(frozen=True, slots=True)
class Margins:
    """How much worse the target may be and still be accepted. `errors` and `agreement` are shares of requests (0.02 =
    2 in 100 more); `latency` is a ratio (0.25 = a quarter slower). None: measured and shown, but does not decide."""

    errors: float | None = 0.02
    latency: float | None = 0.25
    agreement: float | None = 0.02


@dataclass(frozen=True, slots=True)
class Limit:
    """A hard limit on the target itself, never averaged away. `measure` is latency_p95 | error_rate | answer_agreement;
    beyond `at` traffic goes back. It speaks once `requests_min` target requests are in."""

    measure: str
    direction: str  # lower | higher is better
    at: float
    requests_min: int = 20

    def broken_by(self, value: float | None, requests: int) -> bool:
        if value is None or requests < self.requests_min:
            return False
        return value > self.at if self.direction == "lower" else value < self.at


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """`alpha`: chance of rolling back a target that is within all margins, over all metrics and all looks together.
    `alpha_accept`: chance of accepting one that is worse than a margin. `noise_share`: share of mirrored requests whose
    source is asked twice. `missing_max`: share of requests without telemetry beyond which nothing is accepted."""

    alpha: float = 0.01
    alpha_accept: float = 0.05
    margins: Margins = field(default_factory=Margins)
    limits: tuple[Limit, ...] = ()
    noise_share: float = 0.25
    missing_max: float = 0.02
    sample_ratio_alpha: float = 0.001
    latency_warmup: int = 10

    def to_json(self) -> dict[str, Any]:
        value = asdict(self)
        value["limits"] = list(value["limits"])
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> JudgeSettings:
        known = {item.name for item in fields(cls)}
        made: dict[str, Any] = {name: item for name, item in value.items() if name in known}
        made["margins"] = Margins(**value["margins"])
        made["limits"] = tuple(Limit(**item) for item in value["limits"])
        return cls(**made)


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """`kind` is mirror | canary; `verdict` is accept | roll-back | hold; `reasons` are sentences for people. `metrics`
    holds per metric its margin, n, mean difference and both wealths; `rows_sha256` names the rows it came from."""

    kind: str
    verdict: str
    reasons: tuple[str, ...]
    settings: Mapping[str, Any]
    metrics: tuple[Mapping[str, Any], ...]
    source: Mapping[str, Any]
    target: Mapping[str, Any]
    noise_floor: Mapping[str, Any]
    rows: int
    rows_sha256: str
    decided_at_row: int | None
    worst: tuple[int, ...] = ()
    context: Mapping[str, Any] = field(default_factory=dict)
    engine: str = ENGINE

    def to_json(self) -> dict[str, Any]:
        return {
            "engine": self.engine, "kind": self.kind, "verdict": self.verdict, "reasons": list(self.reasons),
            "settings": dict(self.settings), "metrics": [dict(item) for item in self.metrics],
            "source": dict(self.source), "target": dict(self.target), "noise_floor": dict(self.noise_floor),
            "rows": self.rows, "rows_sha256": self.rows_sha256, "decided_at_row": self.decided_at_row,
            "worst": list(self.worst), "context": dict(self.context),
        }  # fmt: skip

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> DecisionRecord:
        made: dict[str, Any] = dict(value)
        made.update({name: tuple(value[name]) for name in ("reasons", "metrics", "worst")})
        return cls(**made)
