"""Keys that the target would refuse, rename or let collide: found before a byte moves, counted, with examples."""

from __future__ import annotations

import re
import sqlite3
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Protocol

from crossload.estate.diagnostic import Diagnostic
from crossload.ports.store import StoreFeatures

EXAMPLES_MAX = 5
OURS = ".crossload/"
_KEPT_BYTES_MAX = 2**20  # of earlier keys that the current one may still lie under
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CACHE_KIB = 16 * 1024
_SHOWN_LETTERS = 120
_RENAME = "rename them at the source, or leave them out and bring them over by hand"


class HasKeys(Protocol):
    """A Comparison, say."""

    def source_keys(self) -> Iterator[str]:
        """In UTF-8 order."""
        ...


@dataclass(slots=True)
class _Finding:
    count: int = 0
    examples: list[str] = field(default_factory=list[str])

    def add(self, example: str) -> None:
        self.count += 1
        if len(self.examples) < EXAMPLES_MAX:
            self.examples.append(example)


@dataclass(slots=True)
class _Above:
    """A key that later ones may lie under."""

    key: str
    has_below: bool = False


def find(keys: HasKeys | Iterable[str], features: StoreFeatures, subject: str = "") -> list[Diagnostic]:
    """What is dangerous about these keys at a store of these features: one warning a kind, by code. Memory does not
    grow with the number of keys; names that differ in case only are compared on disk.

    `keys` come in UTF-8 order, each once: what does not raises ValueError."""
    ordered = keys if isinstance(keys, Iterable) else keys.source_keys()
    found: dict[str, _Finding] = {}
    above: list[_Above] = []
    before = ""
    with closing(_Folded(enabled=not features.case_sensitive)) as folded:
        for key in ordered:
            if before and key <= before:  # code points sort as their UTF-8 does
                raise ValueError(f"keys are not in UTF-8 order: {key!r} after {before!r}")
            before = key
            for code, example in (*_alone(key, features), *_beside(key, above, features)):
                found.setdefault(code, _Finding()).add(example)
            other = folded.meets(key)
            if other is not None:
                found.setdefault("XL544", _Finding()).add(f"{_shown(other)} and {_shown(key)}")
    return [_diagnostic(code, found[code], features, subject) for code in sorted(found)]


def access_lists(subject: str) -> Diagnostic:
    """Said once for each bucket that is carried."""
    return Diagnostic.note(
        "XL549", "access control lists of single objects are not carried", subject=subject,
        detail="Grants name identities of the source; copied as they are they would open or close the wrong doors.",
        hint="rights are granted anew at the target (landing) and compared on both sides (assurance)",
    )  # fmt: skip


def _alone(key: str, features: StoreFeatures) -> Iterator[tuple[str, str]]:
    """What is dangerous about a key whatever else there is."""
    segments = key.split("/")
    shown = _shown(key)
    if features.hierarchical and key.endswith("/"):
        yield "XL541", shown
    if features.hierarchical and ("" in segments[:-1] or not key):
        yield "XL542", shown
    if not features.dot_segments and not {".", ".."}.isdisjoint(segments):
        yield "XL543", shown
    size = len(key.encode("utf-8", "surrogatepass"))
    if size > features.key_bytes_max:
        yield "XL545", f"{shown} ({size} bytes)"
    elif features.segment_bytes_max and size > features.segment_bytes_max:
        longest = max(len(segment.encode("utf-8", "surrogatepass")) for segment in segments)
        if longest > features.segment_bytes_max:
            yield "XL545", f"{shown} ({longest} bytes between slashes)"
    if _CONTROL.search(key) or any(letter in key for letter in features.letters_refused) or not _is_text(key):
        yield "XL546", shown
    if features.trims_dots and any(part.endswith((".", " ")) and part not in (".", "..") for part in segments):
        yield "XL547", shown
    if key.startswith(OURS):
        yield "XL548", shown


