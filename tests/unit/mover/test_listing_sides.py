"""Both sides listed at once, in ranges where the store sorts: nothing is missed, whatever fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest
from memory_store import FEATURES, MemoryStore

from crossload.engines.mover.bucket import move_bucket
from crossload.engines.mover.listing import list_both, list_target
from crossload.ledger.comparison import Comparison
from crossload.ledger.journal import Entry, Journal
from crossload.ports.errors import AccessDenied, NotFound, Unavailable
from crossload.ports.retrying import RetryingStore, RetryPolicy
from crossload.ports.store import ObjectInfo, Store, StoreFeatures

SORTED = replace(FEATURES, sorted_list=True)
KEYS = [f"data/part-{n:06d}" for n in range(40_000)]


@dataclass
class Listed:
    """A store that can only list: keys that exist, in their order, a page of 1000 at a time and each after a while."""

    keys: list[str]
    wait_seconds: float = 0.0
    features: StoreFeatures = SORTED
    place: str = "listed"
    fail: dict[int, Exception] = field(default_factory=dict)
    asked: int = 0
    at_once: int = 0
    most_at_once: int = 0
    begun: list[str] = field(default_factory=list)
    mutex: threading.Lock = field(default_factory=threading.Lock)

    def list(self, bucket: str, prefix: str = "", start_after: str = "") -> Iterator[ObjectInfo]:
        with self.mutex:
            self.begun.append(start_after)
        at = bisect_right(self.keys, start_after)
        while True:
            with self.mutex:
                self.asked += 1
                number = self.asked
                self.at_once += 1
                self.most_at_once = max(self.most_at_once, self.at_once)
            time.sleep(self.wait_seconds)
            with self.mutex:
                self.at_once -= 1
                failure = self.fail.pop(number, None)
            if failure is not None:
                raise failure
            page = self.keys[at : at + 1000]
            for key in page:
                if key.startswith(prefix):
                    yield ObjectInfo(key, 1, "e")
            at += 1000
            if len(page) < 1000:
                return

    def port(self) -> Store:
        return cast("Store", self)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal.db") as made:
        yield made


def keys_of(comparison: Comparison, side: str) -> list[str]:
    database: Any = comparison._database  # pyright: ignore[reportPrivateUsage]
    return [row[0] for row in database.execute(f"select key from {side} order by key")]


def test_ranges_list_everything_and_side_by_side(journal: Journal) -> None:
    source, target = Listed(KEYS, 0.03), Listed(KEYS[::3], 0.03)
    with Comparison(journal) as comparison:
        list_both(comparison, source.port(), "b", target.port(), "b", "")
        assert keys_of(comparison, "source") == KEYS
        assert keys_of(comparison, "target") == KEYS[::3]
    assert source.most_at_once > 2
    assert len(source.begun) > 3
    assert source.asked < 1.6 * 41


def test_a_prefix_is_kept_to(journal: Journal) -> None:
    source = Listed(sorted([*KEYS, "aaa", "data/part", "zzz"]), 0.01)
    with Comparison(journal) as comparison:
        list_both(comparison, source.port(), "b", Listed([]).port(), "b", "data/part-0")
        assert keys_of(comparison, "source") == KEYS


@pytest.mark.parametrize(("features", "ranges"), [(FEATURES, 16), (SORTED, 1)], ids=["unsorted store", "one range"])
def test_one_listing_where_there_must_be_one(journal: Journal, features: StoreFeatures, ranges: int) -> None:
    source = Listed(KEYS, 0.01, features)
    with Comparison(journal) as comparison:
        list_both(comparison, source.port(), "b", Listed([]).port(), "b", "", ranges=ranges)
        assert keys_of(comparison, "source") == KEYS
    assert (len(source.begun), source.most_at_once, source.asked) == (1, 1, 41)


def test_a_store_that_knows_itself_with_its_first_answer(journal: Journal) -> None:
    """Whether it sorts is asked after a page came, not before."""

    class Shy(Listed):
        def list(self, bucket: str, prefix: str = "", start_after: str = "") -> Iterator[ObjectInfo]:
            for given in super().list(bucket, prefix, start_after):
                self.features = SORTED
                yield given

    source = Shy(KEYS, 0.02, FEATURES)
    with Comparison(journal) as comparison:
        list_both(comparison, source.port(), "b", Listed([]).port(), "b", "")
        assert keys_of(comparison, "source") == KEYS
    assert source.begun.count("") == 1
    assert len(source.begun) > 3


def test_a_range_that_breaks_off_goes_on_behind_its_last_key(journal: Journal) -> None:
    source = Listed(KEYS, 0.02, fail={n: Unavailable("gone for a moment") for n in (3, 9, 12, 20, 21)})
    patient = cast("Store", RetryingStore(source.port(), RetryPolicy(0.001, 0.002, 30), lambda text: None))
    with Comparison(journal) as comparison:
        list_both(comparison, patient, "b", Listed([]).port(), "b", "")
        assert keys_of(comparison, "source") == KEYS
    assert not source.fail


@pytest.mark.parametrize("number", [1, 12, 30])
def test_a_failure_ends_both_sides_soon(journal: Journal, number: int) -> None:
    source = Listed(KEYS, 0.02, fail={number: AccessDenied("no more")})
    other = Listed([f"{n:07d}" for n in range(500_000)], 0.02)
    with Comparison(journal) as comparison, pytest.raises(AccessDenied, match="no more"):
        list_both(comparison, source.port(), "b", other.port(), "b", "")
    assert other.asked < 450
    assert not [thread for thread in threading.enumerate() if thread.name == "listing"]


def test_a_missing_bucket_is_said(journal: Journal) -> None:
    gone = Listed(KEYS, fail={1: NotFound("no such bucket")})
    with Comparison(journal) as comparison, pytest.raises(NotFound):
        list_target(comparison, gone.port(), "b", "")


def test_a_store_that_does_not_sort_after_all_is_listed_again(journal: Journal) -> None:
    """`a/x` before `a x`, as a server does that keeps folders: a range would end too soon, and lose keys."""
    tree = [f"{n:05d}{sign}x" for n in range(9000) for sign in ("/", " ")]
    source = Listed(tree, 0.01)
    said: list[str] = []
    with Comparison(journal) as comparison:
        list_both(comparison, source.port(), "b", Listed([]).port(), "b", "", say=said.append)
        assert keys_of(comparison, "source") == sorted(tree)
    assert "does not list b in order" in said[0]


def test_the_mover_copies_from_ranges_what_it_copies_from_one_listing(journal: Journal) -> None:
    class Sorting(MemoryStore):
        def list(self, bucket: str, prefix: str = "", start_after: str = "") -> Iterator[ObjectInfo]:
            found = sorted(super().list(bucket, prefix), key=lambda info: info.key)
            return iter(found[bisect_right([info.key for info in found], start_after) :])

    source, target = Sorting("a", SORTED), Sorting("b", SORTED)
    for store in (source, target):
        store.ensure_bucket("b")
    for n in range(3000):
        source.put("b", f"dir-{n % 7}/é{n}", b"%d" % n)
    report = move_bucket(source, "b", target, "b", journal)
    assert (report.copied, report.failures) == (3000, [])
    assert target.bytes_of("b") == source.bytes_of("b")
    assert move_bucket(source, "b", target, "b", journal).empty


# -- an inventory instead of a listing -------------------------------------------------------------------------------


def info(key: str, etag: str = "e", modified_at: float = 100.0) -> ObjectInfo:
    return ObjectInfo(key, 1, etag, modified_at=modified_at)


def test_an_inventory_takes_the_place_of_the_source(journal: Journal) -> None:
    never = Listed(KEYS)
    mixed = [info(key) for key in [*KEYS[5000:], *KEYS[:5000], KEYS[7]]]
    with Comparison(journal) as comparison:
        list_both(comparison, never.port(), "b", Listed([]).port(), "b", "", inventory=iter(mixed))
        assert comparison.settle(home=False) == (len(KEYS), len(KEYS))
        assert keys_of(comparison, "source") == KEYS
        assert [todo.entry.key for _, todo in comparison.todo(0)] == KEYS[:1000]
    assert never.asked == 0


def test_what_an_inventory_does_not_know_is_not_taken_for_deleted(journal: Journal) -> None:
    """It was written before these were: to remove them at the target would lose the newest objects."""
    journal.put(Entry("new", 1, "e", "done", target_etag="t"))
    journal.put(Entry("begun", 1, "e", "sending", upload="u"))
    with Comparison(journal) as comparison:
        list_both(comparison, Listed([]).port(), "b", Listed([]).port(), "b", "", inventory=[info("old")])
        assert comparison.settle(home=False) == (1, 1)
        assert comparison.vanished_count("") == 0
        assert not [*comparison.vanished(""), *comparison.cut_short("")]
    with Comparison(journal) as comparison:
        comparison.source([info("old")])
        assert (comparison.settle(home=False), comparison.vanished_count("")) == ((1, 1), 1)
        assert [entry.key for entry, *_ in comparison.cut_short("")] == ["begun"]


def test_what_was_copied_since_the_inventory_is_not_copied_back(journal: Journal) -> None:
    journal.put(Entry("newer", 1, "e2", "done", target_etag="t", modified_at=200.0))
    journal.put(Entry("older", 1, "e0", "done", target_etag="t", modified_at=50.0))
    there = [ObjectInfo(key, 1, "t") for key in ("newer", "older")]
    with Comparison(journal) as comparison:
        comparison.target(there)
        comparison.hints([info("newer"), info("older")])
        comparison.settle(home=False)
        assert [todo.entry.key for _, todo in comparison.todo(0)] == ["older"]


# -- the comparison --------------------------------------------------------------------------------------------------


def test_the_largest_come_first_and_the_rest_in_order_each_once(journal: Journal) -> None:
    mib = 2**20
    sizes = {f"k{n:05d}": (n * 37 % 41) * mib for n in range(3500)}
    with Comparison(journal) as comparison:
        comparison.source([ObjectInfo(key, size, "e") for key, size in sizes.items()])
        assert comparison.settle(home=False) == (3500, sum(sizes.values()))
        given: list[tuple[int, str, int]] = []
        after = 0
        while page := comparison.todo(after):
            given += [(number, todo.entry.key, todo.entry.size_bytes) for number, todo in page]
            after = page[-1][0]
    numbers = [number for number, _, _ in given]
    assert numbers == sorted(set(numbers))
    assert sorted(key for _, key, _ in given) == sorted(sizes)
    large = [size for _, _, size in given if size >= 16 * mib]
    assert [size for _, _, size in given][: len(large)] == sorted(large, reverse=True)
    small = [key for _, key, size in given if size < 16 * mib]
    assert small == sorted(small)


def test_no_question_needs_a_sort_of_all_keys(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the choice of the largest is sorted, and that is limited."""
    plans: dict[str, list[str]] = {}

    class Watched:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def execute(self, query: str, values: Any = ()) -> Any:
            if query.lstrip().startswith(("select", "insert")):
                plans[query] = [row[3] for row in self.inner.execute(f"explain query plan {query}", values)]
            return self.inner.execute(query, values)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

    with Comparison(journal) as comparison:
        inner: Any = comparison._database  # pyright: ignore[reportPrivateUsage]
        assert inner.execute("pragma temp_store").fetchone() == (1,)
        monkeypatch.setattr(comparison, "_database", Watched(inner))
        comparison.settle(home=False)
        comparison.settle(home=True)
        comparison.todo(0)
        comparison.listed()
        comparison.vanished_count("p")
        comparison.strange()
        for _ in (*comparison.vanished("p"), *comparison.cut_short("p"), *comparison.known("p")):
            pass
    sorting = [query for query, plan in plans.items() if any("TEMP B-TREE" in step for step in plan)]
    assert len(plans) > 8
    assert {query.split("(")[0].split(" select")[0] for query in sorting} == {
        "insert into first",
        "insert or replace into source",
    }
    assert all("limit ?" in query for query in sorting if "into first" in query)


_KILLED = """
    import sys, time
    from pathlib import Path
    from crossload.ledger.comparison import Comparison
    from crossload.ledger.journal import Journal
    from crossload.ports.store import ObjectInfo

    with Journal(Path(sys.argv[1])) as journal, Comparison(journal) as comparison:
        for n in range(1_000_000):
            comparison.source([ObjectInfo(f"{n * 1000 + i:012d}", 1, "e") for i in range(1000)])
            if n == 20:
                print("filled", flush=True)
"""


def test_a_kill_during_the_listing_leaves_nothing_harmful(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with Journal(path) as journal:
        journal.put(Entry("kept", 1, "e", "done", target_etag="t"))
    command = [sys.executable, "-c", textwrap.dedent(_KILLED), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "filled\n"
        os.kill(process.pid, signal.SIGKILL)
    left = tmp_path / "journal.listing"
    assert left.stat().st_size > 0
    with Journal(path) as journal:
        with Comparison(journal) as comparison:
            comparison.source([info("kept")])
            assert (comparison.listed(), comparison.settle(home=True)) == (1, (0, 0))
        assert journal.get("kept") == Entry("kept", 1, "e", "done", target_etag="t")
    assert not left.exists()
