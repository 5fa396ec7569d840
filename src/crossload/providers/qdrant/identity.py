"""The Identity port for Qdrant: a key or none; what it lets us read is asked."""

from __future__ import annotations

from crossload.ports.provider import Settings
from crossload.ports.vectors import ReadIdentity
from crossload.providers.qdrant.vectors import open_vectors


def open_identity(settings: Settings) -> ReadIdentity:
    return ReadIdentity(open_vectors(settings), "api key, if one is set")
