"""A random world in which hints are lost, doubled and swapped, and we are killed anywhere: a full pass finds the truth.

And the other half: with no hint lost, the quick rounds alone bring both sides together, without one listing."""

from __future__ import annotations

import hashlib
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from memory_store import Call, MemoryStore

from crossload.engines.mover.bucket import move_bucket
from crossload.engines.mover.dirty import DirtySet, listen
from crossload.engines.mover.options import CopyOptions
from crossload.engines.mover.quick import Difference, carry, quick_pass
from crossload.ledger.journal import Journal
from crossload.ports.changes import CREATED, REMOVED, Batch, Change

KEYS = [f"k{number}" for number in range(8)]
OPTIONS = CopyOptions(part_size_bytes=16, workers=1, allow_mass_delete=True)


class Killed(BaseException):
    """Not an Exception: nothing in the product may catch it and carry on."""


class Wire:
    """A queue as clouds have it: at least once, in no order; or worse, with `lost` of all messages never sent."""

    def __init__(self, luck: random.Random, lost: float) -> None:
        self.luck, self.lost = luck, lost
        self.messages: dict[str, Change] = {}
        self.sent = 0
        self.kill_before_acknowledge = False

    def send(self, change: Change) -> None:
        for _ in range(0 if self.luck.random() < self.lost else self.luck.choice((1, 1, 1, 2))):
            self.sent += 1
            self.messages[str(self.sent)] = change

    def poll(self, wait_seconds: float) -> Batch:
        some = self.luck.sample(sorted(self.messages), min(len(self.messages), self.luck.randint(1, 4)))
        return Batch(tuple(self.messages[number] for number in some), tuple(some))

    def acknowledge(self, batch: Batch) -> None:
        if self.kill_before_acknowledge:
            raise Killed
        for number in batch.receipts:
            self.messages.pop(number, None)


class World:
    def __init__(self, folder: Path, seed: int, lost: float) -> None:
        self.luck = random.Random(seed)
        self.folder = folder
        self.source, self.target = MemoryStore("a"), MemoryStore("b")
        for store in (self.source, self.target):
            store.ensure_bucket("docs")
        self.wire = Wire(self.luck, lost)
        self.clock = 0
        self.journal = Journal(folder / "journal.db")
        self.dirty = DirtySet(folder / "dirty.db")

    def close(self) -> None:
        self.dirty.close()
        self.journal.close()

    # -- what happens

    def user(self) -> None:
        """Somebody writes or deletes at the source, and the store tells of it, perhaps."""
        self.clock += 1
        key = self.luck.choice(KEYS)
        if self.luck.random() < 0.3:
            if key in self.source.objects["docs"]:
                self.source.drop("docs", key)
                self.wire.send(Change(key, REMOVED, float(self.clock), sequence=f"{self.clock:06d}", size_bytes=0))
            return
        info = self.source.put("docs", key, self.luck.randbytes(self.luck.randint(0, 40)))
        told = info.etag if self.luck.random() < 0.7 else ""
        self.wire.send(Change(key, CREATED, float(self.clock), told, f"{self.clock:06d}", info.size_bytes))

    def listen(self) -> None:
        self.wire.kill_before_acknowledge = self.luck.random() < 0.2
        try:
            listen(self.wire, self.dirty, self.journal, 0)
        except Killed:
            self.restart()

    def round(self, *, may_die: bool = True) -> None:
        left = self.luck.randint(1, 30) if may_die and self.luck.random() < 0.4 else -1

        def hook(call: Call) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed
            if may_die and call.name == "write" and self.luck.random() < 0.1:
                self.user()  # while we copy

        self.source.hook = self.target.hook = hook
        try:
            carry(
                self.source, "docs", self.target, "docs", self.journal, self.dirty, self.copy, limit=3, workers=1,
                allow_mass_delete=True,
            )  # fmt: skip
        except Killed:
            self.restart()
        finally:
            self.source.hook = self.target.hook = lambda _: None

    def copy(self, wanted: Sequence[Difference]) -> set[str]:
        arrived: set[str] = set()
        for one in wanted:
            entry = one.entry()
            held = self.source.objects["docs"].get(one.key)
            if held is None or held.info.etag != entry.source_etag:
                continue  # changed since the look: it stays dirty
            there = one.target.etag if one.target else ""
            info = self.target.write("docs", one.key, held.data, held.meta, if_absent=not there, if_match=there)
            digest = hashlib.sha256(held.data).hexdigest()
            self.journal.put(entry.with_(state="done", sha256=digest, target_etag=info.etag, trust="sent"))
            arrived.add(one.key)
        self.journal.barrier()
        return arrived

    def full_pass(self, *, busy: bool) -> bool:
        mark = self.dirty.mark()
        self.source.hook = lambda call: self.user() if busy and call.name == "list" else None
        try:
            report = move_bucket(self.source, "docs", self.target, "docs", self.journal, OPTIONS)
        finally:
            self.source.hook = lambda _: None
        self.dirty.settle(mark, float(self.clock), 1.0, unless=report.hot, complete=not report.failures)
        assert report.failures == []
        return report.empty

    def look(self) -> None:
        """What a quick look calls the same is the same, bytes for bytes."""
        taken = self.dirty.take(3)
        found = quick_pass(self.source, "docs", self.target, "docs", self.journal, taken, workers=1)
        for item in found.same:
            assert self.source.bytes_of("docs").get(item.key) == self.target.bytes_of("docs").get(item.key), item.key
        self.dirty.release(taken)

    def restart(self) -> None:
        self.close()
        self.journal = Journal(self.folder / "journal.db")
        self.dirty = DirtySet(self.folder / "dirty.db")

    # -- how it ends

    def live(self, steps: int) -> None:
        for _ in range(steps):
            what = self.luck.random()
            if what < 0.45:
                self.user()
            elif what < 0.7:
                self.listen()
            elif what < 0.85:
                self.round()
            elif what < 0.95:
                self.look()
            else:
                self.full_pass(busy=True)

    def drain(self) -> None:
        while self.wire.messages or self.dirty.keys():
            self.wire.kill_before_acknowledge = False
            listen(self.wire, self.dirty, self.journal, 0)
            self.round(may_die=False)

    def equal(self) -> bool:
        return self.source.bytes_of("docs") == self.target.bytes_of("docs")


@settings(max_examples=24)
@given(seed=st.integers(0, 2**32), lost=st.sampled_from((0.0, 0.3, 1.0)), drain=st.booleans())
def test_a_full_pass_finds_whatever_the_hints_did_not(seed: int, lost: float, drain: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), seed, lost)
        try:
            world.live(60)
            if drain:
                world.drain()
            world.full_pass(busy=False)
            assert world.equal()
            assert world.full_pass(busy=False), "the second finds nothing left to do"
            assert world.equal()
        finally:
            world.close()


@settings(max_examples=16)
@given(seed=st.integers(0, 2**32))
def test_with_no_hint_lost_the_quick_rounds_are_enough(seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), seed, lost=0.0)
        try:
            world.live(60)
            listings = sum(name == "list" for name, _ in [*world.source.log, *world.target.log])
            world.drain()
            assert world.equal()
            assert world.dirty.lag().keys == 0
            assert sum(name == "list" for name, _ in [*world.source.log, *world.target.log]) == listings
            assert world.full_pass(busy=False), "a full pass has nothing to add"
        finally:
            world.close()
