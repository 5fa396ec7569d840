"""The supervisor: the one process that starts, watches and ends the servers of one home.

    waiting -> starting -> up -> down        (down, kill)
                 |         |
                 +-> failed <+               (did not become ready; died by itself)

Only the main thread forks, because the death signal of a server is tied to the thread that forked it. Everything that
takes time (preparing, probing, settling) happens in one thread per server.
"""

from __future__ import annotations

import contextlib
import os
import queue
import selectors
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

from crossload.lab import control
from crossload.lab.envfile import write_env
from crossload.lab.launch import adopt_orphans, last_lines, start_process
from crossload.lab.ports import PortClaims
from crossload.lab.probe import is_ready
from crossload.lab.process import kill_session, listeners_of, session_members, start_ticks
from crossload.lab.site import Site, remove_tree, unprivileged_folder
from crossload.lab.spec import Server
from crossload.lab.state import HomeLock, LabState, ServerRecord, read_state, write_state
from crossload.lab.table import all_servers, chosen

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ALREADY_RUNNING = 3


class NotReady(Exception):
    """A server did not come up; the text says why, in the server's own last words where it has any."""


class Supervisor:
    """Runs one lab until it is told to stop. `tied_to`: a descriptor that reads end-of-file when the caller dies."""

    def __init__(self, home: Path, only: Iterable[str] | None = None, tied_to: int | None = None) -> None:
        self._home = home.resolve()
        self._wanted = chosen(only)
        self._tied_to = tied_to
        self._lock = HomeLock(self._home)
        self._claims = PortClaims()
        self._state = LabState()
        self._state_guard = threading.RLock()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._starters: dict[str, threading.Thread] = {}
        self._forks: queue.SimpleQueue[tuple[Server, Future[subprocess.Popen[bytes]]]] = queue.SimpleQueue()
        self._wake_read, self._wake_write = socket.socketpair()
        self._stopping = threading.Event()
        self._answering: set[str] = set()

    # -- life ---------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Bring the servers up and stay until stopped. Returns the exit code of the process."""
        self._home.mkdir(parents=True, exist_ok=True)
        if not self._lock.take():
            return ALREADY_RUNNING
        # Before the first server: a Ctrl-C during start must already find its way to the orderly stop.
        for number in _STOP_SIGNALS:
            signal.signal(number, lambda _number, _frame: self._stopping.set())
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)
        adopt_orphans()
        door: socket.socket | None = None
        try:
            self._clear_leftovers()
            self._settle_in()
            door = control.listen(self._home)
            for name in self._wanted:
                self._begin(name)
            self._watch(door)
        finally:
            if door is not None:
                door.close()
            self._stop_all()
            self._lock.release()
        return 0

    def _clear_leftovers(self) -> None:
        """End servers that an earlier supervisor of this home left behind (the machine may have lost power to it)."""
        before = read_state(self._home)
        for record in before.servers.values():
            if record.pid is not None and record.alive:
                kill_session(record.pid, record.ticks)

    def _settle_in(self) -> None:
        before = read_state(self._home)
        rows = all_servers()
        ports = self._claims.pick({name: row.port_names for name, row in rows.items()}, before.ports)
        folders = {
            row.name: str(unprivileged_folder(self._home, row.name)) for row in rows.values() if row.never_as_root
        }
        servers = {name: ServerRecord() for name in self._wanted}
        pid = os.getpid()
        self._state = LabState("starting", pid, start_ticks(pid), ports, folders, servers)
        self._write()

    def _watch(self, door: socket.socket) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_read, selectors.EVENT_READ, "wake")
            selector.register(door, selectors.EVENT_READ, "door")
            if self._tied_to is not None:
                selector.register(self._tied_to, selectors.EVENT_READ, "tied")
            while not self._stopping.is_set():
                for key, _ in selector.select(timeout=0.5):
                    if key.data == "door":
                        control.answer(door, self._handle)
                    elif key.data == "tied":
                        self._stopping.set()
                    else:
                        with contextlib.suppress(BlockingIOError):
                            self._wake_read.recv(4096)
                self._fork_requested()
                self._reap()
                if not self._lock.still_mine():
                    self._stopping.set()

    # -- starting -----------------------------------------------------------------------------------------------

    def _begin(self, name: str) -> None:
        starter = threading.Thread(target=self._start, args=(name,), name=f"start-{name}", daemon=True)
        self._starters[name] = starter
        self._answering.discard(name)
        self._set(name, ServerRecord("waiting"))
        write_env(self._site("lab"), self._state.servers)
        starter.start()

    def _start(self, name: str) -> None:
        row = all_servers()[name]
        try:
            missing = row.missing()
            if missing is not None:
                self._set(name, ServerRecord("not-installed", error=missing))
                return
            self._await_dependencies(row)
            begun = time.monotonic()
            self._set(name, ServerRecord("starting"))
            self._bring_up(row)
            self._set(name, replace(self._record(name), state="up", ready_seconds=round(time.monotonic() - begun, 2)))
        except NotReady as reason:
            self._give_up(name, str(reason))
        except Exception as error:  # noqa: BLE001  # one row's bug must not take the other servers down
            self._give_up(name, f"{type(error).__name__}: {error}")
        finally:
            self._settle_phase()

    def _await_dependencies(self, row: Server) -> None:
        for other in row.after:
            while other not in self._answering:
                state = self._record(other).state
                if state not in {"waiting", "starting"} or self._stopping.is_set():
                    raise NotReady(f"needs {other}, which is {state}")
                time.sleep(0.02)

    def _bring_up(self, row: Server) -> None:
        site = self._site(row.name)
        site.make_folder()
        row.prep(site)
        request: Future[subprocess.Popen[bytes]] = Future()
        self._forks.put((row, request))
        self._wake()
        process = request.result(timeout=30)
        self._until_ready(row, site, process)
        self._check_listeners(row, process)
        while any(self._is_starting(other) for other in row.settle_after):
            self._must_live(row, site, process)
            time.sleep(0.02)
        row.settle(site)
        self._answering.add(row.name)
        # Some servers answer a probe and die a moment later on a second port: look again before calling it up.
        settled = time.monotonic()
        while time.monotonic() - settled < 1.0:
            self._must_live(row, site, process)
            time.sleep(0.1)
        self._check_listeners(row, process)

    def _until_ready(self, row: Server, site: Site, process: subprocess.Popen[bytes]) -> None:
        probe = row.ready(site)
        deadline = time.monotonic() + row.start_seconds_max
        while not is_ready(probe):
            self._must_live(row, site, process)
            if time.monotonic() > deadline:
                words = " | ".join(last_lines(site.log))
                raise NotReady(f"not ready after {row.start_seconds_max:.0f} s: {words}")
            time.sleep(0.05)
        self._must_live(row, site, process)

    def _must_live(self, row: Server, site: Site, process: subprocess.Popen[bytes]) -> None:
        if self._stopping.is_set():
            raise NotReady("stopped while starting")
        if start_ticks(process.pid) is None:
            words = " | ".join(last_lines(site.log)) or "it said nothing"
            raise NotReady(f"ended by itself while starting: {words}")

    def _check_listeners(self, row: Server, process: subprocess.Popen[bytes]) -> None:
        open_to_all = [held for held in listeners_of(session_members(process.pid)) if not held.on_loopback]
        if open_to_all:
            raise NotReady(f"listens beyond this machine on {', '.join(map(str, open_to_all))}: stopped")

    def _give_up(self, name: str, reason: str) -> None:
        record = self._record(name)
        if record.pid is not None and record.alive:
            kill_session(record.pid, record.ticks)
        self._set(name, ServerRecord("failed", error=reason))

    def _fork_requested(self) -> None:
        while True:
            try:
                row, request = self._forks.get_nowait()
            except queue.Empty:
                return
            try:
                process = start_process(row, self._site(row.name))
            except Exception as error:  # noqa: BLE001  # handed to the thread that asked
                request.set_exception(error)
                continue
            self._processes[row.name] = process
            record = self._record(row.name)
            self._set(row.name, replace(record, pid=process.pid, ticks=start_ticks(process.pid)))
            request.set_result(process)

    # -- watching and stopping ----------------------------------------------------------------------------------

    def _reap(self) -> None:
        for name, process in list(self._processes.items()):
            if process.poll() is None:
                continue
            del self._processes[name]
            # Its children are orphans now: whoever still holds a port of this server must go before it starts again.
            kill_session(process.pid, None)
            if self._record(name).state == "up":
                words = " | ".join(last_lines(self._site(name).log, 3))
                self._set(name, ServerRecord("failed", error=f"ended by itself ({process.returncode}): {words}"))
        with contextlib.suppress(OSError):
            self._reap_adopted()

    def _reap_adopted(self) -> None:
        known = {process.pid for process in self._processes.values()}
        # WNOWAIT: look without taking, so that Popen still learns the status of the servers it started.
        while (seen := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if seen.si_pid in known:
                return
            os.waitpid(seen.si_pid, os.WNOHANG)

    def _stop_one(self, name: str, *, at_once: bool) -> None:
        record = self._record(name)
        if record.pid is not None and record.alive:
            row = all_servers()[name]
            if not at_once:
                self._signal(record.pid, row.stop)
                deadline = time.monotonic() + row.grace_seconds
                while session_members(record.pid) and time.monotonic() < deadline:
                    time.sleep(0.02)
                    self._collect(name)
            kill_session(record.pid, record.ticks)
            self._collect(name)
        self._set(name, ServerRecord("down"))

    def _collect(self, name: str) -> None:
        process = self._processes.get(name)
        if process is not None and process.poll() is not None:
            self._processes.pop(name, None)

    @staticmethod
    def _signal(pid: int, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            # A stopped process would not hear the request to end.
            os.kill(pid, signal.SIGCONT)
            os.kill(pid, number)

    def _stop_all(self) -> None:
        self._stopping.set()
        with self._state_guard:
            self._state = replace(self._state, phase="stopping")
            self._write()
        for _, request in self._pending_forks():
            request.set_exception(NotReady("stopped while starting"))
        stoppers = [
            threading.Thread(target=self._stop_one, args=(name,), kwargs={"at_once": False})
            for name in self._state.servers
        ]
        for stopper in stoppers:
            stopper.start()
        for stopper in stoppers:
            stopper.join()
        for starter in self._starters.values():
            starter.join(timeout=2.0)
        with self._state_guard:
            servers = {name: ServerRecord("down") for name in self._state.servers}
            self._state = replace(
                self._state, phase="down", supervisor_pid=None, supervisor_ticks=None, servers=servers
            )
            self._write()
        self._claims.release()
        if not self._home.exists():
            for folder in self._state.folders.values():
                remove_tree(Path(folder).parent)
            return
        (self._home / control.SOCKET_NAME).unlink(missing_ok=True)

    def _pending_forks(self) -> Iterable[tuple[Server, Future[subprocess.Popen[bytes]]]]:
        with contextlib.suppress(queue.Empty):
            while True:
                yield self._forks.get_nowait()

    # -- commands from other processes --------------------------------------------------------------------------

    def _handle(self, request: Mapping[str, Any]) -> dict[str, Any]:
        match request:
            case {"do": "stop"}:
                self._stopping.set()
            case {"do": "start", "names": [*names]}:
                for name in chosen(str(name) for name in names):
                    if not self._busy(name):
                        self._begin(name)
            case {"do": "kill", "names": [*names]}:
                self._in_background(names, self._kill)
            case {"do": "restart", "names": [*names]}:
                self._in_background(names, self._restart)
            case _:
                return {"ok": False, "error": "unknown command"}
        return {"ok": True}

    def _in_background(self, names: Iterable[Any], act: Any) -> None:
        for name in names:
            if str(name) not in all_servers():
                raise KeyError(str(name))
        for name in names:
            threading.Thread(target=act, args=(str(name),), daemon=True).start()

    def _kill(self, name: str) -> None:
        self._stop_one(name, at_once=True)

    def _restart(self, name: str) -> None:
        self._set(name, replace(self._record(name), state="starting"))
        self._stop_one(name, at_once=False)
        self._begin(name)

    def _is_starting(self, name: str) -> bool:
        return name not in self._answering and self._record(name).state in {"waiting", "starting"}

    def _busy(self, name: str) -> bool:
        record = self._state.servers.get(name)
        return record is not None and (
            record.state in {"waiting", "starting"} or (record.state == "up" and record.alive)
        )

    # -- state --------------------------------------------------------------------------------------------------

    def _site(self, name: str) -> Site:
        return Site(self._home, name, self._state.ports, self._state.folders)

    def _record(self, name: str) -> ServerRecord:
        with self._state_guard:
            return self._state.servers.get(name, ServerRecord("down"))

    def _set(self, name: str, record: ServerRecord) -> None:
        with self._state_guard:
            self._state = self._state.with_server(name, record)
            self._write()

    def _settle_phase(self) -> None:
        with self._state_guard:
            busy = any(record.state in {"waiting", "starting"} for record in self._state.servers.values())
            if not busy and self._state.phase == "starting":
                self._state = replace(self._state, phase="up")
                self._write()

    def _write(self) -> None:
        if self._home.exists():
            write_state(self._home, self._state)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_write.send(b"\0")
