"""Killed at every store call in turn, before and after it took effect: the next pass ends with the same state.

A kill is simulated as hard as the real one. Every thread dies at its next call, and the journal is what was on disk at
that moment: either all that was queued (`late`), or only what the last barrier had waited for (`early`). The truth of a
real kill -9 lies somewhere between the two."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from memory_store import FEATURES, Call, MemoryStore

from crossload.engines.mover.bucket import PassReport, move_bucket
from crossload.engines.mover.options import CopyOptions
from crossload.engines.mover.proof import prove
from crossload.ledger import journal as journal_module
from crossload.ledger.database import connect
from crossload.ledger.journal import Journal

PART = 16
OPTIONS = CopyOptions(part_size_bytes=PART, workers=1)

KINDS = {
    "reporting": (FEATURES, True),
    "reporting-on-head-only": (FEATURES, False),
    "tagless": (replace(FEATURES, tags=False, digests_returned=frozenset({"crc32c"})), True),
    "silent": (replace(FEATURES, digests_returned=frozenset(), digests_verified=frozenset(), versions=False), True),
}


class Killed(BaseException):
    """The process is gone. Not an Exception: nothing in the product may catch it and carry on."""


class CrashJournal(Journal):
    """Remembers what a kill would have left on disk."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._look = connect(path, synchronous="OFF")
        self.disk = self._look.serialize()

    def barrier(self) -> None:
        super().barrier()
        self.disk = self._look.serialize()

    def close(self) -> None:
        super().close()
        self._look.close()


@dataclass
class Scene:
    source: MemoryStore
    target: MemoryStore
    journal: CrashJournal

    def run(self) -> PassReport:
        return move_bucket(self.source, "docs", self.target, "docs", self.journal, OPTIONS)

    def run_until(self, point: int, *, early: bool) -> bool:
        """Run and die at the given call: after it took effect with what the last barrier saved, or before it with
        all that was queued. Between one call's end and the next one's beginning only the journal moves, so that the
        two together are every moment there is. False when the run ended first."""
        seen = 0
        dead = False

        def hook(call: Call) -> None:
            nonlocal seen, dead
            seen += call.when == ("after" if early else "before")
            if seen == point and not dead:
                dead = True
                if not early:
                    self.journal.barrier()
            if dead:
                raise Killed

        self.source.hook = self.target.hook = hook
        try:
            self.run()
        except Killed:
            pass
        finally:
            self.source.hook = self.target.hook = lambda _: None
        if not dead:
            return False
        survived = self.journal.disk
        self.journal.close()
        path = self.journal.path.with_name(f"{point}-{self.journal.path.name}")
        path.write_bytes(survived)
        self.journal = CrashJournal(path)
        return True

    def no_torn_object(self, *versions: dict[str, bytes]) -> None:
        for key, data in self.target.bytes_of("docs").items():
            assert data in [version[key] for version in versions if key in version], f"{key} is torn: {data!r}"


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Scene]]:
    # What is on disk is decided by the copies above, so that hundreds of rounds need no fsync.
    monkeypatch.setattr(journal_module, "connect", lambda path, **_: connect(path, synchronous="OFF"))
    monkeypatch.setattr(journal_module, "_GROUP_SECONDS", 0.0005)
    scenes: list[Scene] = []
    numbers = itertools.count()

    def make(kind: str) -> Scene:
        for scene in scenes:
            scene.journal.close()
        scenes.clear()
        features, listed = KINDS[kind]
        source, target = MemoryStore("a"), MemoryStore("b", features, listed_digests=listed)
        for store in (source, target):
            store.ensure_bucket("docs")
        source.put("docs", "empty", b"")
        source.put("docs", "small", b"small object")
        source.put("docs", "parts", bytes(range(PART * 2 + 5)))
        source.put("docs", "exact", b"e" * (PART * 2))
        scenes.append(Scene(source, target, CrashJournal(tmp_path / f"{next(numbers)}.db")))
        return scenes[0]

    yield make
    for scene in scenes:
        scene.journal.close()


