"""One pass over one bucket: what is at the target afterwards is what the source lists, or the report says why not."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from memory_store import FEATURES, Call, MemoryStore

from crossload.engines.mover.bucket import PassReport, move_bucket, older_versions
from crossload.engines.mover.calendar import Calendar
from crossload.engines.mover.options import CopyOptions, Watcher
from crossload.engines.mover.proof import prove
from crossload.ledger.journal import Journal
from crossload.ports.errors import AccessDenied, DigestMismatch, Refused, Unavailable
from crossload.ports.store import ObjectInfo, ObjectMeta

PART = 64
SMALL = CopyOptions(part_size_bytes=PART, workers=3)
OpenJournal = Callable[..., Journal]


def fill(store: MemoryStore, bucket: str = "docs") -> None:
    """Empty, small, exactly one part, exactly two parts, odd sizes; awkward keys."""
    for number, size in enumerate((0, 1, PART - 1, PART, PART + 1, 2 * PART, 5 * PART + 17)):
        store.put(bucket, f"plain/{number:02d}", bytes((number + i) % 251 for i in range(size)))
    meta = ObjectMeta(
        "text/html; charset=utf-8", "no-store", 'attachment; filename="q"', "", "de",
        {"revision": "r7"}, {"team": "support", "stage": "prod"},
    )  # fmt: skip
    store.put(bucket, "meta/page.html", b"<p>hello</p>", meta)
    for key in ("a b", "ünï/日本", "x//y", "tail/", "../up", "new\nline", "back\\slash", "-dash", "plus+%20", "😀"):
        store.put(bucket, key, key.encode())


def move(source: MemoryStore, target: MemoryStore, journal: Journal, options: CopyOptions = SMALL) -> PassReport:
    return move_bucket(source, "docs", target, "docs", journal, options)


def test_everything_arrives_with_its_metadata_and_a_digest(
    source: MemoryStore, target: MemoryStore, open_journal: OpenJournal
) -> None:
    fill(source)
    journal = open_journal()
    report = move(source, target, journal)
    assert target.contents("docs") == source.contents("docs")
    assert (report.listed, report.copied, report.failures, report.hot) == (17 + 1, 18, [], [])
    assert report.sent_bytes == sum(len(data) for data in source.bytes_of("docs").values())
    assert report.resent_bytes == 0
    for entry in journal.entries():
        assert entry.state == "done"
        assert entry.sha256 == hashlib.sha256(source.bytes_of("docs")[entry.key]).hexdigest()
        assert entry.trust == "stored"
        assert entry.upload == ""
    assert not target.uploads


def test_a_second_pass_finds_nothing_to_do(source: MemoryStore, target: MemoryStore, open_journal: OpenJournal) -> None:
    fill(source)
    journal = open_journal()
    move(source, target, journal)
    target.log.clear()
    before = target.sent_bytes
    again = move(source, target, journal)
    assert again.empty
    assert again.kept == 18
    assert target.sent_bytes == before
    assert {name for name, _ in target.log} == {"list", "list-item"}


def test_a_store_without_tags_keeps_them_and_gives_them_back(open_journal: OpenJournal) -> None:
    first, middle, back = MemoryStore("a"), MemoryStore("b", replace(FEATURES, tags=False)), MemoryStore("c")
    for store in (first, middle, back):
        store.ensure_bucket("docs")
    meta = ObjectMeta(
        "text/plain", user={"revision": "r7"}, tags={"team": "support", "Cost Centre": "17/b", "größe": "1"}
    )
    first.put("docs", "tagged", b"x", meta)
    report = move(first, middle, open_journal("there.db"))
    assert list(report.losses) == ["3 tag(s) kept as user metadata crossload-tag-*"]
    assert middle.contents("docs")["tagged"][1].tags == {}
    move(middle, back, open_journal("back.db"))
    assert back.contents("docs") == first.contents("docs")


def test_a_delta_carries_additions_changes_and_deletions(
    source: MemoryStore, target: MemoryStore, open_journal: OpenJournal
) -> None:
    fill(source)
    journal = open_journal()
    move(source, target, journal)
    source.put("docs", "added", b"new")
    source.put("docs", "plain/06", b"shorter now")
    source.put("docs", "plain/01", b"z" * (3 * PART))
    source.put("docs", "meta/page.html", b"<p>hello</p>", ObjectMeta("text/plain", user={"revision": "r8"}))
    source.drop("docs", "a b")
    report = move(source, target, journal)
    assert target.contents("docs") == source.contents("docs")
    assert (report.copied, report.removed, report.kept) == (4, 1, 14)
    assert journal.totals()["gone"][0] == 1
    assert move(source, target, journal).empty


def test_an_object_that_comes_back_after_its_deletion_is_carried_again(
    source: MemoryStore, target: MemoryStore, open_journal: OpenJournal
) -> None:
    journal = open_journal()
    source.put("docs", "one", b"1")
    move(source, target, journal)
    source.drop("docs", "one")
    move(source, target, journal)
    assert target.bytes_of("docs") == {}
    source.put("docs", "one", b"1 again")
    move(source, target, journal)
    assert target.bytes_of("docs") == {"one": b"1 again"}


def test_only_the_prefix_is_touched(source: MemoryStore, target: MemoryStore, open_journal: OpenJournal) -> None:
    journal = open_journal()
    for key in ("models/a.gguf", "docs/b"):
        source.put("docs", key, key.encode())
    target.put("docs", "docs/other", b"not ours")
    move_bucket(source, "docs", target, "docs", journal, SMALL, prefix="models/")
    assert target.bytes_of("docs") == {"models/a.gguf": b"models/a.gguf", "docs/other": b"not ours"}
    source.drop("docs", "models/a.gguf")
    move_bucket(source, "docs", target, "docs", journal, SMALL, prefix="models/")
    assert target.bytes_of("docs") == {"docs/other": b"not ours"}


# -- others' objects -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [9, 5 * PART])
def test_a_foreign_object_at_the_target_is_never_overwritten(
    source: MemoryStore, target: MemoryStore, open_journal: OpenJournal, size: int
) -> None:
    source.put("docs", "taken", b"m" * size)
    source.put("docs", "free", b"free")
    target.put("docs", "taken", b"f" * size)
    report = move(source, target, open_journal())
    assert target.bytes_of("docs") == {"taken": b"f" * size, "free": b"free"}
    assert len(report.failures) == 1
    assert report.failures[0].startswith("taken: ")
    assert "did not write" in report.failures[0]
    assert not target.uploads
    assert target.sent_bytes == 4


def test_equal_bytes_at_the_target_are_recognised_and_not_sent(
    source: MemoryStore, target: MemoryStore, open_journal: OpenJournal
) -> None:
    source.put("docs", "same", b"same bytes", ObjectMeta("text/plain", user={"revision": "r7"}))
    target.put("docs", "same", b"same bytes", ObjectMeta("text/plain"))
    report = move(source, target, open_journal())
    assert (report.recognised, report.copied, target.sent_bytes) == (1, 0, 0)
    assert list(report.losses) == ["equal bytes were at the target already, with other metadata, which stays"]


def test_recognised_objects_are_counted_as_such_while_others_are_being_sent(
    source: MemoryStore, target: MemoryStore, open_journal: OpenJournal
) -> None:
    """The counts come from each object, not from a shared total that other workers change meanwhile."""
    for number in range(40):
        source.put("docs", f"same-{number}", b"%02d" % number)
        target.put("docs", f"same-{number}", b"%02d" % number)
        source.put("docs", f"new-{number}", b"%02d" % number)
    source.hook = lambda call: time.sleep(0.002) if call.name == "read" and call.when == "before" else None
    report = move(source, target, open_journal(), CopyOptions(part_size_bytes=PART, workers=8))
    assert (report.recognised, report.copied) == (40, 40)


@pytest.mark.parametrize("size", [9, 5 * PART])
def test_a_stranger_who_writes_during_the_copy_keeps_his_object(
    source: MemoryStore, target: MemoryStore, open_journal: OpenJournal, size: int
) -> None:
    source.put("docs", "raced", b"m" * size)

    def stranger(call: Call) -> None:
        if call.name in ("write", "complete") and call.when == "before" and not target.bytes_of("docs"):
            target.put("docs", "raced", b"stranger")

    target.hook = stranger
    report = move(source, target, open_journal())
    assert target.bytes_of("docs") == {"raced": b"stranger"}
    assert "somebody else" in report.failures[0]
    assert not target.uploads


def test_an_object_changed_at_the_target_is_not_removed_when_the_source_loses_it(
    source: MemoryStore, target: MemoryStore, open_journal: OpenJournal
) -> None:
    journal = open_journal()
    for key in ("one", "two"):
        source.put("docs", key, key.encode())
    move(source, target, journal)
    target.put("docs", "one", b"edited at the target")
    source.drop("docs", "one")
    source.put("docs", "two", b"two, second edition")
    report = move(source, target, journal)
    assert target.bytes_of("docs") == {"one": b"edited at the target", "two": b"two, second edition"}
    assert report.failures == ["one: gone at the source, but changed at the target since we wrote it"]
    assert not report.empty


# -- deletions -------------------------------------------------------------------------------------------------------


def test_a_mass_delete_asks_first_and_changes_nothing(
    source: MemoryStore, target: MemoryStore, open_journal: OpenJournal
) -> None:
    journal = open_journal()
    for number in range(10):
        source.put("docs", f"{number}", b"x")
    move(source, target, journal)
    for number in range(2):
        source.drop("docs", f"{number}")
    source.put("docs", "added", b"new")
    with pytest.raises(Refused, match="lost 2 of 10 objects") as refused:
        move(source, target, journal)
    assert "allow_mass_delete" in refused.value.hint
    assert len(target.bytes_of("docs")) == 10
    report = move(source, target, journal, replace(SMALL, allow_mass_delete=True))
    assert report.removed == 2
    assert target.bytes_of("docs") == source.bytes_of("docs")


def test_an_emptied_source_does_not_empty_the_target(
    source: MemoryStore, target: MemoryStore, open_journal: OpenJournal
) -> None:
    journal = open_journal()
    fill(source)
    move(source, target, journal)
    source.objects["docs"].clear()
    with pytest.raises(Refused):
        move(source, target, journal)
    assert len(target.bytes_of("docs")) == 18


# -- damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("listed_digests", [True, False])
@pytest.mark.parametrize("returned", [frozenset({"crc64nvme"}), frozenset({"crc32c"}), frozenset()])
def test_a_flipped_byte_is_named_by_the_proof_and_mended_by_the_next_pass(
    source: MemoryStore, open_journal: OpenJournal, returned: frozenset[str], listed_digests: bool
) -> None:
    features = replace(FEATURES, digests_returned=returned, digests_verified=returned)
    target = MemoryStore("b", features, listed_digests=listed_digests)
    target.ensure_bucket("docs")
    fill(source)
    journal = open_journal()
    move(source, target, journal)
    whole = prove(target, "docs", journal, reread_sample=0.0)
    assert (whole.objects, whole.wrong, whole.extra) == (18, {}, [])
    assert (whole.compared, whole.reread) == ((18, 0) if returned else (0, 18))
    target.flip("docs", "plain/06", 100)
    target.drop("docs", "😀")
    target.put("docs", "plain/02", b"short")
    target.put("docs", "stranger", b"s")
    report = prove(target, "docs", journal, reread_sample=0.0)
    assert set(report.wrong) == {"plain/06", "plain/02", "😀"}
    assert report.wrong["😀"] == "missing at the target"
    assert report.extra == ["stranger"]
    for key in report.wrong:  # what the stage does with what the proof found
        entry = journal.get(key)
        assert entry is not None
        there = target.bytes_of("docs").get(key)
        etag = target.head("docs", key)[0].etag if there is not None else ""
        journal.put(entry.with_(state="pending", source_etag="", target_etag=etag))
    journal.barrier()
    mended = move(source, target, journal)
    assert mended.copied == 3
    expected = source.bytes_of("docs") | {"stranger": b"s"}
    assert target.bytes_of("docs") == expected


def test_the_sample_is_read_back_even_when_digests_agree(
    source: MemoryStore, target: MemoryStore, open_journal: OpenJournal
) -> None:
    """A store may report the digest it computed on the way in and have lost the bytes since."""
    fill(source)
    journal = open_journal()
    move(source, target, journal)
    held = target.objects["docs"]["plain/06"]
    target.objects["docs"]["plain/06"] = replace(held, data=b"?" * len(held.data))  # rot: etag and digest unchanged
    assert prove(target, "docs", journal, reread_sample=0.0).wrong == {}
    report = prove(target, "docs", journal, reread_sample=1.0)
    assert set(report.wrong) == {"plain/06"}
    assert report.reread == 18


class LyingStore(MemoryStore):
    """Loses a byte of the first write of a key on its way in."""

    lies = 1

    def _place(self, bucket: str, key: str, data: bytes, meta: ObjectMeta) -> ObjectInfo:
        if self.lies and key == "lied":
            self.lies -= 1
            data = data[:-1] + bytes([data[-1] ^ 0xFF])
        return super()._place(bucket, key, data, meta)


@pytest.mark.parametrize("size", [9, 3 * PART])
@pytest.mark.parametrize("returned", [frozenset({"crc64nvme"}), frozenset()])
def test_bytes_damaged_on_the_way_do_not_count_and_the_next_pass_mends_them(
    source: MemoryStore, open_journal: OpenJournal, size: int, returned: frozenset[str]
) -> None:
    features = replace(FEATURES, digests_returned=returned, digests_verified=frozenset())
    target = LyingStore("b", features)
    target.ensure_bucket("docs")
    source.put("docs", "lied", b"m" * size)
    journal = open_journal()
    report = move(source, target, journal)
    assert len(report.failures) == 1
    assert not list(journal.entries("done"))
    assert move(source, target, journal).failures == []
    assert target.bytes_of("docs") == source.bytes_of("docs")
    assert next(journal.entries("done")).trust == ("stored" if returned else "reread")


def test_a_store_that_tells_and_checks_no_digest_is_read_back(source: MemoryStore, open_journal: OpenJournal) -> None:
    target = MemoryStore("b", replace(FEATURES, digests_returned=frozenset(), digests_verified=frozenset()))
    target.ensure_bucket("docs")
    fill(source)
    journal = open_journal()
    move(source, target, journal)
    assert {entry.trust for entry in journal.entries("done")} == {"reread"}
    checked = MemoryStore("c", replace(FEATURES, digests_returned=frozenset()))
    checked.ensure_bucket("docs")
    journal = open_journal("checked.db")
    move(source, checked, journal)
    assert {entry.trust for entry in journal.entries("done")} == {"sent"}


# -- limits ----------------------------------------------------------------------------------------------------------


def test_parts_grow_when_the_target_takes_no_more_of_them(source: MemoryStore, open_journal: OpenJournal) -> None:
    """10,000 parts of 16 MiB end at 156 GiB; a larger object needs larger parts, not an error after hours."""
    target = MemoryStore("b", replace(FEATURES, parts_max=4))
    target.ensure_bucket("docs")
    data = bytes(range(256)) * (10 * 2**20 // 256)
    source.put("docs", "large", data)
    report = move(source, target, open_journal(), CopyOptions(part_size_bytes=2**20, workers=1))
    assert report.failures == []
    assert target.bytes_of("docs")["large"] == data
    assert [name for name, _ in target.log].count("write_part") == 4


def test_parts_are_not_smaller_than_the_target_takes(source: MemoryStore, open_journal: OpenJournal) -> None:
    target = MemoryStore("b", replace(FEATURES, part_size_bytes_min=100))
    target.ensure_bucket("docs")
    source.put("docs", "large", b"x" * 450)
    assert move(source, target, open_journal()).failures == []
    assert target.bytes_of("docs")["large"] == b"x" * 450


def test_bandwidth_is_held(source: MemoryStore, target: MemoryStore, open_journal: OpenJournal) -> None:
    for number in range(8):
        source.put("docs", f"{number}", b"x" * 1000)
    began = time.monotonic()
    move(
        source, target, open_journal(), CopyOptions(part_size_bytes=4000, workers=4, calendar=Calendar(default=20_000))
    )
    assert 0.3 < time.monotonic() - began < 3.0  # 8,000 bytes at 20,000 a second take 0.4 s


def test_the_watcher_hears_every_byte_and_object(
    source: MemoryStore, target: MemoryStore, open_journal: OpenJournal
) -> None:
    fill(source)
    totals: list[tuple[int, int]] = []
    moved: list[tuple[int, int]] = []
    watcher = Watcher(start=lambda *a: totals.append(a), moved=lambda *a: moved.append(a))
    move_bucket(source, "docs", target, "docs", open_journal(), SMALL, watcher)
    assert totals == [(sum(objects for objects, _ in moved), sum(size for _, size in moved))]


# -- errors ----------------------------------------------------------------------------------------------------------


def test_one_bad_object_does_not_stop_the_others(
    source: MemoryStore, target: MemoryStore, open_journal: OpenJournal
) -> None:
    fill(source)

    def bad(call: Call) -> None:
        if call.key == "plain/03" and call.name == "write":
            raise DigestMismatch("the server did not like it")

    target.hook = bad
    journal = open_journal()
    report = move(source, target, journal)
    assert report.failures == ["plain/03: the server did not like it"]
    assert report.copied == 17
    target.hook = lambda _: None
    assert move(source, target, journal).copied == 1


@pytest.mark.parametrize("error", [Unavailable("down for good"), AccessDenied("may not write")])
def test_an_error_that_concerns_all_stops_all_and_the_next_pass_goes_on(
    source: MemoryStore, target: MemoryStore, open_journal: OpenJournal, error: Exception
) -> None:
    fill(source)

    def down(call: Call) -> None:
        if call.name in ("write", "write_part") and len(target.bytes_of("docs")) >= 5:
            raise error

    target.hook = down
    journal = open_journal()
    with pytest.raises(type(error)):
        move(source, target, journal)
    arrived = len(target.bytes_of("docs"))
    assert 5 <= arrived <= 8
    target.hook = lambda _: None
    report = move(source, target, journal)
    assert target.contents("docs") == source.contents("docs")
    assert report.kept + report.recognised >= arrived


def test_ctrl_c_stops_the_workers_and_keeps_what_arrived(
    source: MemoryStore, target: MemoryStore, open_journal: OpenJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(source)
    joins = iter(range(3))
    original = threading.Thread.join

    def join(self: threading.Thread, timeout: float | None = None) -> None:
        if self.name.startswith("mover-") and timeout == 0.2 and next(joins, None) is None:
            monkeypatch.setattr(threading.Thread, "join", original)
            raise KeyboardInterrupt
        original(self, timeout)

    target.hook = lambda call: time.sleep(0.1) if call.when == "before" and call.name == "write" else None
    monkeypatch.setattr(threading.Thread, "join", join)
    journal = open_journal()
    with pytest.raises(KeyboardInterrupt):
        move(source, target, journal, replace(SMALL, workers=1))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("mover-")]
    done = {entry.key for entry in journal.entries("done")}
    assert done == set(target.bytes_of("docs"))
    assert 0 < len(done) < 18
    target.hook = lambda _: None
    move(source, target, journal)
    assert target.contents("docs") == source.contents("docs")


def test_a_listing_that_names_an_object_twice_copies_it_once(
    source: MemoryStore, target: MemoryStore, open_journal: OpenJournal
) -> None:
    """A listing that broke off and began again may give one key with its old and its new etag."""

    class Twice(MemoryStore):
        def list(self, bucket: str, prefix: str = ""):  # type: ignore[no-untyped-def]
            for info in super().list(bucket, prefix):
                yield replace(info, etag="older", size_bytes=3)
                yield info

    twice = Twice("a")
    twice.ensure_bucket("docs")
    fill(twice)
    report = move(twice, target, open_journal(), replace(SMALL, workers=8))
    assert (report.listed, report.copied, report.changed_during_copy) == (18, 18, 0)


def test_older_versions_are_counted_or_said_to_be_unknown(source: MemoryStore) -> None:
    source.put("docs", "a", b"1")
    source.put("docs", "a", b"2")
    source.put("docs", "b", b"1")
    source.drop("docs", "b")
    assert older_versions(source, "docs") == (2, 1)
    assert older_versions(MemoryStore("x", replace(FEATURES, versions=False)), "docs") is None
