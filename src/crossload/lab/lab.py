"""The lab as other code uses it: `Lab(home).up()`, `.status()`, `.env()`, `.kill()`, `.down()`."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from crossload.lab import control
from crossload.lab.envfile import read_env
from crossload.lab.launch import callers_environment, last_lines
from crossload.lab.process import Listener, cpu_seconds, kill_session, listeners_of, pss_bytes, session_members
from crossload.lab.site import remove_tree
from crossload.lab.spec import Cloud
from crossload.lab.state import LabState, ServerRecord, ServerState, read_state
from crossload.lab.supervise import ALREADY_RUNNING
from crossload.lab.table import all_servers, chosen

_SETTLED = frozenset({"up", "down", "failed", "not-installed"})


class LabError(RuntimeError):
    """The lab could not do what was asked; the text says which server and why."""


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """One server as it is now. `pss_bytes` and `cpu_seconds` are None when it does not run."""

    name: str
    cloud: Cloud
    about: str
    state: ServerState
    pid: int | None
    ports: Mapping[str, int]
    pss_bytes: int | None
    cpu_seconds: float | None
    ready_seconds: float | None
    listeners: tuple[Listener, ...]
    hint: str | None
    log: Path


def default_home() -> Path:
    """CROSSLOAD_LAB_HOME, else .crossload/lab below the current folder."""
    return Path(os.environ.get("CROSSLOAD_LAB_HOME") or ".crossload/lab").resolve()


class Lab:
    """The lab of one home. Any number of processes may hold a `Lab` on the same home at once.

    `with Lab(home) as lab:` brings it up and takes it down again.
    """

    def __init__(self, home: Path | str | None = None) -> None:
        self.home = Path(home).resolve() if home is not None else default_home()
        self._tied: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def up(
        self,
        only: Iterable[str] | None = None,
        on_event: Callable[[ServerStatus], None] | None = None,
        *,
        detach: bool = False,
        wait_seconds: float = 120.0,
    ) -> list[ServerStatus]:
        """Start the servers (all, or `only` and what they need) and wait until each is up, failed or not installed.

        Without `detach` the lab ends when this process ends, however it ends; with it the lab stays until `down`.
        A lab that already runs gets the missing servers started. One server's failure does not stop the others:
        read the returned states. Raises KeyError for an unknown name, LabError when no supervisor comes to life or the
        home is a folder with other people's files in it: `down(purge=True)` deletes the whole of it.
        """
        names = list(chosen(only))
        if self.is_foreign("state.json", "lab.lock"):  # only the lock where a first start failed
            raise LabError(f"{self.home} holds files that no lab wrote; choose an empty or a new folder for the lab")
        if not self._join(names):
            self._spawn(names if only is not None else None, detach)
        return self.wait(names, on_event, wait_seconds=wait_seconds)

    def is_foreign(self, *marks: str) -> bool:
        """True when the home holds files, and none of `marks`, which labs leave: it must neither become a home nor be
        deleted."""
        return (
            self.home.is_dir() and any(self.home.iterdir()) and not any((self.home / name).exists() for name in marks)
        )

    def down(self, *, purge: bool = False) -> None:
        """Stop everything and wait until it is gone. `purge` also deletes the home and data folders outside of it."""
        state = read_state(self.home)
        if state.supervised and state.supervisor_pid is not None:
            with contextlib.suppress(OSError):
                control.ask(self.home, {"do": "stop"})
            self._await_end(state)
        self._close_tied()
        # Servers without a supervisor: the kernel killed them with it, this only makes sure.
        for record in read_state(self.home).servers.values():
            if record.pid is not None and record.alive:
                kill_session(record.pid, record.ticks)
        if purge:
            for folder in state.folders.values():
                if self.home not in Path(folder).parents:
                    remove_tree(Path(folder).parent)
            remove_tree(self.home)

    def stay(self) -> bool:
        """Wait for the end of a lab that is tied to this process. False at once when it is not: nothing to wait for."""
        if self._tied is None:
            return False
        self._tied.wait()
        return True

    def leave(self) -> None:
        """Stop the lab if it is tied to this process; leave a lab that others started alone."""
        if self._tied is not None:
            self.down()

    def status(self) -> list[ServerStatus]:
        """Every server of the table as it is now, in start order."""
        state = self._state()
        return [self._status(name, state) for name in all_servers()]

    def start(self, *names: str) -> list[ServerStatus]:
        """Start servers of a running lab, and what they need, and wait for them."""
        self._tell("start", names)
        return self.wait(list(chosen(names)))

    def restart(self, *names: str) -> list[ServerStatus]:
        """Stop and start servers on the same ports and folders, and wait for them."""
        records = self._state().servers
        before = {name: records.get(name, ServerRecord()).pid for name in names}
        self._tell("restart", names)
        self._until(lambda state: all(self._moved_on(state, name, pid) for name, pid in before.items()), 30.0)
        return self.wait(list(names))

    def kill(self, *names: str) -> None:
        """SIGKILL servers and their children, as a crash would, and wait until they are gone. They stay down."""
        self._tell("kill", names)
        self._until(lambda state: all(_is_down(state.servers.get(name)) for name in names), 10.0)

    def env(self) -> dict[str, str]:
        """The addresses other programs need (see docs/lab.md); raises LabError when the lab was never up here."""
        try:
            return dict(read_env(self.home))
        except FileNotFoundError:
            raise LabError(f"no lab was ever up in {self.home}") from None

    def secret(self, name: str) -> str:
        """The value of a secret file of this lab, for tests and the seed. Raises FileNotFoundError."""
        return (self.home / "secrets" / name).read_text().strip()

    def logs(self, name: str, lines: int = 40) -> list[str]:
        """The last lines of a server's log. Raises KeyError for an unknown name."""
        if name not in all_servers() and name != "supervisor":
            raise KeyError(name)
        return last_lines(self.home / "logs" / f"{name}.log", lines)

    def port(self, server: str, port_name: str) -> int:
        """A port of a server; raises KeyError when the lab never ran or has no such port."""
        return read_state(self.home).ports[server][port_name]

    def ports(self, server: str) -> dict[str, int]:
        """Port name -> port of a server; raises KeyError when the lab never ran."""
        return dict(read_state(self.home).ports[server])

    def pid(self, name: str) -> int:
        """The process (and session) id of a running server; raises LabError when it does not run."""
        record = read_state(self.home).servers.get(name)
        if record is None or record.pid is None or not record.alive:
            raise LabError(f"{name} does not run")
        return record.pid

    def wait(
        self,
        names: Iterable[str],
        on_event: Callable[[ServerStatus], None] | None = None,
        *,
        wait_seconds: float = 120.0,
    ) -> list[ServerStatus]:
        """Wait until these servers are up, failed, down or not installed; `on_event` gets each change of state once."""
        names = list(names)
        told: dict[str, str] = {}
        deadline = time.monotonic() + wait_seconds
        while True:
            state = self._state()
            for name in names:
                record = state.servers.get(name, ServerRecord())
                if on_event is not None and told.get(name) != record.state:
                    told[name] = record.state
                    on_event(self._status(name, state))
            if all(state.servers.get(name, ServerRecord()).state in _SETTLED for name in names):
                return [self._status(name, state) for name in names]
            if not state.supervised:
                raise LabError(f"the supervisor ended: {' | '.join(self.logs('supervisor', 5)) or 'it said nothing'}")
            if time.monotonic() > deadline:
                late = [name for name in names if state.servers.get(name, ServerRecord()).state not in _SETTLED]
                raise LabError(f"still starting after {wait_seconds:.0f} s: {', '.join(late)}")
            time.sleep(0.05)

    # -- inside -------------------------------------------------------------------------------------------------

    def _state(self) -> LabState:
        return read_state(self.home)

    def _join(self, names: list[str]) -> bool:
        state = self._state()
        if not state.supervised:
            return False
        if state.phase == "stopping":
            self._await_end(state)
            return False
        self._tell("start", names)
        return True

    def _spawn(self, only: list[str] | None, detach: bool) -> None:
        (self.home / "logs").mkdir(parents=True, exist_ok=True)
        argv = [sys.executable, "-m", "crossload.lab", "supervise", "--home", str(self.home)]
        if only is not None:
            argv += ["--only", ",".join(only)]
        if not detach:
            argv += ["--tied-to", "0"]
        with (self.home / "logs" / "supervisor.log").open("ab") as log:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL if detach else subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=callers_environment(),
            )
        # The write end of the pipe stays with us, never written: its end-of-file is how the lab learns of our death.
        deadline = time.monotonic() + 20.0
        while (state := self._state()).supervisor_pid != process.pid or not state.supervised:
            code = process.poll()
            if code == ALREADY_RUNNING and self._join(only or list(all_servers())):
                return
            if code is not None or time.monotonic() > deadline:
                words = " | ".join(self.logs("supervisor", 5))
                raise LabError(f"the supervisor did not start: {words or 'it said nothing'}")
            time.sleep(0.02)
        if detach:
            # Ours to start, not ours to wait for; without this, Python warns about a running child.
            process.returncode = 0
        else:
            self._tied = process

    def _tell(self, verb: str, names: Iterable[str]) -> None:
        try:
            reply = control.ask(self.home, {"do": verb, "names": list(names)})
        except OSError as error:
            raise LabError(f"no lab runs in {self.home}: {error}") from None
        if not reply.get("ok"):
            raise LabError(str(reply.get("error")))

    def _await_end(self, state: LabState) -> None:
        deadline = time.monotonic() + 20.0
        while state.supervised:
            if self._tied is not None:
                self._tied.poll()
            if time.monotonic() > deadline and state.supervisor_pid is not None:
                # It hangs: its servers die with it, by the kernel's hand.
                os.kill(state.supervisor_pid, signal.SIGKILL)
            time.sleep(0.02)

    def _close_tied(self) -> None:
        if self._tied is not None:
            if self._tied.stdin is not None:
                self._tied.stdin.close()
            self._tied.wait(timeout=20)
            self._tied = None

    def _until(self, done: Callable[[LabState], bool], wait_seconds: float) -> None:
        deadline = time.monotonic() + wait_seconds
        while not done(self._state()):
            if time.monotonic() > deadline:
                raise LabError(f"the supervisor did not finish within {wait_seconds:.0f} s")
            time.sleep(0.02)

    @staticmethod
    def _moved_on(state: LabState, name: str, old_pid: int | None) -> bool:
        record = state.servers.get(name, ServerRecord())
        return record.state in {"failed", "not-installed"} or (record.pid is not None and record.pid != old_pid)

    def _status(self, name: str, state: LabState) -> ServerStatus:
        row = all_servers()[name]
        record = state.servers.get(name)
        missing = row.missing()
        known: ServerState = record.state if record is not None else "not-installed" if missing else "down"
        alive = record is not None and record.alive
        if known in {"up", "starting"} and record is not None and record.pid is not None and not alive:
            known = "failed" if state.supervised else "down"
        pid = record.pid if record is not None and alive else None
        members = session_members(pid) if pid is not None else []
        facts: dict[str, Any] = {
            "pss_bytes": pss_bytes(members) if members else None,
            "cpu_seconds": round(cpu_seconds(members), 2) if members else None,
            "listeners": tuple(listeners_of(members)) if members else (),
        }
        return ServerStatus(
            name=name,
            cloud=row.cloud,
            about=row.about,
            state=known,
            pid=pid,
            ports=dict(state.ports.get(name, {})),
            ready_seconds=record.ready_seconds if record is not None and alive else None,
            hint=(record.error if record is not None else None) or missing,
            log=self.home / "logs" / f"{name}.log",
            **facts,
        )


def _is_down(record: ServerRecord | None) -> bool:
    return record is None or record.state == "down"
