"""Whose credentials a place's connection has besides our own (`profile@audit`, `url@stranger`), and which can be made.

What the probes of several providers share; it knows no provider."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from crossload.ports.errors import CrossloadError
from crossload.ports.provider import Settings


def identities_of(settings: Settings, setting: str) -> tuple[str, ...]:
    """Every NAME of a `setting@NAME` in this connection, sorted."""
    return tuple(sorted(key.partition("@")[2] for key in settings.connection if key.startswith(f"{setting}@")))


def makeable(credentials: Iterable[str], make: Callable[[str], object]) -> dict[str, str]:
    """Credential -> "" when `make` makes it, else the reason why not."""
    reasons: dict[str, str] = {}
    for name in credentials:
        try:
            make(name)
            reasons[name] = ""
        except CrossloadError as error:
            reasons[name] = str(error)
    return reasons
