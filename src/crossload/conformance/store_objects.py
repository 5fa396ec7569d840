"""Buckets, whole objects, what goes with them, and lists."""

from __future__ import annotations

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from crossload.conformance.case import NotOffered, expect, expect_equal, expect_error
from crossload.conformance.store_bench import PLAIN, STORE, StoreBench, keys, put, sample
from crossload.conformance.store_digests import expect_true_digests
from crossload.ports.errors import CrossloadError, Invalid, NotFound
from crossload.ports.store import ObjectMeta, Store

case = STORE.case
_CLOCK_SECONDS = 300.0


# -- buckets --------------------------------------------------------------------------------------------------------


@case
def bucket_is_made_once(bench: StoreBench) -> None:
    """ensure_bucket says True when it created the bucket, False when it was there, and the bucket is listed."""
    store, name = bench.open(), bench.bucket_name("once")
    try:
        expect_equal(store.ensure_bucket(name), True, "first ensure_bucket")
        expect_equal(store.ensure_bucket(name), False, "second ensure_bucket")
        expect(name in [bucket.name for bucket in store.buckets()], f"buckets() does not list {name}")
    finally:
        store.remove_bucket(name)


@case
def bucket_is_removed_once(bench: StoreBench) -> None:
    """remove_bucket says True when it removed the bucket, False when there was none, and the bucket is gone."""
    store, name = bench.open(), bench.bucket_name("gone")
    store.ensure_bucket(name)
    expect_equal(store.remove_bucket(name), True, "first remove_bucket")
    expect_equal(store.remove_bucket(name), False, "second remove_bucket")
    expect(name not in [bucket.name for bucket in store.buckets()], f"buckets() still lists {name}")


@case
def full_bucket_is_not_removed(bench: StoreBench) -> None:
    """remove_bucket refuses a bucket that holds an object, and the object stays."""
    store, bucket, at = bench.area()
    put(store, bucket, at + "kept", b"kept")
    with expect_error(CrossloadError, during="remove_bucket of a full bucket"):
        store.remove_bucket(bucket)
    expect_equal(store.read(bucket, at + "kept"), b"kept", "object after the refused remove_bucket")


@case
def absent_bucket_is_not_found(bench: StoreBench) -> None:
    """list, read, head and write in a bucket that does not exist raise NotFound."""
    store, name = bench.open(), bench.bucket_name("never")
    with expect_error(NotFound, during="list"):
        list(store.list(name))
    with expect_error(NotFound, during="read"):
        store.read(name, "key")
    with expect_error(NotFound, during="head"):
        store.head(name, "key")
    with expect_error(NotFound, during="write"):
        put(store, name, "key", b"data")
    with expect_error(NotFound, during="open_upload and first part"):
        upload = store.open_upload(name, "key", PLAIN, 4)
        store.parts(name, "key", upload)


# -- whole objects --------------------------------------------------------------------------------------------------


@case
def write_head_and_read_agree(bench: StoreBench) -> None:
    """What write returns, head and list say too, and read gives back the bytes."""
    store, bucket, at = bench.area()
    data = sample(1, 70_001)
    written = put(store, bucket, at + "object", data)
    found, _ = store.head(bucket, at + "object")
    listed = next(info for info in store.list(bucket, at))
    expect_equal(store.read(bucket, at + "object"), data, "bytes read")
    expect(bool(written.etag), "write returned no etag")
    for name, info in (("write", written), ("head", found), ("list", listed)):
        expect_equal((info.key, info.size_bytes, info.etag), (at + "object", len(data), written.etag), name)


@case
def objects_say_when_they_were_written(bench: StoreBench) -> None:
    """head and list give the time of the last write in seconds since the epoch."""
    store, bucket, at = bench.area()
    put(store, bucket, at + "now", b"now")
    for what, info in (("head", store.head(bucket, at + "now")[0]), ("list", next(iter(store.list(bucket, at))))):
        age = abs(time.time() - info.modified_at)
        expect(age < _CLOCK_SECONDS, f"{what}: modified_at is {age:.0f} s away from now")