def _beside(key: str, above: list[_Above], features: StoreFeatures) -> Iterator[tuple[str, str]]:
    """What is dangerous because of an earlier key. `above` holds those that `key` begins with, and is kept up: in UTF-8
    order, `a b` may come between `a` and `a/b`, and is no reason to forget `a`."""
    if not features.hierarchical:
        return
    # Everything that begins with `a/` comes before `a0`: until then `a` may still turn out to be a folder.
    while above and not key.startswith(above[-1].key):
        above.pop()
    for item in above:
        if key.startswith("/", len(item.key)) and not item.key.endswith("/") and not item.has_below:
            item.has_below = True
            yield "XL540", f"{_shown(item.key)} and {_shown(key)}"
    if not above or sum(len(item.key) for item in above) < _KEPT_BYTES_MAX:
        above.append(_Above(key))


class _Folded:
    """Keys by how they look to a disk that does not tell `A` from `a`; in a file of SQLite's own that is gone when it
    is closed."""

    def __init__(self, *, enabled: bool) -> None:
        self._database = sqlite3.connect("") if enabled else None
        if self._database is not None:
            for pragma in (f"cache_size=-{_CACHE_KIB}", "journal_mode=off", "synchronous=off", "temp_store=file"):
                self._database.execute(f"pragma {pragma}")
            self._database.execute("create table seen(folded blob primary key, key blob not null) without rowid")

    def meets(self, key: str) -> str | None:
        """The earlier key that this one would be taken for."""
        if self._database is None:
            return None
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", key).casefold())
        row = (folded.encode("utf-8", "surrogatepass"), key.encode("utf-8", "surrogatepass"))
        if self._database.execute("insert or ignore into seen values(?,?)", row).rowcount:
            return None
        found = self._database.execute("select key from seen where folded=?", row[:1]).fetchone()
        return bytes(found[0]).decode("utf-8", "surrogatepass")

    def close(self) -> None:
        if self._database is not None:
            self._database.close()


def _is_text(key: str) -> bool:
    return key.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in key)


def _shown(key: str) -> str:
    text = ascii(key)[1:-1] if _CONTROL.search(key) or not _is_text(key) else key
    return f"`{text if len(text) <= _SHOWN_LETTERS else text[:_SHOWN_LETTERS] + '...'}`"


def _diagnostic(code: str, finding: _Finding, features: StoreFeatures, subject: str) -> Diagnostic:
    summary, hint = _WORDS[code]
    if code == "XL545":
        limit = f"{features.key_bytes_max} bytes"
        if features.segment_bytes_max:
            limit += f", or {features.segment_bytes_max} between two slashes"
        summary = summary.format(limit=limit)
    more = finding.count - len(finding.examples)
    detail = ", ".join(finding.examples) + (f" and {more} more" if more else "")
    return Diagnostic.warning(code, f"{finding.count} {summary}", detail=detail, subject=subject, hint=hint)


_WORDS = {
    "XL540": ("key(s) are an object and a folder of others: the target holds one of both", _RENAME),
    "XL541": (
        "key(s) end with `/`: the target takes them for folders, and may drop their bytes",
        "folder marks without bytes may stay behind; anything else must be renamed at the source",
    ),
    "XL542": ("key(s) begin with `/` or hold `//`: the target knows no folder without a name", _RENAME),
    "XL543": ("key(s) hold `.` or `..` as a folder: at the target they would name another object", _RENAME),
    "XL544": (
        "key(s) differ from another one in case or Unicode form only: the target keeps one of both",
        "rename them at the source, or carry them to a place that tells them apart",
    ),
    "XL545": ("key(s) are longer than the target takes ({limit})", _RENAME),
    "XL546": (
        "key(s) hold control characters, or letters that the target refuses or changes",
        "rename them at the source: tools on the way (lists in XML, terminals, SHA256SUMS) stumble over them too",
    ),
    "XL547": ("key(s) have a segment that ends with a dot or a space, which may get lost at the target", _RENAME),
    "XL548": (
        f"key(s) begin with `{OURS}`, where Crossload keeps uploads that are under way: they are not listed",
        "rename them at the source; what an earlier migration left there can be deleted",
    ),
}
