"""Versions, who may come in, what happens when nobody answers, and the freeze."""

from __future__ import annotations

import time

from crossload.conformance.case import NotOffered, expect, expect_equal, expect_error
from crossload.conformance.store_bench import PLAIN, STORE, StoreBench, put
from crossload.ports.errors import AccessDenied, NotFound, NotSignedIn, Unavailable, Unsupported
from crossload.ports.store import Part

case = STORE.case
_QUICK_SECONDS = 12.0


@case
def versions_are_all_listed(bench: StoreBench) -> None:
    """Three writes and a delete give three versions and, where the store marks deletes, a marker that is latest."""
    store = bench.open()
    if not store.features.versions:
        raise NotOffered("the store keeps no versions")
    bucket = bench.own_bucket(store, "versions")
    if bench.keep_versions is not None:
        bench.keep_versions(store, bucket)
    written = [put(store, bucket, "doc", data) for data in (b"one", b"two--", b"three----")]
    expect_equal(len({info.version for info in written} - {""}), 3, "different version names returned by write")
    before = [info for info in store.versions(bucket) if info.key == "doc"]
    expect_equal(sorted(info.size_bytes for info in before), [3, 5, 9], "sizes of the versions")
    expect_equal({info.version for info in before}, {info.version for info in written}, "version names listed")
    latest = [info.version for info in before if info.is_latest]
    expect_equal(latest, [written[-1].version], "latest version")
    store.delete(bucket, "doc")
    after = [info for info in store.versions(bucket) if info.key == "doc"]
    expect_equal(sum(not info.is_delete_marker for info in after), 3, "versions after delete")
    live = [info for info in after if info.is_latest and not info.is_delete_marker]
    expect_equal(live, [], "versions that still count as latest after delete")
    with expect_error(NotFound, during="head after delete"):
        store.head(bucket, "doc")


@case
def no_versions_is_said(bench: StoreBench) -> None:
    """A store that keeps no versions raises Unsupported instead of listing nothing."""
    store, bucket, _ = bench.area()
    if store.features.versions:
        raise NotOffered("the store keeps versions")
    with expect_error(Unsupported, during="versions"):
        list(store.versions(bucket))


@case
def wrong_credentials_are_refused(bench: StoreBench) -> None:
    """Wrong credentials raise NotSignedIn (or AccessDenied), on reading and on writing, and nothing is written."""
    store, bucket, at = bench.area()
    if bench.unsigned is None:
        raise NotOffered("this bench has no wrong credentials to try")
    put(store, bucket, at + "guarded", b"guarded")
    intruder = bench.unsigned()
    with expect_error(NotSignedIn, AccessDenied, during="read with wrong credentials"):
        intruder.read(bucket, at + "guarded")
    with expect_error(NotSignedIn, AccessDenied, during="head with wrong credentials"):
        intruder.head(bucket, at + "guarded")
    with expect_error(NotSignedIn, AccessDenied, during="list with wrong credentials"):
        list(intruder.list(bucket))
    with expect_error(NotSignedIn, AccessDenied, during="write with wrong credentials"):
        put(intruder, bucket, at + "planted", b"planted")
    with expect_error(NotFound, during="head of the object that must not be there"):
        store.head(bucket, at + "planted")


@case
def strangers_are_refused(bench: StoreBench) -> None:
    """A known identity without rights gets AccessDenied."""
    store, bucket, at = bench.area()
    if bench.stranger is None:
        raise NotOffered("this bench has no identity without rights")
    put(store, bucket, at + "guarded", b"guarded")
    stranger = bench.stranger()
    with expect_error(AccessDenied, during="read by a stranger"):
        stranger.read(bucket, at + "guarded")
    with expect_error(AccessDenied, during="write by a stranger"):
        put(stranger, bucket, at + "planted", b"planted")


@case
def silent_server_is_unavailable(bench: StoreBench) -> None:
    """A server that does not answer raises Unavailable, which may be tried again, within seconds."""
    if bench.absent is None:
        raise NotOffered("this store has no server that could be down")
    start = time.monotonic()
    with expect_error(Unavailable, during="read from a server that is down"):
        bench.absent().read("bucket", "key")
    with expect_error(Unavailable, during="write to a server that is down"):
        bench.absent().write("bucket", "key", b"data", PLAIN)
    took = time.monotonic() - start
    expect(took < _QUICK_SECONDS, f"it took {took:.1f} s to say so twice")
    expect(Unavailable.retryable, "Unavailable must be retryable")


@case
def freeze_stops_other_writers(bench: StoreBench) -> None:
    """While frozen another identity reads but cannot write, delete or finish an upload; after thaw it can."""
    store = bench.open()
    bucket = bench.own_bucket(store, "freeze")
    writer = bench.writer() if bench.writer is not None else store
    put(writer, bucket, "doc", b"before")
    upload = writer.open_upload(bucket, "late", PLAIN, 4)
    part = writer.write_part(bucket, "late", upload, Part(1, 0, 4, ""), b"late", last=True)
    try:
        token = store.freeze(bucket)
    except Unsupported as error:
        writer.abort(bucket, "late", upload)
        expect(bool(error.hint), "Unsupported without a hint what to do instead")
        raise NotOffered(str(error)) from error
    if bench.writer is None:
        store.thaw(bucket, token)
        raise NotOffered("this bench has no second identity that may write")
    try:
        expect_equal(writer.read(bucket, "doc"), b"before", "bytes read while frozen")
        with expect_error(AccessDenied, during="write while frozen"):
            put(writer, bucket, "doc", b"after")
        with expect_error(AccessDenied, during="delete while frozen"):
            writer.delete(bucket, "doc")
        with expect_error(AccessDenied, during="complete while frozen"):
            writer.complete(bucket, "late", upload, [part])
        with expect_error(AccessDenied, during="open_upload while frozen"):
            writer.open_upload(bucket, "other", PLAIN, 4)
    finally:
        store.thaw(bucket, token)
    expect_equal([info.key for info in store.list(bucket)], ["doc"], "keys after the freeze")
    put(writer, bucket, "doc", b"after")
    writer.complete(bucket, "late", upload, [part])
    expect_equal(store.read(bucket, "doc") + store.read(bucket, "late"), b"afterlate", "bytes after thaw")


@case
def freeze_and_thaw_may_happen_twice(bench: StoreBench) -> None:
    """Freezing twice and thawing twice leaves the bucket as it was: writable."""
    store, bucket, at = bench.area()
    try:
        first = store.freeze(bucket)
    except Unsupported as error:
        raise NotOffered(str(error)) from error
    try:
        store.freeze(bucket)
    finally:
        store.thaw(bucket, first)
        store.thaw(bucket, first)
    put(store, bucket, at + "thawed", b"thawed")
