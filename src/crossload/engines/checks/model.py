"""What a check is, what it sees, and what it says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from crossload.estate.asset import Asset
from crossload.estate.place import Place
from crossload.ports.policy import Posture
from crossload.ports.probe import Detour

# Verdicts of a comparison. `weaker` and `unknown` are named with what to do; only some rules stop the cutover.
EQUAL, STRICTER, WEAKER, UNKNOWN = "equal", "stricter", "weaker", "unknown"
# Verdicts of an attack. A failed control gives `error`: a server that refuses everybody has blocked nothing.
BLOCKED, OPEN, ERROR, NOT_RUN = "blocked", "open", "error", "not-run"


@dataclass(frozen=True, slots=True)
class Access:
    """What one identity may do, found out by one real and harmless request. `allowed` is None when it is not known."""

    allowed: bool | None
    how: str

    @property
    def word(self) -> str:
        return {True: "yes", False: "no", None: "unknown"}[self.allowed]


AccessTable = Mapping[tuple[str, str], Access]
"""(identity, operation) -> Access. Identity `none` is anybody without a credential."""


@dataclass(frozen=True, slots=True)
class Side:
    """One asset's bucket at one place, as seen just now."""

    place: Place
    posture: Posture
    access: AccessTable


@dataclass(frozen=True, slots=True)
class Pair:
    """The same asset on both sides; what a comparison looks at. `allowed` are the countries it may lie in, None when
    no residency rule is for it."""

    asset: Asset
    source: Side
    target: Side
    allowed: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table: source | target | verdict. `blocks` says that this line alone stops the cutover."""

    rule: str
    subject: str
    source: str
    target: str
    verdict: str
    hint: str = ""
    how: str = ""
    blocks: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "rule": self.rule, "subject": self.subject, "source": self.source, "target": self.target,
            "verdict": self.verdict, "hint": self.hint, "how": self.how, "blocks": self.blocks,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Comparison:
    """`lines` is pure: everything it may look at is in the pair."""

    id: str
    title: str
    lines: Callable[[Pair], list[Line]]
    question: str = "protection"  # or "residency": which of the two steps asks it


@dataclass(frozen=True, slots=True)
class Scene:
    """Where attacks happen: real buckets and a real object of the estate at the target. `key` exists in `bucket`;
    `other` is a second bucket of the estate with `other_key` in it, "" when there is none."""

    bucket: str
    key: str
    other: str = ""
    other_key: str = ""


@dataclass(frozen=True, slots=True)
class Try:
    """One request of an attack. It reached its aim when the server grants it; a harmless one, when the server would
    have. `lands` is (bucket, key) where a write that escapes would show up: then only what is found there counts."""

    operation: str
    credential: str
    bucket: str
    key: str
    raw_path: str = ""
    harmless: bool = False
    aim: str = ""
    lands: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Attack:
    """`tries` lists the requests, in order; `controls` the same operations with our own good credential, which must
    succeed. `needs` are credentials without which it cannot run. `tags` are MITRE ATT&CK technique ids."""

    id: str
    title: str
    tags: tuple[str, ...]
    needs: tuple[str, ...]
    tries: Callable[[Scene, AttackTools], list[Try]]
    controls: Callable[[Scene, AttackTools], list[Try]]
    hint: str = ""


@dataclass(frozen=True, slots=True)
class AttackTools:
    """What an attack may ask before it begins: the addresses a server answers under, and a fresh key of our own."""

    doors: Callable[[str, str, str], tuple[str, ...]]
    detours: Callable[[str, str, str], tuple[Detour, ...]]
    fresh_key: Callable[[str], str]


@dataclass(frozen=True, slots=True)
class AttackResult:
    """`requests` counts everything sent, controls and cleanup too. `left_behind` names what could not be removed."""

    id: str
    title: str
    verdict: str
    tags: tuple[str, ...]
    detail: str = ""
    control: str = ""
    answers: tuple[str, ...] = ()
    requests: int = 0
    left_behind: tuple[str, ...] = field(default=())
    hint: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id, "title": self.title, "verdict": self.verdict, "tags": list(self.tags), "detail": self.detail,
            "control": self.control, "answers": list(self.answers), "requests": self.requests,
            "left_behind": list(self.left_behind), "hint": self.hint,
        }  # fmt: skip
