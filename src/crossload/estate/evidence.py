"""Evidence: what a step did, said once, hashed, and kept under the asset's id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from crossload.estate.digest import digest_of_json


@dataclass(frozen=True, slots=True)
class Outcome:
    """What `perform`, `verify` or `undo` of a step came to.

    `status`: done | unchanged (repeat found nothing to do) | failed | refused (a check said no) | pending (waits for
    something outside). `data` is JSON-shaped and holds no secret."""

    status: str
    summary: str
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        return self.status in ("done", "unchanged")

    @classmethod
    def done(cls, summary: str, **data: Any) -> Outcome:
        return cls("done", summary, data)

    @classmethod
    def unchanged(cls, summary: str, **data: Any) -> Outcome:
        return cls("unchanged", summary, data)

    @classmethod
    def failed(cls, summary: str, **data: Any) -> Outcome:
        return cls("failed", summary, data)

    @classmethod
    def refused(cls, summary: str, **data: Any) -> Outcome:
        return cls("refused", summary, data)


@dataclass(frozen=True, slots=True)
class Evidence:
    """One record of the ledger's chain. `previous` is the hash of the record before it, so a removed or changed
    record breaks every later one. `at` is RFC 3339 UTC. `verb` is perform, verify, undo, commit or note."""

    sequence: int
    at: str
    stage: str
    step: str
    asset: str
    verb: str
    status: str
    summary: str
    data: Mapping[str, Any]
    previous: str

    @property
    def hash(self) -> str:
        return digest_of_json(self.to_json()).hex

    @property
    def id(self) -> str:
        """Short name for tables and talk: `E` + sequence + first 8 hex digits of the hash."""
        return f"E{self.sequence}-{self.hash[:8]}"

    def to_json(self) -> dict[str, Any]:
        return {
            "sequence": self.sequence, "at": self.at, "stage": self.stage, "step": self.step, "asset": self.asset,
            "verb": self.verb, "status": self.status, "summary": self.summary, "data": dict(self.data),
            "previous": self.previous,
        }  # fmt: skip
