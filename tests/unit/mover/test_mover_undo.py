"""Proof that stays true until somebody mends, undo that takes back what we wrote and nothing else, and the freeze."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from memory_store import Call, MemoryStore

from crossload.engines.mover.bucket import move_bucket
from crossload.engines.mover.freezing import freeze, unfreeze
from crossload.engines.mover.options import CopyOptions
from crossload.engines.mover.proof import prove_copy
from crossload.engines.mover.removal import remove_copy
from crossload.ledger.journal import Journal
from crossload.ports.errors import Unsupported

OPTIONS = CopyOptions(part_size_bytes=64, workers=1)


@pytest.fixture
def journal(source: MemoryStore, target: MemoryStore, open_journal: Callable[..., Journal]) -> Journal:
    for key, size in (("a", 5), ("b", 70), ("c/d", 200)):
        source.put("docs", key, key.encode()[:1] * size)
    made = open_journal()
    move_bucket(source, "docs", target, "docs", made, OPTIONS)
    return made


def test_what_is_wrong_is_named_until_it_is_mended(source: MemoryStore, target: MemoryStore, journal: Journal) -> None:
    target.flip("docs", "b", 7)
    target.drop("docs", "a")
    target.put("docs", "stranger", b"s")
    for _ in range(3):  # the second look must not be kinder than the first
        report = prove_copy(target, "docs", journal, reread_sample=0.0)
        assert set(report.wrong) == {"a", "b"}
        assert report.extra == ["stranger"]
    assert move_bucket(source, "docs", target, "docs", journal, OPTIONS).copied == 2
    assert prove_copy(target, "docs", journal, reread_sample=1.0).wrong == {}
    assert target.bytes_of("docs") == source.bytes_of("docs") | {"stranger": b"s"}


def test_what_never_arrived_is_wrong(source: MemoryStore, target: MemoryStore, journal: Journal) -> None:
    class Killed(Exception):
        pass

    def die(call: Call) -> None:
        if call.name == "write" and call.key == "new":
            raise Killed

    source.put("docs", "new", b"new")
    target.hook = die
    with pytest.raises(Killed):
        move_bucket(source, "docs", target, "docs", journal, OPTIONS)
    target.hook = lambda _: None
    assert set(prove_copy(target, "docs", journal, reread_sample=0.0).wrong) == {"new"}


def test_a_proof_under_a_prefix_sees_its_own_keys_only(
    source: MemoryStore, target: MemoryStore, open_journal: Callable[..., Journal]
) -> None:
    for key in ("models/m", "docs/d"):
        source.put("docs", key, b"x")
        target.put("docs", f"{key}-foreign", b"x")
    journal = open_journal()
    move_bucket(source, "docs", target, "docs", journal, OPTIONS, prefix="models/")
    report = prove_copy(target, "docs", journal, reread_sample=0.0, prefix="models/")
    assert (report.objects, report.wrong, report.extra) == (1, {}, ["models/m-foreign"])


def test_undo_removes_what_we_wrote_and_keeps_what_others_did(target: MemoryStore, journal: Journal) -> None:
    target.put("docs", "b", b"edited at the target")
    target.put("docs", "stranger", b"s")
    report = remove_copy(target, "docs", journal)
    assert (report.removed, report.kept) == (2, 1)
    assert target.bytes_of("docs") == {"b": b"edited at the target", "stranger": b"s"}
    again = remove_copy(target, "docs", journal)
    assert (again.removed, again.kept) == (0, 1)


def test_undo_of_a_pass_that_was_killed_leaves_nothing(
    source: MemoryStore, target: MemoryStore, open_journal: Callable[..., Journal]
) -> None:
    """Cut off after every call in turn: the object that had just become visible, and the open upload, go too."""

    class Killed(Exception):
        pass

    for key, size in (("a", 5), ("b", 130)):
        source.put("docs", key, key.encode() * size)
    for point in range(1, 60):
        journal = open_journal(f"{point}.db")
        seen = 0

        def die(call: Call, at: int = point) -> None:
            nonlocal seen
            seen += call.when == "after"
            if seen >= at:
                raise Killed

        target.hook = die
        try:
            move_bucket(source, "docs", target, "docs", journal, OPTIONS)
        except Killed:
            ended = False
        else:
            ended = True
        target.hook = lambda _: None
        opening = target.log[-1][0] == "open_upload"  # nobody heard its id any more
        remove_copy(target, "docs", journal)
        assert target.bytes_of("docs") == {}, point
        assert len(target.uploads) == (1 if opening else 0), point
        target.uploads.clear()
        if ended:
            return
    pytest.fail("it never came through")


def test_undo_when_the_bucket_is_gone(target: MemoryStore, journal: Journal) -> None:
    target.objects.pop("docs")
    report = remove_copy(target, "docs", journal)
    assert (report.removed, report.kept) == (0, 0)


def test_undo_meets_a_writer(target: MemoryStore, journal: Journal) -> None:
    def writer(call: Call) -> None:
        if call.when == "before" and (call.name, call.key) == ("delete", "b"):
            target.put("docs", "b", b"just now")

    target.hook = writer
    report = remove_copy(target, "docs", journal)
    assert (report.removed, report.kept) == (2, 1)
    assert target.bytes_of("docs") == {"b": b"just now"}


# -- the freeze ------------------------------------------------------------------------------------------------------


class Guard(MemoryStore):
    """A store that can deny writes."""

    frozen = 0
    thawed: tuple[str, ...] = ()

    def freeze(self, bucket: str) -> str:
        self.frozen += 1
        return "the policy before"

    def thaw(self, bucket: str, token: str) -> None:
        self.thawed = (*self.thawed, token)


def test_a_freeze_ends_when_two_passes_found_nothing(
    source: MemoryStore, target: MemoryStore, journal: Journal
) -> None:
    source.put("docs", "late", b"written just before the freeze")
    guard = Guard()
    report = freeze(guard, source, target, "docs", journal, OPTIONS)
    assert (report.enforced, report.converged, report.token) == (True, True, "the policy before")
    assert [item.copied for item in report.passes] == [1, 0, 0]
    assert report.carried == 1
    assert (guard.frozen, guard.thawed) == (1, ())
    assert target.bytes_of("docs") == source.bytes_of("docs")


def test_a_freeze_that_does_not_hold_is_lifted(source: MemoryStore, target: MemoryStore, journal: Journal) -> None:
    """Somebody still writes: the cutover fails, and the users are not left locked out."""
    numbers = iter(range(10_000))

    def writer(call: Call) -> None:
        if call.name == "list" and call.when == "before":
            source.put("docs", "log", b"%d" % next(numbers))

    source.hook = writer
    guard = Guard()
    report = freeze(guard, source, target, "docs", journal, OPTIONS)
    assert not report.converged
    assert guard.thawed == ("the policy before",)


def test_a_freeze_cut_short_is_lifted(source: MemoryStore, target: MemoryStore, journal: Journal) -> None:
    def interrupt(call: Call) -> None:
        raise KeyboardInterrupt

    source.hook = interrupt
    guard = Guard()
    with pytest.raises(KeyboardInterrupt):
        freeze(guard, source, target, "docs", journal, OPTIONS)
    assert guard.thawed == ("the policy before",)


def test_a_store_that_cannot_freeze_is_said_not_to(source: MemoryStore, target: MemoryStore, journal: Journal) -> None:
    with pytest.raises(Unsupported):
        MemoryStore().freeze("docs")
    report = freeze(MemoryStore(), source, target, "docs", journal, OPTIONS)
    assert (report.enforced, report.converged, report.why) == (False, True, "memory cannot freeze")


def test_lifting_the_freeze_brings_the_users_work_back(
    source: MemoryStore, target: MemoryStore, journal: Journal
) -> None:
    guard = Guard()
    frozen = freeze(guard, source, target, "docs", journal, OPTIONS)
    target.put("docs", "a", b"edited at the target")
    report = unfreeze(guard, source, target, "docs", journal, frozen.token)
    assert guard.thawed == ("the policy before",)
    assert report.returned == ["a"]
    assert source.bytes_of("docs") == target.bytes_of("docs")
