"""The Changes port: what a store tells by itself about objects that changed, as hints.

A Change says "look at this key again" and nothing more. Hints come at least once, in any order, late, or never: whoever
follows them compares both sides before it acts, and lists both sides now and then, which stays the truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

CREATED = "created"
REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Change:
    """One hint about one key.

    `kind` is created (also: replaced) or removed. `at` is when the store did it, in seconds since the epoch, None when
    it does not say. `etag` is the one `Store.head` gave for these bytes at that moment, "" when unknown. `sequence`
    orders changes of one key (never of two) when compared as plain text, "" when unknown. `size_bytes` is what a copy
    would carry: 0 for a removal, None when unknown."""

    key: str
    kind: str
    at: float | None = None
    etag: str = ""
    sequence: str = ""
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """What one poll brought. `receipts` are for `acknowledge` alone. `cursor` is where to go on after this batch, for
    sources that keep no state of their own: write it down together with the hints. `unread` counts messages that were
    no change we understand; they are acknowledged with the rest, or they would come back for ever."""

    changes: tuple[Change, ...] = ()
    receipts: tuple[str, ...] = ()
    cursor: str = ""
    unread: int = 0


class Subscription(Protocol):
    """One bucket's stream. Not safe for two threads at once."""

    def poll(self, wait_seconds: float) -> Batch:
        """Whatever has come, waiting at most about this long for the first of it; an empty batch when nothing came.

        Raises NotFound when what `ensure` made is gone, and the usual errors of the service."""
        ...

    def acknowledge(self, batch: Batch) -> None:
        """Never send these again. Call it only after the hints are on disk: killed in between, they come once more."""
        ...


class Changes(Protocol):
    """Errors are those of `ports.errors`."""

    place: str

    def ensure(self, bucket: str, prefix: str = "", owner: str = "") -> str:
        """Set up what a stream needs, beside what others have set up, and return a token for `follow` and `remove`.

        `owner` keeps two followers of one bucket apart: each has a stream of its own. The token is text without
        secrets. Safe to repeat: the same bucket and owner give the same stream. Raises Unsupported, with what a person
        must switch on, when we cannot."""
        ...

    def remove(self, token: str) -> None:
        """Take away what `ensure` set up, and nothing else. Safe to repeat; silent when it is gone."""
        ...

    def follow(self, bucket: str, prefix: str = "", token: str = "", cursor: str = "") -> Subscription:
        """The stream of one bucket; keys outside `prefix` are left out. `cursor` is the last one written down."""
        ...