@pytest.mark.parametrize(
    "kind, early",
    [
        ("reporting", True),
        ("reporting", False),
        ("reporting-on-head-only", True),
        ("tagless", True),
        ("tagless", False),
        ("silent", True),
        ("silent", False),
    ],
)
def test_first_copy_killed_at_every_call(stage: Callable[[str], Scene], kind: str, early: bool) -> None:
    point = 0
    while True:
        point += 1
        scene = stage(kind)
        if not scene.run_until(point, early=early):
            break
        expected = scene.source.bytes_of("docs")
        scene.no_torn_object(expected)
        report = scene.run()
        assert scene.target.bytes_of("docs") == expected, point
        assert report.failures == [], point
        assert {entry.key for entry in scene.journal.entries("done")} == set(expected), point
        total = sum(len(data) for data in expected.values())
        assert scene.target.sent_bytes <= total + PART, f"point {point}: {scene.target.sent_bytes} bytes for {total}"
        assert len(scene.target.uploads) <= 1, point  # the one whose opening we did not live to hear of
        assert scene.run().empty, point
        assert prove(scene.target, "docs", scene.journal, reread_sample=1.0).wrong == {}, point
    assert point > 20  # or the hook has not seen the calls it should


@pytest.mark.parametrize(
    "kind, early", [("reporting", True), ("reporting", False), ("tagless", True), ("silent", False)]
)
def test_delta_killed_at_every_call(stage: Callable[[str], Scene], kind: str, early: bool) -> None:
    point = 0
    while True:
        point += 1
        scene = stage(kind)
        scene.run()
        before = scene.source.bytes_of("docs")
        scene.source.put("docs", "small", b"SMALL OBJECT")
        scene.source.put("docs", "parts", bytes(range(100, 100 + PART * 2 + 5)))
        scene.source.put("docs", "added", b"+" * (PART + 1))
        scene.source.drop("docs", "exact")
        if not scene.run_until(point, early=early):
            break
        after = scene.source.bytes_of("docs")
        scene.no_torn_object(before, after)
        report = scene.run()
        assert scene.target.bytes_of("docs") == after, point
        assert report.failures == [], point
        assert scene.run().empty, point
    assert point > 20


@pytest.mark.parametrize("kind", ["reporting", "tagless", "silent"])
def test_the_source_changes_between_the_kill_and_the_next_pass(stage: Callable[[str], Scene], kind: str) -> None:
    """What we wrote before we died is ours, although it is not what the source holds now: it is replaced or removed."""
    point = 0
    while True:
        point += 1
        scene = stage(kind)
        before = scene.source.bytes_of("docs")
        if not scene.run_until(point, early=False):
            break
        scene.source.put("docs", "small", b"SMALL OBJECT")
        scene.source.put("docs", "parts", bytes(range(100, 100 + PART * 2 + 5)))
        scene.source.drop("docs", "exact")
        after = scene.source.bytes_of("docs")
        scene.no_torn_object(before)
        report = scene.run()
        assert report.failures == [], point
        assert scene.target.bytes_of("docs") == after, point
        assert len(scene.target.uploads) <= 1, point
        assert scene.run().empty, point
    assert point > 20


def test_killed_again_and_again(stage: Callable[[str], Scene]) -> None:
    """Progress survives: dying every few calls still ends, and no byte that arrived is sent a second time."""
    scene = stage("reporting")
    rounds = 0
    while scene.run_until(14, early=True):
        rounds += 1
        assert rounds < 20
    assert rounds >= 2
    expected = scene.source.bytes_of("docs")
    assert scene.target.bytes_of("docs") == expected
    assert scene.target.sent_bytes <= sum(len(data) for data in expected.values()) + rounds * PART


def test_resent_bytes_are_reported(stage: Callable[[str], Scene]) -> None:
    """Killed while the second part was under way: that part is sent again, the first is not, and the report says so."""
    scene = stage("reporting")
    for key in ("empty", "small", "exact"):
        scene.source.drop("docs", key)
    sent: list[str] = []

    def die_in_second_part(call: Call) -> None:
        if call.name == "write_part" and call.when == "before":
            sent.append(call.key)
        if len(sent) == 2:
            scene.journal.barrier()
            raise Killed

    scene.target.hook = die_in_second_part
    with pytest.raises(Killed):
        scene.run()
    scene.target.hook = lambda _: None
    report = scene.run()
    assert report.sent_bytes == PART + 5
    assert report.resent_bytes == PART
    assert scene.target.bytes_of("docs") == scene.source.bytes_of("docs")
