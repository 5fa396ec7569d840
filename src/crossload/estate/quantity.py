"""A number that carries its unit, its source and its age; unknown stays unknown and never becomes 0."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Quantity:
    """`value` is None when unknown. `low` and `high` bound it when it is an estimate (p10 and p90).

    `source` says where it came from (a command, a price list, a measurement); `as_of` is an ISO 8601 date or time.
    """

    value: float | None
    unit: str
    source: str
    as_of: str = "unknown"
    low: float | None = None
    high: float | None = None

    @property
    def known(self) -> bool:
        return self.value is not None

    def __str__(self) -> str:
        if self.value is None:
            return "unknown"
        text = f"{self.value:,.6g} {self.unit}"
        if self.low is not None and self.high is not None:
            text += f" ({self.low:,.4g}-{self.high:,.4g})"
        return text

    def to_json(self) -> dict[str, Any]:
        shown: Any = "unknown" if self.value is None else self.value
        out: dict[str, Any] = {"value": shown, "unit": self.unit, "source": self.source, "as_of": self.as_of}
        if self.low is not None:
            out["low"] = self.low
        if self.high is not None:
            out["high"] = self.high
        return out

    @classmethod
    def unknown(cls, unit: str, source: str) -> Quantity:
        return cls(None, unit, source)

    @classmethod
    def total(cls, parts: Iterable[Quantity], unit: str) -> Quantity:
        """Sum; unknown as soon as one part is unknown, because a partial sum reads like a full one. So is its age."""
        listed = list(parts)
        sources = ", ".join(sorted({part.source for part in listed})) or "nothing to add"
        if any(part.value is None for part in listed):
            return cls(None, unit, sources)
        ages = sorted({part.as_of for part in listed})
        oldest = ages[0] if ages and "unknown" not in ages else "unknown"
        return cls(sum(part.value or 0.0 for part in listed), unit, sources, oldest)
