"""`state.json` and the lock: what the lab of one home is doing, readable by any process at any moment."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from crossload.lab.process import is_same_process
from crossload.lab.site import write_public

ServerState = Literal["waiting", "starting", "up", "down", "failed", "not-installed"]


@dataclass(frozen=True, slots=True)
class ServerRecord:
    """One server in the state file. `ticks` is the start time of `pid`, so that a reused pid is not taken for it."""

    state: ServerState = "waiting"
    pid: int | None = None
    ticks: int | None = None
    error: str | None = None
    ready_seconds: float | None = None

    @property
    def alive(self) -> bool:
        return is_same_process(self.pid, self.ticks)


@dataclass(frozen=True, slots=True)
class LabState:
    """The whole state file. `phase`: starting, up, stopping or down."""

    phase: str = "down"
    supervisor_pid: int | None = None
    supervisor_ticks: int | None = None
    ports: Mapping[str, Mapping[str, int]] = field(default_factory=dict[str, Mapping[str, int]])
    folders: Mapping[str, str] = field(default_factory=dict[str, str])
    servers: Mapping[str, ServerRecord] = field(default_factory=dict[str, ServerRecord])

    @property
    def supervised(self) -> bool:
        """True while the process that owns this lab lives."""
        return is_same_process(self.supervisor_pid, self.supervisor_ticks)

    def with_server(self, name: str, record: ServerRecord) -> LabState:
        return replace(self, servers={**self.servers, name: record})


def read_state(home: Path) -> LabState:
    """The state of this home; an empty state when there is none or when the file is damaged."""
    try:
        raw: dict[str, Any] = json.loads((home / "state.json").read_text())
        servers = {name: ServerRecord(**record) for name, record in raw.pop("servers", {}).items()}
        return LabState(**raw, servers=servers)
    except (OSError, ValueError, TypeError):
        return LabState()


def write_state(home: Path, state: LabState) -> None:
    write_public(home / "state.json", json.dumps(asdict(state), indent=1) + "\n")


class HomeLock:
    """One supervisor per home. The kernel drops the lock when its holder dies, however it dies."""

    def __init__(self, home: Path) -> None:
        self._path = home / "lab.lock"
        self._descriptor: int | None = None

    def take(self) -> bool:
        """False when another supervisor holds this home."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def still_mine(self) -> bool:
        """False when the lock file was deleted or replaced: the home is gone, another lab may begin there."""
        if self._descriptor is None:
            return False
        try:
            return os.fstat(self._descriptor).st_ino == self._path.stat().st_ino
        except OSError:
            return False

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
