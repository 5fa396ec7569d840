"""Servers for the suites, and the one way in which a verdict becomes a pytest result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from crossload.conformance.case import Case, judge
from crossload.lab import Lab

_SERVERS = ("seaweedfs", "fake-gcs", "envoy", "issuer", "azurite", "postgres-a", "postgres-b")


@pytest.fixture(scope="session")
def conformance_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The lab with the servers that keep data, in a folder of its own."""
    from crossload.lab.table import all_servers

    lab = Lab(tmp_path_factory.mktemp("conformance-lab"))
    lab.up(only=[name for name in _SERVERS if name in all_servers()])
    try:
        yield lab
    finally:
        lab.down(purge=True)


@pytest.fixture(scope="session")
def need(conformance_lab: Lab) -> Callable[..., None]:
    """Skip unless these servers of the lab are up; a server that is installed and failed is an error, not a skip."""

    def check(*names: str) -> None:
        state = {server.name: server for server in conformance_lab.status()}
        for name in names:
            if name not in state:
                pytest.skip(f"this lab has no {name}")
            if state[name].state == "not-installed":
                pytest.skip(f"{name}: {state[name].hint}")
            if state[name].state != "up":
                pytest.fail(
                    f"{name} is {state[name].state}: {state[name].hint}\n" + "\n".join(conformance_lab.logs(name))
                )

    return check


@pytest.fixture(scope="session")
def keeps() -> Callable[[Case[Any], Any, Mapping[str, str]], None]:
    """keeps(case, bench, known): pass, skip what is not offered, xfail what is known to deviate, fail the rest."""

    def check(case: Case[Any], bench: Any, known: Mapping[str, str]) -> None:
        verdict = judge(case, bench, known)
        if verdict.result == "not-offered":
            pytest.skip(verdict.detail)
        if verdict.result == "known":
            pytest.xfail(verdict.detail)
        if verdict.result != "kept":
            pytest.fail(f"{case.promise}\n{verdict.detail}", pytrace=False)

    return check
