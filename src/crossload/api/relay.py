"""The agent at the far end of a relay: a place's store, served to another Crossload (docs/relay.md)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from crossload import wiring
from crossload.api.project import BadFile
from crossload.estate.secret import ReferenceUnresolved, is_reference, resolve
from crossload.ports.errors import Invalid, Refused


class _Served(Protocol):
    """An agent that listens: `serve` answers in the calling thread until somebody calls `stop`."""

    @property
    def url(self) -> str: ...
    def serve(self) -> None: ...
    def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """`listen` is HOST:PORT, port 0 for any that is free. `token_reference` is `env:NAME` or `file:PATH`. `buckets` are
    names, or patterns with a `*`. Sizes are bytes."""

    listen: str
    token_reference: str
    buckets: Sequence[str]
    certificate: Path | None = None
    certificate_key: Path | None = None
    read_only: bool = False
    body_bytes_max: int = 256 * 2**20


def open_agent(file: Path, place: str, settings: AgentSettings, say: Callable[[str], None] = lambda _: None) -> _Served:
    """An agent in front of `place` of a migration file. It listens already: `url` says where; `serve()` answers until
    `stop()`.

    Raises BadFile, Invalid for settings that make no sense, Refused for those that would be open to strangers,
    Unavailable when the address is taken."""
    migration, diagnostics = wiring.read_file(file)
    if migration is None:
        raise BadFile(diagnostics)
    host, colon, port = settings.listen.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise Invalid(f"`{settings.listen}` is no address to listen on", hint="as 127.0.0.1:8790")
    if not is_reference(settings.token_reference):
        raise Refused(
            "the token is a reference, never a value: everybody on this machine sees the arguments of a process",
            hint="--token env:NAME or file:PATH",
        )
    try:
        token = resolve(settings.token_reference, wiring.environment_of(migration))
    except ReferenceUnresolved as error:
        raise Invalid(str(error), hint="set the variable or write the file, then start again") from error
    return wiring.relay_agent(
        migration, place, say, token=token, buckets=tuple(settings.buckets), host=host.strip("[]") or "127.0.0.1",
        port=int(port), read_only=settings.read_only, certificate=settings.certificate,
        certificate_key=settings.certificate_key, body_bytes_max=settings.body_bytes_max,
        memory_bytes_max=max(2 * settings.body_bytes_max, 2**29),
    )  # fmt: skip
