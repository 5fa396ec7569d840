"""How the rest of Crossload holds the gateway: start it apart from us, find it again, set weights, read counters."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import crossload
from crossload.engines.gateway.config import parse_config, read_config
from crossload.estate.whole import write_whole
from crossload.ports.errors import CrossloadError, Invalid, NotSignedIn, PreconditionFailed, Unavailable
from crossload.ports.models import Endpoint

RECORD = "gateway-process.json"
START_SECONDS_MAX = 20.0
STOP_SECONDS_MAX = 15.0


class Running(NamedTuple):
    """`started_now` is False when it ran already."""

    pid: int
    url: str
    started_now: bool


class GatewayControl:
    """The admin door. Calls are safe to repeat; errors are Unavailable, NotSignedIn, Invalid, PreconditionFailed."""

    def __init__(self, url: str, token: str, timeout_seconds: float = 10.0) -> None:
        self.url = url
        self._token = token
        self._timeout = timeout_seconds

    def routes(self) -> dict[str, Any]:
        """`{"weights": {"source": 95, "target": 5}, "epoch": n, "arms": {...}, "fallback": ...}`; percent."""
        return self._ask("GET", "/admin/routes")

    def set_weights(self, weights: Mapping[str, float], if_epoch: int | None = None) -> dict[str, Any]:
        """In force and on disk when this returns. `if_epoch` refuses (PreconditionFailed) when somebody else changed
        them since. The same weights again are no error; the epoch counts on."""
        wanted: dict[str, Any] = {"weights": dict(weights)}
        if if_epoch is not None:
            wanted["if_epoch"] = if_epoch
        return self._ask("PUT", "/admin/routes", wanted)

    def set_target_percent(self, percent: float) -> dict[str, Any]:
        return self.set_weights({"source": 100 - percent, "target": percent})

    def metrics(self) -> dict[str, Any]:
        return self._ask("GET", "/admin/metrics")

    def healthy(self) -> bool:
        try:
            return self._ask("GET", "/healthz").get("status") == "ok"
        except CrossloadError:
            return False

    def _ask(self, method: str, path: str, value: Any = None) -> dict[str, Any]:
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=self._timeout)
        body = None if value is None else json.dumps(value)
        headers = {"authorization": f"Bearer {self._token}", "content-type": "application/json"}
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"the gateway at {self.url} does not answer ({type(error).__name__})") from error
        finally:
            connection.close()
        try:
            found = json.loads(text)
        except ValueError as error:
            raise Invalid(f"{self.url} answers, but is no gateway") from error
        if answer.status == 200:
            return found
        message = f"gateway: {found.get('error', {}).get('message', answer.status)}"
        kind = {401: NotSignedIn, 409: PreconditionFailed}.get(answer.status)
        if kind is None:
            kind = Unavailable if answer.status >= 500 else Invalid
        raise kind(message)


def new_key(path: Path) -> str:
    """Write a random key with mode 0600 unless the file is there; returns its reference (`file:PATH`)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(f"cl_{secrets.token_urlsafe(32)}\n")
    return f"file:{path}"


def backend_settings(arm: str, endpoint: Endpoint) -> dict[str, Any]:
    """One `backends` entry of the configuration, from what a Models port says of its endpoint. References only."""
    credentials = dict(endpoint.credentials)
    if endpoint.credential_source:
        credentials["source"] = endpoint.credential_source
    return {
        "arm": arm, "wire": endpoint.wire, "base_url": endpoint.base_url, "model": endpoint.model,
        "credentials": credentials,
    }  # fmt: skip


def write_config(path: Path, settings: Mapping[str, Any]) -> bool:
    """Write the configuration as JSON after checking it; False when it was there already. It is sorted, so that
    the same settings are the same bytes and a running gateway is left alone. Raises ConfigInvalid."""
    parse_config(settings, path.resolve().parent)
    text = json.dumps(settings, indent=2, sort_keys=True)
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)
    return True


