"""The tests' own fence: whatever they start, they reach this machine only."""

from __future__ import annotations

import socket

import pytest


@pytest.mark.parametrize(
    "family, address",
    [(socket.AF_INET, ("10.1.2.3", 80)), (socket.AF_INET, ("example.com", 80)), (socket.AF_INET6, ("2001:db8::1", 80))],
)
def test_the_outside_is_out_of_reach(family: socket.AddressFamily, address: tuple[str, int]) -> None:
    for call in ("connect", "connect_ex"):
        with socket.socket(family) as outside, pytest.raises(AssertionError, match="loopback only"):
            getattr(outside, call)(address)


def test_this_machine_is_within_reach() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        with socket.create_connection(server.getsockname()) as client:
            assert client.getpeername() == server.getsockname()
    ends = socket.socketpair()
    for end in ends:
        end.close()
