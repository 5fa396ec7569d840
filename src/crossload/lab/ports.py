"""Free ports, picked together and claimed, so that two labs on one machine never meet."""

from __future__ import annotations

import random
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

_EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 15000


class PortClaims:
    """Ports of one lab. A claim is an abstract unix socket: it has no file and ends with the process that holds it.

    Binding a port to see that it is free proves nothing a moment later. The claim keeps other labs away for good,
    and picking below the ephemeral range keeps outgoing connections of any process from taking the port.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._random = random.Random(seed)  # noqa: S311  # spreads labs apart, guards nothing
        self._held: dict[int, socket.socket] = {}

    def pick(
        self, wanted: Mapping[str, Sequence[str]], before: Mapping[str, Mapping[str, int]]
    ) -> dict[str, dict[str, int]]:
        """Server -> port name -> port. Ports of an earlier run are kept where they are still free.

        A name such as "api+1" is the port after "api": some servers take it without being asked.
        """
        return {server: self._of_server(names, before.get(server, {})) for server, names in wanted.items()}

    def _of_server(self, names: Sequence[str], before: Mapping[str, int]) -> dict[str, int]:
        chosen: dict[str, int] = {}
        for name in names:
            if name.endswith("+1"):
                continue
            width = 2 if f"{name}+1" in names else 1
            old = before.get(name)
            first = old if old is not None and self._claim_row(old, width) else self._fresh(width)
            chosen[name] = first
            if width == 2:
                chosen[f"{name}+1"] = first + 1
        return chosen

    def release(self) -> None:
        for claim in self._held.values():
            claim.close()
        self._held.clear()

    def _fresh(self, width: int) -> int:
        for _ in range(2000):
            port = self._random.randrange(_LOWEST, _highest())
            if self._claim_row(port, width):
                return port
        raise OSError(f"no free port found between {_LOWEST} and {_highest()}")

    def _claim_row(self, port: int, width: int) -> bool:
        wanted = range(port, port + width)
        if any(one in self._held for one in wanted):
            return False
        for one in wanted:
            if not self._claim(one):
                for taken in range(port, one):
                    self._held.pop(taken).close()
                return False
        return True

    def _claim(self, port: int) -> bool:
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            claim.bind(f"\0crossload-lab-port-{port}")
        except OSError:
            claim.close()
            return False
        if not is_free(port):
            claim.close()
            return False
        self._held[port] = claim
        return True


def is_free(port: int) -> bool:
    """True when a server could bind 127.0.0.1:port now (with SO_REUSEADDR, as servers do: TIME_WAIT does not count)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _highest() -> int:
    try:
        low = int(_EPHEMERAL_RANGE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 32000
    return low if low > _LOWEST + 2000 else 60000
