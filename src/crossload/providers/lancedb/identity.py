"""The Identity port for LanceDB: a folder or bucket has no sign-in of its own; what it lets us do is asked."""

from __future__ import annotations

from crossload.ports.provider import Settings
from crossload.ports.vectors import ReadIdentity
from crossload.providers.lancedb.vectors import open_vectors


def open_identity(settings: Settings) -> ReadIdentity:
    return ReadIdentity(open_vectors(settings), "access to the folder or bucket")
