"""The Probe port: single requests on the wire, with a credential that may be wrong on purpose.

It exists to find out what a server really lets through. It goes around SDKs, because they repair paths and refuse to
send what an attacker would."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

# Credentials. Others are the names of identities the place's connection gives (`app`, `audit`, `stranger`).
OWN = "own"  # the identity that carries the data
NONE = "none"  # no credential at all
EXPIRED = "expired"  # was good once
FORGED = "forged"  # own claims or key id, signed with a key that is not ours to have
UNSIGNED = "unsigned"  # own claims or key id, with no signature
WRONG_AUDIENCE = "wrong-audience"  # good, but meant for another service
CREDENTIALS = (OWN, NONE, EXPIRED, FORGED, UNSIGNED, WRONG_AUDIENCE)

LIST, READ, WRITE, DELETE = "list", "read", "write", "delete"
OPERATIONS = (LIST, READ, WRITE, DELETE)


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """`status` is the HTTP status, None when the server gave none. `line` is the request line, without any secret.
    `version` names what a write made, so that exactly that can be removed. `body` is at most a few KiB."""

    status: int | None
    line: str
    note: str = ""
    version: str = ""
    body: bytes = b""

    @property
    def granted(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def refused(self) -> bool:
        """The server said no to the sender, or to the form of the request."""
        return self.status in (400, 401, 403, 405)

    @property
    def passed(self) -> bool:
        """The sender was let through, even if there was nothing to do: absent (404), condition not met (412, 304)."""
        return self.granted or self.status in (304, 404, 412)


@dataclass(frozen=True, slots=True)
class Detour:
    """A path that no client would send. `aim` says what it would reach if the server let it through."""

    path: str
    aim: str


class Probe(Protocol):
    """Never raises for what a server answers; raises Unavailable when nobody answers at all, Invalid for misuse."""

    place: str

    def identities(self) -> tuple[str, ...]:
        """Named identities of this place's connection, besides our own."""
        ...

    def credentials(self) -> Mapping[str, str]:
        """Credential -> "" when it can be made here, else the reason why not."""
        ...

    def request(
        self, operation: str, bucket: str, key: str, credential: str, *, raw_path: str = "", body: bytes = b"",
        harmless: bool = False,
    ) -> ProbeAnswer:  # fmt: skip
        """One request. `harmless` adds a condition that can never be met, so that a write or delete that is let
        through changes nothing. A delete is only ever sent harmless or through `remove`. `raw_path` replaces the path
        and is sent byte for byte."""
        ...

    def doors(self, operation: str, bucket: str, key: str) -> tuple[str, ...]:
        """Raw paths under which this server answers the operation, the usual one first."""
        ...

    def detours(self, bucket: str, other: str, key: str) -> tuple[Detour, ...]:
        """Paths that begin at one place and aim at another bucket, or around the check of credentials."""
        ...

    def remove(self, bucket: str, key: str, version: str = "") -> bool:
        """Remove what a probe wrote, with our own credential. True when it is gone."""
        ...
