"""Is a server ready? Probes ask the server itself, on loopback, with short patience."""

from __future__ import annotations

import socket
import subprocess
import urllib.error
import urllib.request

from crossload.lab.spec import CommandProbe, HttpProbe, Probe, TcpProbe

# Proxies of the environment must never carry a loopback probe elsewhere.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def is_ready(probe: Probe, *, patience_seconds: float = 1.0) -> bool:
    """One try. False means "not yet", never an error: the caller decides how long to wait."""
    match probe:
        case HttpProbe():
            return _http(probe, patience_seconds)
        case TcpProbe():
            return all(_tcp(port, patience_seconds) for port in probe.ports)
        case CommandProbe():
            return _command(probe, patience_seconds)


def _http(probe: HttpProbe, patience_seconds: float) -> bool:
    try:
        with _direct.open(probe.url, timeout=patience_seconds) as answer:
            return answer.status in probe.statuses
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code in probe.statuses
    except (OSError, ValueError):
        return False
    except Exception:  # noqa: BLE001  # http.client raises its own tree for half-open servers
        return False


def _tcp(port: int, patience_seconds: float) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=patience_seconds):
            return True
    except OSError:
        return False


def _command(probe: CommandProbe, patience_seconds: float) -> bool:
    try:
        done = subprocess.run(probe.argv, capture_output=True, timeout=patience_seconds + 2.0, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
