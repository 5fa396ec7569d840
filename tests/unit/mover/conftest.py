"""The mover's tests share two stores in memory; `import memory_store` finds them beside this file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from memory_store import MemoryStore

from crossload.ledger.journal import Journal


@pytest.fixture
def source() -> MemoryStore:
    """A store with tags, user metadata and crc64nvme, like the one a team leaves."""
    store = MemoryStore("a")
    store.ensure_bucket("docs")
    return store


@pytest.fixture
def target() -> MemoryStore:
    store = MemoryStore("b")
    store.ensure_bucket("docs")
    return store


@pytest.fixture
def open_journal(tmp_path: Path) -> Iterator[Callable[..., Journal]]:
    """Journals of this test, closed at its end."""
    opened: list[Journal] = []

    def make(name: str = "journal.db") -> Journal:
        opened.append(Journal(tmp_path / name))
        return opened[-1]

    yield make
    for journal in opened:
        journal.close()
