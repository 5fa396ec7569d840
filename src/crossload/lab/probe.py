"""Is a server ready? Probes ask the server itself, on loopback, with short patience."""

from __future__ import annotations

import socket
import subprocess
import urllib.error
from http import HTTPStatus

from crossload.lab.loopback import direct
from crossload.lab.spec import CommandProbe, HttpProbe, Probe, TcpProbe

_PATIENCE_SECONDS = 1.0


def is_ready(probe: Probe) -> bool:
    """One try. False means "not yet", never an error: the caller decides how long to wait."""
    match probe:
        case HttpProbe():
            return _http(probe)
        case TcpProbe():
            return all(_tcp(port) for port in probe.ports)
        case CommandProbe():
            return _command(probe)


def _http(probe: HttpProbe) -> bool:
    try:
        with direct.open(probe.url, timeout=_PATIENCE_SECONDS) as answer:
            return answer.status == HTTPStatus.OK
    except urllib.error.HTTPError as refusal:
        refusal.close()
        return False
    except Exception:  # noqa: BLE001  # http.client raises its own tree for half-open servers
        return False


def _tcp(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_SECONDS):
            return True
    except OSError:
        return False


def _command(probe: CommandProbe) -> bool:
    try:
        done = subprocess.run(probe.argv, capture_output=True, timeout=_PATIENCE_SECONDS + 2.0, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
