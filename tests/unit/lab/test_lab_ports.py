"""Ports are picked free, claimed, kept, and never shared by two labs."""

from __future__ import annotations

import socket

from crossload.lab.ports import PortClaims, is_free

WANTED = {"one": ("api", "admin"), "two": ("api", "api+1")}


def _all(chosen: dict[str, dict[str, int]]) -> list[int]:
    return [port for names in chosen.values() for port in names.values()]


def test_two_labs_never_get_the_same_port() -> None:
    # The same seed would pick the same numbers, were it not for the claims.
    first, second = PortClaims(seed=7), PortClaims(seed=7)
    try:
        mine, others = first.pick(WANTED, {}), second.pick(WANTED, {})
        assert len(set(_all(mine) + _all(others))) == 8
    finally:
        first.release()
        second.release()


def test_neighbour_port_is_the_next_one() -> None:
    claims = PortClaims()
    chosen = claims.pick(WANTED, {})
    claims.release()
    assert chosen["two"]["api+1"] == chosen["two"]["api"] + 1


def test_ports_of_an_earlier_run_are_kept_while_they_are_free() -> None:
    claims = PortClaims()
    before = claims.pick(WANTED, {})
    claims.release()
    assert claims.pick(WANTED, before) == before
    claims.release()


def test_a_port_that_somebody_took_meanwhile_is_replaced() -> None:
    claims = PortClaims()
    before = claims.pick(WANTED, {})
    claims.release()
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", before["one"]["api"]))
        squatter.listen()
        assert not is_free(before["one"]["api"])
        after = claims.pick(WANTED, before)
    claims.release()
    assert after["one"]["api"] != before["one"]["api"]
    assert after["one"]["admin"] == before["one"]["admin"]
    assert after["two"] == before["two"]


def test_ports_lie_outside_the_range_of_outgoing_connections() -> None:
    claims = PortClaims()
    chosen = claims.pick({"many": tuple(f"p{number}" for number in range(50))}, {})
    claims.release()
    with open("/proc/sys/net/ipv4/ip_local_port_range") as text:  # noqa: PTH123
        low, high = map(int, text.read().split())
    assert not [port for port in _all(chosen) if low <= port <= high]
