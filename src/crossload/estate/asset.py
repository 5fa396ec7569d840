"""What is carried: assets of neutral kinds, and the edges between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """Neutral kinds. The value is also the prefix of an asset's id (`dataset:docs`)."""

    DATASET = "dataset"  # a bucket of objects; facts: bucket, object_count, size_bytes, versioning, encryption
    MODEL = "model"  # one model artifact in a bucket; facts: bucket, key, size_bytes, format
    INDEX = "index"  # a vector index; facts: table, dimension, rows, metric, index_type
    ENDPOINT = "endpoint"  # a served model; facts: model, wire
    AGENT = "agent"
    QUEUE = "queue"
    SECRET = "secret"  # noqa: S105 - a kind of asset, not a value
    ROLE = "role"
    TABLE = "table"
    KEY = "key"
    FUNCTION = "function"
    LOG = "log"
    APP = "app"  # code in a folder; facts: path, language
    ESTATE = "estate"  # the migration itself; carries the evidence of no single asset


@dataclass(frozen=True, slots=True)
class Asset:
    """`id` is `kind:name`, unique in one estate; `place` is a Place id; `native` is the provider's own identifier.

    `facts` is JSON-shaped; sizes are in bytes, None means unknown. `tags` come from the provider, `overlay` from
    the migration file (sensitivity, uptime, app, owner)."""

    id: str
    kind: Kind
    name: str
    place: str
    native: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    overlay: Mapping[str, str] = field(default_factory=dict)

    def fact(self, name: str, default: Any = None) -> Any:
        return self.facts.get(name, default)

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id, "kind": str(self.kind), "name": self.name, "place": self.place, "native": self.native,
            "facts": dict(self.facts), "tags": dict(self.tags), "overlay": dict(self.overlay),
        }  # fmt: skip

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Asset:
        return cls(
            value["id"], Kind(value["kind"]), value["name"], value["place"], value["native"],
            value.get("facts", {}), value.get("tags", {}), value.get("overlay", {}),
        )  # fmt: skip


@dataclass(frozen=True, slots=True, order=True)
class Edge:
    """`relation` is one of reads, writes, calls, serves, runs-as, encrypts, built-from, described-by."""

    source: str
    relation: str
    target: str
    evidence: str = ""

    def to_json(self) -> dict[str, str]:
        return {"source": self.source, "relation": self.relation, "target": self.target, "evidence": self.evidence}


@dataclass(frozen=True, slots=True)
class KindReport:
    """What one kind's discovery came to: found, denied or unsupported. `detail` is the provider's own words."""

    place: str
    kind: str
    status: str
    count: int | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Inventory:
    """Assets sorted by id, edges sorted, one KindReport per kind and place."""

    assets: tuple[Asset, ...] = ()
    edges: tuple[Edge, ...] = ()
    reports: tuple[KindReport, ...] = ()

    def get(self, asset_id: str) -> Asset | None:
        return next((asset for asset in self.assets if asset.id == asset_id), None)

    def of(self, kind: Kind) -> list[Asset]:
        return [asset for asset in self.assets if asset.kind is kind]
