"""LocalStore in a folder of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from crossload.conformance.store import CASES, Case, StoreBench
from crossload.estate.place import Place
from crossload.ports.provider import Settings
from crossload.providers.local.store import open_store


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreBench]:
    connection = {"root": str(tmp_path_factory.mktemp("local"))}
    settings = Settings(Place("disk", "local", "here", "DE", connection), connection, {})
    made = StoreBench(open=lambda: open_store(settings), many_keys=300)
    yield made
    made.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_local(case: Case[StoreBench], bench: StoreBench, keeps: Callable[..., None]) -> None:
    keeps(case, bench, {})
