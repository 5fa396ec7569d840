"""One writer at a time: an flock that dies with its holder, and says who holds it."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from crossload.ledger.database import broken
from crossload.ports.errors import Locked


class WorkspaceLock:
    """Held while a verb changes things. A killed holder frees it at once, since the kernel closes its file."""

    def __init__(self, path: Path, verb: str) -> None:
        self._path = path
        self._verb = verb
        self._file: int | None = None

    def __enter__(self) -> Self:
        with broken(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = self._path.read_text(encoding="utf-8")
                os.close(descriptor)
                raise Locked(_describe(holder), hint="wait for it to end, or stop that process") from error
            try:
                self._write_holder(descriptor)
            except BaseException:
                os.close(descriptor)
                raise
        self._file = descriptor
        return self

    def _write_holder(self, descriptor: int) -> None:
        holder = {
            "pid": os.getpid(), "host": socket.gethostname(), "verb": self._verb,
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }  # fmt: skip
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            # Emptied first: who comes between our successor's lock and its words must not read our name.
            os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = None


def _describe(holder: str) -> str:
    try:
        value = json.loads(holder)
        return (
            f"`crossload {value['verb']}` holds the lock: pid {value['pid']} on {value['host']} since {value['since']}"
        )
    except (ValueError, KeyError, TypeError):
        return "another crossload process holds the lock"
