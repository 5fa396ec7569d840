"""Writes that must not overwrite others, and reads that must not mix two versions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from crossload.conformance.case import NotOffered, expect, expect_equal, expect_error
from crossload.conformance.store_bench import PLAIN, STORE, StoreBench, put
from crossload.ports.errors import CrossloadError, NotFound, PreconditionFailed, Unavailable
from crossload.ports.store import Part, Store

case = STORE.case
_CREATORS = 16
_REPLACERS = 4  # some servers let them wait for each other a second at a time
_TRIES = 100


@case
def if_absent_creates_once(bench: StoreBench) -> None:
    """A write with if_absent succeeds on a free key and is refused on a taken one, whose bytes stay."""
    store, bucket, at = bench.area()
    _needs_conditional_create(store)
    store.write(bucket, at + "new", b"first", PLAIN, if_absent=True)
    with expect_error(PreconditionFailed, during="second write with if_absent"):
        store.write(bucket, at + "new", b"second", PLAIN, if_absent=True)
    expect_equal(store.read(bucket, at + "new"), b"first", "bytes after the refusal")


@case
def if_match_write_needs_the_current_etag(bench: StoreBench) -> None:
    """A write with if_match succeeds with the current etag and is refused with an old one."""
    store, bucket, at = bench.area()
    old = put(store, bucket, at + "object", b"one")
    new = store.write(bucket, at + "object", b"two", PLAIN, if_match=old.etag)
    with expect_error(PreconditionFailed, during="write with a stale if_match"):
        store.write(bucket, at + "object", b"three", PLAIN, if_match=old.etag)
    expect_equal(store.read(bucket, at + "object"), b"two", "bytes after the refusal")
    expect_equal(store.head(bucket, at + "object")[0].etag, new.etag, "etag after the refusal")


@case
def if_match_write_does_not_create(bench: StoreBench) -> None:
    """A write with if_match on a key that is gone is refused, so that a deleted object stays deleted."""
    store, bucket, at = bench.area()
    old = put(store, bucket, at + "object", b"one")
    store.delete(bucket, at + "object")
    with expect_error(PreconditionFailed, NotFound, during="write with if_match on a deleted key"):
        store.write(bucket, at + "object", b"two", PLAIN, if_match=old.etag)
    with expect_error(NotFound, during="head after the refusal"):
        store.head(bucket, at + "object")


@case
def if_match_read_needs_the_current_etag(bench: StoreBench) -> None:
    """read with if_match gives the bytes of that etag or raises PreconditionFailed."""
    store, bucket, at = bench.area()
    _needs_conditional_read(store)
    old = put(store, bucket, at + "object", b"one")
    expect_equal(store.read(bucket, at + "object", if_match=old.etag), b"one", "bytes with the current etag")
    put(store, bucket, at + "object", b"two")
    with expect_error(PreconditionFailed, during="read with a stale if_match"):
        store.read(bucket, at + "object", if_match=old.etag)


@case
def if_match_range_needs_the_current_etag(bench: StoreBench) -> None:
    """A range read with a stale if_match is refused: the parts of one copy come from one version."""
    store, bucket, at = bench.area()
    _needs_conditional_read(store)
    old = put(store, bucket, at + "object", b"one one one")
    expect_equal(store.read(bucket, at + "object", 4, 3, if_match=old.etag), b"one", "range with the current etag")
    put(store, bucket, at + "object", b"two two two")
    with expect_error(PreconditionFailed, during="range with a stale if_match"):
        store.read(bucket, at + "object", 4, 3, if_match=old.etag)


@case
def if_match_delete_needs_the_current_etag(bench: StoreBench) -> None:
    """delete with a stale if_match is refused and the object stays; with the current one it goes."""
    store, bucket, at = bench.area()
    old = put(store, bucket, at + "object", b"one")
    new = put(store, bucket, at + "object", b"two")
    with expect_error(PreconditionFailed, during="delete with a stale if_match"):
        store.delete(bucket, at + "object", if_match=old.etag)
    expect_equal(store.read(bucket, at + "object"), b"two", "bytes after the refusal")
    store.delete(bucket, at + "object", if_match=new.etag)
    with expect_error(NotFound, during="head after the delete"):
        store.head(bucket, at + "object")


@case
def one_of_sixteen_writers_wins(bench: StoreBench) -> None:
    """Sixteen threads create one key with if_absent: one succeeds, and its bytes are there."""
    store, bucket, at = bench.area()
    _needs_conditional_create(store)
    key = at + "race"

    def write(number: int) -> None:
        store.write(bucket, key, b"writer %02d" % number, PLAIN, if_absent=True)

    winners = _race(write, _CREATORS)
    expect_equal(len(winners), 1, "number of writers that succeeded")
    expect_equal(store.read(bucket, key), b"writer %02d" % winners[0], "bytes")


@case
def one_of_four_replacers_wins(bench: StoreBench) -> None:
    """Four threads replace one etag with if_match: one succeeds, and its bytes are there."""
    store, bucket, at = bench.area()
    key = at + "race"
    old = put(store, bucket, key, b"before")

    def write(number: int) -> None:
        store.write(bucket, key, b"writer %02d" % number, PLAIN, if_match=old.etag)

    winners = _race(write, _REPLACERS)
    expect_equal(len(winners), 1, "number of writers that succeeded")
    expect_equal(store.read(bucket, key), b"writer %02d" % winners[0], "bytes")


@case
def readers_never_see_a_mixture(bench: StoreBench) -> None:
    """While two writers replace an object again and again, every read gives one of the two whole."""
    store, bucket, at = bench.area()
    key, one, two = at + "mixed", b"1" * 200_000, b"2" * 200_000
    put(store, bucket, key, one)
    stop = threading.Event()
    failures: list[BaseException] = []

    def rewrite(data: bytes) -> None:
        try:
            while not stop.is_set():
                put(store, bucket, key, data)
        except CrossloadError as error:
            failures.append(error)

    writers = [threading.Thread(target=rewrite, args=(data,)) for data in (one, two)]
    for thread in writers:
        thread.start()
    try:
        for _ in range(20):
            got = store.read(bucket, key)
            expect(got in (one, two), f"a read gave {len(got)} bytes, {got.count(b'1')} of one and {got.count(b'2')}")
    finally:
        stop.set()
        for thread in writers:
            thread.join()
    expect(not failures, f"a writer failed: {failures[:1]}")


@case
def complete_if_absent_is_refused_on_a_taken_key(bench: StoreBench) -> None:
    """complete with if_absent is refused when somebody created the key meanwhile, and their bytes stay."""
    store, bucket, at = bench.area()
    _needs_conditional_create(store)
    key = at + "upload"
    upload = store.open_upload(bucket, key, PLAIN, 4)
    sent = store.write_part(bucket, key, upload, Part(1, 0, 4, ""), b"ours", last=True)
    put(store, bucket, key, b"theirs")
    with expect_error(PreconditionFailed, during="complete with if_absent on a taken key"):
        store.complete(bucket, key, upload, [sent], if_absent=True)
    expect_equal(store.read(bucket, key), b"theirs", "bytes after the refusal")
    store.abort(bucket, key, upload)


@case
def complete_if_match_needs_the_current_etag(bench: StoreBench) -> None:
    """complete with if_match replaces the object of that etag, and is refused when it changed meanwhile."""
    store, bucket, at = bench.area()
    key = at + "upload"
    old = put(store, bucket, key, b"old")

    def sent(data: bytes) -> tuple[str, list[Part]]:
        upload = store.open_upload(bucket, key, PLAIN, len(data))
        return upload, [store.write_part(bucket, key, upload, Part(1, 0, len(data), ""), data, last=True)]

    upload, parts = sent(b"first")
    store.complete(bucket, key, upload, parts, if_match=old.etag)
    expect_equal(store.read(bucket, key), b"first", "bytes after complete with the current etag")
    upload, parts = sent(b"second")
    with expect_error(PreconditionFailed, during="complete with a stale if_match"):
        store.complete(bucket, key, upload, parts, if_match=old.etag)
    expect_equal(store.read(bucket, key), b"first", "bytes after the refusal")
    store.abort(bucket, key, upload)


def _needs_conditional_create(store: Store) -> None:
    if not store.features.conditional_create:
        raise NotOffered("the store has no conditional create")


def _needs_conditional_read(store: Store) -> None:
    if not store.features.conditional_read:
        raise NotOffered("the store has no conditional read")


def _race(act: Callable[[int], None], racers: int) -> list[int]:
    """Numbers of those that were not refused; an error other than PreconditionFailed breaks the case,
    unless it says `retryable`: then the racer runs again."""
    gate = threading.Barrier(racers)
    winners: list[int] = []
    failures: list[CrossloadError] = []

    def run(number: int) -> None:
        gate.wait()
        for _ in range(_TRIES):
            try:
                act(number)
            except PreconditionFailed:
                return
            except CrossloadError as error:
                if error.retryable:
                    time.sleep(0.05)
                    continue
                failures.append(error)
                return
            winners.append(number)
            return
        failures.append(Unavailable(f"racer {number} was told {_TRIES} times to try again"))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(racers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expect(not failures, f"{len(failures)} racers failed otherwise: {failures[:1]}")
    return winners