@case
def empty_object_is_an_object(bench: StoreBench) -> None:
    """An object of no bytes is written, listed, headed and read like any other."""
    store, bucket, at = bench.area()
    put(store, bucket, at + "empty", b"")
    expect_equal(store.head(bucket, at + "empty")[0].size_bytes, 0, "size")
    expect_equal(store.read(bucket, at + "empty"), b"", "bytes")
    expect_equal(store.read(bucket, at + "empty", 0, 10), b"", "bytes of a range")
    expect_equal(keys(store, bucket, at), [at + "empty"], "list")


@case
def larger_object_survives(bench: StoreBench) -> None:
    """An object of 6 MiB in one write comes back whole."""
    store, bucket, at = bench.area()
    data = sample(2, 6 * 2**20 + 1)
    put(store, bucket, at + "larger", data)
    got = store.read(bucket, at + "larger")
    expect_equal(hashlib.sha256(got).hexdigest(), hashlib.sha256(data).hexdigest(), f"sha256 of {len(got)} bytes")
    store.delete(bucket, at + "larger")


@case
def every_byte_value_survives(bench: StoreBench) -> None:
    """Line ends, NUL and high bytes are not touched, even under a text type."""
    store, bucket, at = bench.area()
    data = bytes(range(256)) + b"\r\n\n\r--boundary\r\n\r\n"
    put(store, bucket, at + "bytes", data, ObjectMeta(content_type="text/plain; charset=utf-8"))
    expect_equal(store.read(bucket, at + "bytes"), data, "bytes")


@case
def missing_object_is_not_found(bench: StoreBench) -> None:
    """head and read of a key that is not there raise NotFound."""
    store, bucket, at = bench.area()
    with expect_error(NotFound, during="head"):
        store.head(bucket, at + "missing")
    with expect_error(NotFound, during="read"):
        store.read(bucket, at + "missing")


@case
def delete_may_happen_twice(bench: StoreBench) -> None:
    """delete removes the object and is silent when it is gone already."""
    store, bucket, at = bench.area()
    put(store, bucket, at + "twice", b"x")
    store.delete(bucket, at + "twice")
    store.delete(bucket, at + "twice")
    with expect_error(NotFound, during="head after delete"):
        store.head(bucket, at + "twice")
    expect_equal(keys(store, bucket, at), [], "list after delete")


@case
def etag_changes_with_the_bytes(bench: StoreBench) -> None:
    """Writing other bytes of the same size gives another etag, and head shows it."""
    store, bucket, at = bench.area()
    first = put(store, bucket, at + "object", b"one")
    second = put(store, bucket, at + "object", b"two")
    expect(first.etag != second.etag, f"both writes have etag {first.etag}")
    expect_equal(store.head(bucket, at + "object")[0].etag, second.etag, "etag on head")
    expect_equal(store.read(bucket, at + "object"), b"two", "bytes")


@case
def uri_names_the_object(bench: StoreBench) -> None:
    """uri holds bucket and key, and differs for every object."""
    store = bench.open()
    uri = store.uri("bucket-a", "folder/key.txt")
    expect("bucket-a" in uri and uri.endswith("folder/key.txt"), f"uri is {uri}")
    expect(len({uri, store.uri("bucket-a", "folder/other.txt"), store.uri("bucket-b", "folder/key.txt")}) == 3, uri)


# -- ranges ---------------------------------------------------------------------------------------------------------


@case
def ranges_are_slices(bench: StoreBench) -> None:
    """read(start, length) gives exactly data[start:start+length], at the start, in the middle and to the end."""
    store, bucket, at = bench.area()
    data = sample(3, 10_000)
    put(store, bucket, at + "range", data)
    for start, length in ((0, 1), (0, 10_000), (5_000, 100), (9_999, 1), (0, 0), (77, None), (0, None)):
        end = None if length is None else start + length
        expect_equal(store.read(bucket, at + "range", start, length), data[start:end], f"range {start}+{length}")