def start_detached(config_path: Path, workspace: Path, environment: Mapping[str, str] | None = None) -> Running:
    """Start the gateway in its own session and wait until it answers; one that runs already with the same
    configuration is left alone, with another configuration it is replaced. After a kill -9 this brings it back on the
    same port with the same weights (its state file has both).

    `environment` is what the configuration's `env:` references may use. Raises Unavailable with the end of its log."""
    workspace.mkdir(parents=True, exist_ok=True)
    config = read_config(config_path)
    token = config.resolve(config.admin_token, {**config.environment(), **(environment or {})})
    fingerprint = hashlib.sha256(config_path.read_bytes()).hexdigest()
    found = _record(workspace)
    if found is not None and _alive(found):
        if found["config_sha256"] == fingerprint and GatewayControl(found["url"], token).healthy():
            return Running(found["pid"], found["url"], False)
        stop(workspace)
    port_file = config.path(config.port_file)
    port_file.unlink(missing_ok=True)
    log = workspace / "gateway.log"
    roots = [str(Path(crossload.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    pid = _spawn(
        config_path, log, {**os.environ, **(environment or {}), "PYTHONPATH": os.pathsep.join(filter(None, roots))}
    )
    record = {"pid": pid, "started_ticks": _start_ticks(pid), "url": "", "config_sha256": fingerprint}
    _write_record(workspace, record)
    until = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < until:
        if not _alive(record):
            raise Unavailable(f"the gateway stopped at once: {_tail(log)}", hint=f"its log is {log}")
        if port_file.exists():
            url = f"http://{config.host}:{port_file.read_text(encoding='utf-8').strip()}"
            if GatewayControl(url, token).healthy():
                _write_record(workspace, {**record, "url": url})
                return Running(pid, url, True)
        time.sleep(0.05)
    stop(workspace)
    raise Unavailable(f"the gateway did not answer within {START_SECONDS_MAX:g} s: {_tail(log)}")


def running(workspace: Path) -> Running | None:
    """The gateway of this workspace if its process is alive, else None."""
    found = _record(workspace)
    return Running(found["pid"], found["url"], False) if found is not None and _alive(found) else None


def stop(workspace: Path) -> bool:
    """Stop it (TERM, then KILL); False when none ran. Only a process with the recorded start time is touched, so a
    reused process id is never hit. State and weights stay."""
    found = _record(workspace)
    if found is None:
        return False
    was_alive = _alive(found)
    if was_alive:
        _signal(found, signal.SIGTERM)
        until = time.monotonic() + STOP_SECONDS_MAX
        while _alive(found) and time.monotonic() < until:
            time.sleep(0.05)
        if _alive(found):
            _signal(found, signal.SIGKILL)
    (workspace / RECORD).unlink(missing_ok=True)
    return was_alive


def _spawn(config_path: Path, log: Path, environment: Mapping[str, str]) -> int:
    """A session of its own, so that Ctrl-C here does not reach it; standard streams go to the log."""
    arguments = [sys.executable, "-m", "crossload.engines.gateway", "--config", str(config_path.resolve())]
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    return os.posix_spawn(sys.executable, arguments, dict(environment), file_actions=actions, setsid=True)


def _signal(record: Mapping[str, Any], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(record["pid"], number)


def _record(workspace: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((workspace / RECORD).read_text(encoding="utf-8"))
        return found if isinstance(found["pid"], int) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_record(workspace: Path, record: Mapping[str, Any]) -> None:
    write_whole(workspace / RECORD, json.dumps(record))


def _start_ticks(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat: the process's start, in clock ticks since boot. None for a dead one or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    rest = text.rpartition(")")[2].split()
    return None if rest[0] == "Z" else int(rest[19])


def _alive(record: Mapping[str, Any]) -> bool:
    with contextlib.suppress(ChildProcessError, OSError):
        os.waitpid(record["pid"], os.WNOHANG)  # reap it if it was our child, or it would look alive for ever
    ticks = _start_ticks(record["pid"])
    return ticks is not None and ticks == record.get("started_ticks")


def _tail(log: Path) -> str:
    try:
        return " | ".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-4:])
    except OSError:
        return "(no log)"
