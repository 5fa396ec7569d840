"""An estate whose protection is a table: what each credential may do, and which holes were left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from crossload.engines.checks.model import Access, Pair, Scene, Side
from crossload.estate.asset import Asset, Kind
from crossload.estate.place import Place
from crossload.ports.errors import NotFound, Unavailable
from crossload.ports.policy import Fact, Posture
from crossload.ports.probe import (
    DELETE,
    EXPIRED,
    FORGED,
    LIST,
    NONE,
    OPERATIONS,
    OWN,
    READ,
    UNSIGNED,
    WRITE,
    WRONG_AUDIENCE,
    Detour,
    ProbeAnswer,
)

BAD = (NONE, EXPIRED, FORGED, UNSIGNED, WRONG_AUDIENCE)


@dataclass
class TableProbe:
    """A store that answers by a table. `rights` maps a credential to the operations it may do."""

    place: str = "target"
    rights: dict[str, set[str]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    objects: set[tuple[str, str]] = field(default_factory=set)
    open_detours: set[str] = field(default_factory=set)
    ignores_conditions: bool = False
    climbs: bool = False  # `..` in a key leaves the bucket
    sticky: bool = False  # nothing can be removed
    status_refused: int = 403
    down: bool = False
    log: list[tuple[str, str, str]] = field(default_factory=list)
    removed: list[tuple[str, str]] = field(default_factory=list)

    def identities(self) -> tuple[str, ...]:
        return tuple(sorted(set(self.rights) - {OWN, *BAD}))

    def credentials(self) -> Mapping[str, str]:
        return {name: self.missing.get(name, "") for name in (OWN, *BAD, *self.identities())}

    def request(
        self, operation: str, bucket: str, key: str, credential: str, *, raw_path: str = "", body: bytes = b"",
        harmless: bool = False,
    ) -> ProbeAnswer:  # fmt: skip
        self.log.append((operation, credential, raw_path))
        if self.down:
            raise Unavailable("nobody answers")
        line = f"{operation} {raw_path or f'{bucket}/{key}'}"
        if raw_path.startswith("/detour/"):
            return ProbeAnswer(200 if raw_path in self.open_detours else self.status_refused, line)
        if operation not in self.rights.get(credential, set()):
            return ProbeAnswer(self.status_refused, line)
        if operation == LIST:
            return ProbeAnswer(200, line)
        if operation == READ:
            return ProbeAnswer(206 if (bucket, key) in self.objects else 404, line)
        if harmless and not self.ignores_conditions:
            return ProbeAnswer(412, line)
        if operation == WRITE:
            self.objects.add(self._resolved(bucket, key))
            return ProbeAnswer(200, line, version="v1")
        return ProbeAnswer(404, line)

    def doors(self, operation: str, bucket: str, key: str) -> tuple[str, ...]:
        return (f"/front/{operation}/{bucket}/{key}", f"/side/{operation}/{bucket}/{key}")

    def detours(self, bucket: str, other: str, key: str) -> tuple[Detour, ...]:
        return (Detour(f"/detour/{bucket}/../{other}/{key}", other), Detour(f"/detour/%2e/{other}/{key}", other))

    def remove(self, bucket: str, key: str, version: str = "") -> bool:
        self.removed.append((bucket, key))
        if self.sticky:
            return False
        self.objects.discard(self._resolved(bucket, key))
        return True

    def _resolved(self, bucket: str, key: str) -> tuple[str, str]:
        """As a store on a file system would: the climbing key and what it climbs to are one file."""
        if not self.climbs or ".." not in key:
            return bucket, key
        other, _, rest = key.split("../")[-1].partition("/")
        return other, rest


@dataclass
class TablePolicy:
    """Postures by bucket."""

    place: str
    postures: dict[str, Posture]

    def posture(self, bucket: str) -> Posture:
        if bucket not in self.postures:
            raise NotFound(bucket)
        return self.postures[bucket]


SAFE_FACTS = {
    "encryption": "customer-key", "public_access": "blocked", "versioning": "on", "transport": "tls-only",
    "access_logs": "on", "region": "europe-west3",
}  # fmt: skip


def posture_of(place: str, bucket: str = "docs", **facts: object) -> Posture:
    """`None` leaves a fact unknown."""
    shown = {name: Fact(value, "table") for name, value in {**SAFE_FACTS, **facts}.items()}
    return Posture(place, bucket, shown)


def access_of(**allowed: str) -> dict[tuple[str, str], Access]:
    """`app="lr"`: the app may list and read. Everybody else may nothing."""
    letters = {"l": LIST, "r": READ, "w": WRITE, "d": DELETE}
    out: dict[tuple[str, str], Access] = {}
    for identity in {NONE, *allowed}:
        for letter, operation in letters.items():
            out[identity, operation] = Access(letter in allowed.get(identity, ""), f"{identity} {operation}")
    return out


def side_of(place: Place, access: Mapping[tuple[str, str], Access] | None = None, **facts: object) -> Side:
    return Side(place, posture_of(place.id, **facts), access if access is not None else access_of())


@pytest.fixture
def source_place() -> Place:
    return Place("source", "local", "eu-central-1", "DE")


@pytest.fixture
def target_place() -> Place:
    return Place("target", "local", "europe-west3", "DE")


@pytest.fixture
def asset() -> Asset:
    overlay = {"sensitivity": "internal"}
    return Asset("dataset:docs", Kind.DATASET, "docs", "source", "docs", {"bucket": "docs"}, {}, overlay)


@pytest.fixture
def pair(asset: Asset, source_place: Place, target_place: Place) -> Pair:
    """Both sides safe and alike."""
    return Pair(asset, side_of(source_place), side_of(target_place), frozenset({"DE", "FR"}))


@pytest.fixture
def safe_probe() -> TableProbe:
    """Our own identity may do everything, the auditor lists, the stranger and all bad credentials may nothing."""
    rights = {OWN: set(OPERATIONS), "audit": {LIST}, "stranger": set(), "app": {LIST, READ}}
    return TableProbe(rights=rights, objects={("docs", "a.txt"), ("models", "m.gguf")})


@pytest.fixture
def scene() -> Scene:
    return Scene("docs", "a.txt", "models", "m.gguf")