@case
def range_over_the_end_is_shorter(bench: StoreBench) -> None:
    """A range that starts inside and ends outside gives what there is."""
    store, bucket, at = bench.area()
    put(store, bucket, at + "short", b"0123456789")
    expect_equal(store.read(bucket, at + "short", 8, 100), b"89", "range 8+100 of 10 bytes")


@case
def range_beyond_the_end_is_empty(bench: StoreBench) -> None:
    """A range that starts at or behind the end gives no bytes and no error, as a slice does."""
    store, bucket, at = bench.area()
    put(store, bucket, at + "short", b"0123456789")
    expect_equal(store.read(bucket, at + "short", 10, 5), b"", "range 10+5 of 10 bytes")
    expect_equal(store.read(bucket, at + "short", 50, 5), b"", "range 50+5 of 10 bytes")


# -- what goes with the bytes ---------------------------------------------------------------------------------------

_FULL = ObjectMeta(
    content_type="text/markdown; charset=utf-8",
    cache_control="max-age=60",
    content_disposition='attachment; filename="guide.md"',
    content_language="de-AT",
)


@case
def headers_make_the_round_trip(bench: StoreBench) -> None:
    """Content type, cache control, disposition and language come back as written."""
    store, bucket, at = bench.area()
    put(store, bucket, at + "meta", b"text", _FULL)
    _, meta = store.head(bucket, at + "meta")
    for name in ("content_type", "cache_control", "content_disposition", "content_language"):
        expect_equal(getattr(meta, name), getattr(_FULL, name), name)


@case
def encoded_bytes_are_not_decoded(bench: StoreBench) -> None:
    """An object with a content encoding comes back as the bytes that were written, and keeps the encoding."""
    store, bucket, at = bench.area()
    data = b"\x1f\x8b\x08 these bytes only claim to be gzip"
    put(store, bucket, at + "coded", data, ObjectMeta(content_type="text/plain", content_encoding="gzip"))
    expect_equal(store.head(bucket, at + "coded")[1].content_encoding, "gzip", "content_encoding")
    expect_equal(store.read(bucket, at + "coded"), data, "bytes")
    expect_equal(store.read(bucket, at + "coded", 4, 5), data[4:9], "bytes of a range")


@case
def user_metadata_makes_the_round_trip(bench: StoreBench) -> None:
    """User metadata come back with the same names and values, names with dashes and digits included."""
    store, bucket, at = bench.area()
    user = {"owner": "helpdesk", "source-mtime": "1700000000.5", "x_y": "a=b; c%20d", "9lives": "yes", "a.b": "dot"}
    put(store, bucket, at + "user", b"x", ObjectMeta(content_type="text/plain", user=user))
    expect_equal(dict(store.head(bucket, at + "user")[1].user), user, "user metadata")


@case
def plain_object_has_no_user_metadata(bench: StoreBench) -> None:
    """An object written without user metadata and tags has none afterwards."""
    store, bucket, at = bench.area()
    put(store, bucket, at + "plain", b"x")
    _, meta = store.head(bucket, at + "plain")
    expect_equal((dict(meta.user), dict(meta.tags)), ({}, {}), "user metadata and tags")


@case
def unicode_metadata_is_kept_or_refused(bench: StoreBench) -> None:
    """A metadata value outside ASCII is kept exactly or refused with Invalid, never changed in silence."""
    store, bucket, at = bench.area()
    user = {"title": "Grüße, 東京"}
    try:
        put(store, bucket, at + "unicode", b"x", ObjectMeta(content_type="text/plain", user=user))
    except Invalid:
        return
    expect_equal(dict(store.head(bucket, at + "unicode")[1].user), user, "user metadata")


@case
def overwriting_replaces_metadata(bench: StoreBench) -> None:
    """A second write leaves nothing of the first one's metadata."""
    store, bucket, at = bench.area()
    put(store, bucket, at + "over", b"1", ObjectMeta(content_type="text/plain", user={"old": "1"}))
    put(store, bucket, at + "over", b"2", ObjectMeta(content_type="text/html", user={"new": "2"}))
    _, meta = store.head(bucket, at + "over")
    expect_equal((meta.content_type, dict(meta.user)), ("text/html", {"new": "2"}), "metadata")


@case
def tags_make_the_round_trip(bench: StoreBench) -> None:
    """Tags come back as written."""
    store, bucket, at = bench.area()
    if not store.features.tags:
        raise NotOffered("the store keeps no tags")
    tags = {"team": "support", "review": "2026-10-01", "path": "a/b c+d"}
    put(store, bucket, at + "tags", b"x", ObjectMeta(content_type="text/plain", tags=tags))
    expect_equal(dict(store.head(bucket, at + "tags")[1].tags), tags, "tags")


# -- digests --------------------------------------------------------------------------------------------------------


@case
def returned_digests_are_true(bench: StoreBench) -> None:
    """Every digest that write, head and list return is the digest of the bytes; head gives all those promised."""
    store, bucket, at = bench.area()
    data = sample(4, 33_333)
    written = put(store, bucket, at + "digest", data)
    found, _ = store.head(bucket, at + "digest")
    for info in (written, found, *store.list(bucket, at)):
        expect_true_digests(info, data)
    got = {digest.algorithm for digest in found.digests}
    missing = store.features.digests_returned - got
    expect(not missing, f"head promised {sorted(missing)} and gave {sorted(got)}")


@case
def damaged_bytes_are_refused(bench: StoreBench) -> None:
    """Bytes whose digest does not fit are refused, and nothing is stored."""
    store, bucket, at = bench.area()
    if bench.write_damaged is None or not store.features.digests_verified:
        raise NotOffered("the store checks no digest on write")
    with expect_error(CrossloadError, during="write with a digest of other bytes"):
        bench.write_damaged(bucket, at + "damaged")
    with expect_error(NotFound, during="head after the refused write"):
        store.head(bucket, at + "damaged")


# -- lists ----------------------------------------------------------------------------------------------------------


def _put_small(store: Store, bucket: str, key: str) -> None:
    put(store, bucket, key, b"x")


@case
def list_is_complete(bench: StoreBench) -> None:
    """list gives every key once, over more than one page."""
    store, bucket, at = bench.area()
    wanted = [f"{at}{number % 7}/k{number:05d}" for number in range(bench.many_keys)]
    with ThreadPoolExecutor(bench.threads) as pool:
        list(pool.map(partial(_put_small, store, bucket), wanted))
    listed = keys(store, bucket, at)
    expect_equal(len(listed), len(wanted), "number of keys listed")
    expect_equal(listed, sorted(wanted, key=str.encode), "keys listed")
    inner = keys(store, bucket, at + "3/")
    expect_equal(inner, sorted(key for key in wanted if key.startswith(at + "3/")), "keys under a prefix")
    with ThreadPoolExecutor(bench.threads) as pool:
        list(pool.map(partial(store.delete, bucket), wanted))
    expect_equal(keys(store, bucket, at), [], "keys after deleting all")


@case
def prefix_is_a_string_not_a_folder(bench: StoreBench) -> None:
    """A prefix matches the beginning of keys, whether or not it ends at a slash."""
    store, bucket, at = bench.area()
    for key in ("pre", "pre-fix", "prefix/a", "other"):
        put(store, bucket, at + key, b"x")
    expect_equal(keys(store, bucket, at + "pre"), [at + "pre", at + "pre-fix", at + "prefix/a"], "prefix `pre`")
    expect_equal(keys(store, bucket, at + "prefix/"), [at + "prefix/a"], "prefix `prefix/`")
    expect_equal(keys(store, bucket, at + "nothing"), [], "prefix of no key")
