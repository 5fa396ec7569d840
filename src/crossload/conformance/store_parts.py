"""Uploads in parts: nothing is visible before the end, and everything survives our own death."""

from __future__ import annotations

from dataclasses import replace

from crossload.conformance.case import Broken, NotOffered, expect, expect_equal, expect_error
from crossload.conformance.store_bench import PLAIN, STORE, StoreBench, keys, put, sample
from crossload.conformance.store_digests import expect_true_digests
from crossload.ports.errors import CrossloadError, NotFound
from crossload.ports.store import ObjectMeta, Part, Store

case = STORE.case
_LAST_BYTES = 1001


def _cut(store: Store, count: int) -> tuple[bytes, list[Part]]:
    """`count` parts, all but the last of the store's smallest size."""
    size = max(store.features.part_size_bytes_min, 2**18)
    data = sample(count, size * (count - 1) + _LAST_BYTES)
    return data, [Part(n + 1, n * size, min(size, len(data) - n * size), "") for n in range(count)]


def _begin(store: Store, bucket: str, key: str, count: int) -> tuple[str, bytes, list[Part]]:
    """An open upload, the bytes it is for, and the `count` parts they are cut into."""
    data, plan = _cut(store, count)
    return store.open_upload(bucket, key, PLAIN, len(data)), data, plan


def _send(store: Store, bucket: str, key: str, upload: str, part: Part, data: bytes) -> Part:
    end = part.offset_bytes + part.size_bytes
    sent = store.write_part(bucket, key, upload, part, data[part.offset_bytes : end], last=end == len(data))
    expect_equal((sent.number, sent.size_bytes), (part.number, part.size_bytes), "part returned by write_part")
    return sent


def _arrived(store: Store, bucket: str, key: str, data: bytes) -> None:
    found, _ = store.head(bucket, key)
    expect_equal(found.size_bytes, len(data), "size")
    expect_equal(store.read(bucket, key), data, "bytes")
    expect_true_digests(found, data)


@case
def parts_in_order_make_the_object(bench: StoreBench) -> None:
    """Three parts sent in order and completed are the object; complete returns what head says."""
    store, bucket, at = bench.area()
    key = at + "ordered"
    upload, data, plan = _begin(store, bucket, key, 3)
    done = store.complete(bucket, key, upload, [_send(store, bucket, key, upload, part, data) for part in plan])
    _arrived(store, bucket, key, data)
    found, _ = store.head(bucket, key)
    expect_equal((done.key, done.size_bytes, done.etag), (key, found.size_bytes, found.etag), "complete and head")
    expect_true_digests(done, data)
    expect_equal(keys(store, bucket, at), [key], "keys listed")


@case
def parts_may_come_in_any_order(bench: StoreBench) -> None:
    """Parts sent last to first make the same object."""
    store, bucket, at = bench.area()
    key = at + "shuffled"
    upload, data, plan = _begin(store, bucket, key, 3)
    sent = [_send(store, bucket, key, upload, part, data) for part in reversed(plan)]
    store.complete(bucket, key, upload, sorted(sent, key=lambda part: part.number))
    _arrived(store, bucket, key, data)


@case
def one_part_is_enough(bench: StoreBench) -> None:
    """An upload of one part, smaller than the smallest size, is an object."""
    store, bucket, at = bench.area()
    key = at + "single"
    upload = store.open_upload(bucket, key, PLAIN, 5)
    sent = _send(store, bucket, key, upload, Part(1, 0, 5, ""), b"alone")
    store.complete(bucket, key, upload, [sent])
    _arrived(store, bucket, key, b"alone")


@case
def nothing_shows_before_complete(bench: StoreBench) -> None:
    """An open upload is neither listed nor readable, and the object it will replace stays whole."""
    store, bucket, at = bench.area()
    key = at + "hidden"
    upload, data, plan = _begin(store, bucket, key, 2)
    _send(store, bucket, key, upload, plan[0], data)
    with expect_error(NotFound, during="head before complete"):
        store.head(bucket, key)
    expect_equal(keys(store, bucket, at), [], "keys listed before complete")
    put(store, bucket, key, b"older")
    expect_equal(store.read(bucket, key), b"older", "bytes beside an open upload")
    store.abort(bucket, key, upload)
    expect_equal(store.read(bucket, key), b"older", "bytes after abort")


@case
def upload_outlives_its_process(bench: StoreBench) -> None:
    """A new Store finds the parts that were sent, with number, offset and size, and goes on from there."""
    store, bucket, at = bench.area()
    key = at + "resumed"
    upload, data, plan = _begin(store, bucket, key, 3)
    first = _send(store, bucket, key, upload, plan[0], data)
    heir = bench.open()
    known = heir.parts(bucket, key, upload)
    expect_equal(sum(part.size_bytes for part in known), plan[0].size_bytes, "bytes the server has")
    expect_equal([(part.number, part.offset_bytes) for part in known], [(1, 0)], "parts the server has")
    expect_equal(known[0].etag, first.etag, "etag of the part")
    rest = [_send(heir, bucket, key, upload, part, data) for part in plan[1:]]
    heir.complete(bucket, key, upload, [*known, *rest])
    _arrived(heir, bucket, key, data)


@case
def open_upload_has_no_parts_yet(bench: StoreBench) -> None:
    """parts() of a new upload is empty, not an error."""
    store, bucket, at = bench.area()
    upload = store.open_upload(bucket, at + "fresh", PLAIN, 10)
    expect_equal(bench.open().parts(bucket, at + "fresh", upload), [], "parts")
    store.abort(bucket, at + "fresh", upload)


@case
def part_may_be_sent_twice(bench: StoreBench) -> None:
    """Sending a part again with the same bytes changes nothing: answers get lost."""
    store, bucket, at = bench.area()
    key = at + "again"
    upload, data, plan = _begin(store, bucket, key, 2)
    once = _send(store, bucket, key, upload, plan[0], data)
    twice = _send(store, bucket, key, upload, plan[0], data)
    expect_equal(once.etag, twice.etag, "etag of the part sent twice")
    known = store.parts(bucket, key, upload)
    expect_equal(sum(part.size_bytes for part in known), plan[0].size_bytes, "bytes the server has")
    last = _send(store, bucket, key, upload, plan[1], data)
    store.complete(bucket, key, upload, [twice, last])
    _arrived(store, bucket, key, data)


@case
def missing_part_is_seen(bench: StoreBench) -> None:
    """parts() after sending the first and third of three names exactly these two, and where they belong."""
    store, bucket, at = bench.area()
    key = at + "gap"
    upload, data, plan = _begin(store, bucket, key, 3)
    for part in (plan[2], plan[0]):
        _send(store, bucket, key, upload, part, data)
    known = [(part.number, part.offset_bytes, part.size_bytes) for part in store.parts(bucket, key, upload)]
    expect_equal(
        known,
        [(part.number, part.offset_bytes, part.size_bytes) for part in (plan[0], plan[2])],
        "parts the server has",
    )
    store.abort(bucket, key, upload)


@case
def abort_may_happen_twice(bench: StoreBench) -> None:
    """abort forgets the upload and is silent when it is gone; its parts are not found afterwards."""
    store, bucket, at = bench.area()
    key = at + "aborted"
    upload, data, plan = _begin(store, bucket, key, 2)
    sent = _send(store, bucket, key, upload, plan[0], data)
    store.abort(bucket, key, upload)
    store.abort(bucket, key, upload)
    with expect_error(NotFound, during="parts of an aborted upload"):
        store.parts(bucket, key, upload)
    with expect_error(NotFound, during="a part for an aborted upload"):
        _send(store, bucket, key, upload, plan[1], data)
    with expect_error(NotFound, during="complete of an aborted upload"):
        store.complete(bucket, key, upload, [sent])
    with expect_error(NotFound, during="head of the object that never was"):
        store.head(bucket, key)
    expect_equal(keys(store, bucket, at), [], "keys listed")


@case
def completed_upload_is_over(bench: StoreBench) -> None:
    """After complete, abort is silent and harmless, and parts() raises NotFound or the object stays as it is."""
    store, bucket, at = bench.area()
    key = at + "over"
    upload = store.open_upload(bucket, key, PLAIN, 4)
    sent = _send(store, bucket, key, upload, Part(1, 0, 4, ""), b"done")
    store.complete(bucket, key, upload, [sent])
    store.abort(bucket, key, upload)
    with expect_error(NotFound, during="parts of a completed upload"):
        store.parts(bucket, key, upload)
    expect_equal(store.read(bucket, key), b"done", "bytes after abort of a completed upload")


@case
def upload_keeps_metadata(bench: StoreBench) -> None:
    """Content type, headers, user metadata and tags given at open_upload are on the object."""
    store, bucket, at = bench.area()
    key = at + "meta"
    tags = {"team": "support"} if store.features.tags else {}
    wanted = ObjectMeta("model/gguf", "no-store", 'attachment; filename="m"', "", "en", {"model-revision": "r7"}, tags)
    upload = store.open_upload(bucket, key, wanted, 4)
    sent = _send(store, bucket, key, upload, Part(1, 0, 4, ""), b"GGUF")
    store.complete(bucket, key, upload, [sent])
    _, meta = bench.open().head(bucket, key)
    got = replace(meta, user=dict(meta.user), tags=dict(meta.tags))
    expect_equal(got, wanted, "metadata")


@case
def two_uploads_of_one_key_stay_apart(bench: StoreBench) -> None:
    """Two open uploads of one key do not mix: the second to complete becomes the object, or is refused."""
    store, bucket, at = bench.area()
    key = at + "two"
    data, plan = _cut(store, 2)
    other = bytes(reversed(data))
    first = store.open_upload(bucket, key, PLAIN, len(data))
    second = store.open_upload(bucket, key, PLAIN, len(data))
    expect(first != second, "both uploads have one id")
    sent: dict[str, list[Part]] = {first: [], second: []}
    for part in plan:
        sent[first].append(_send(store, bucket, key, first, part, data))
        sent[second].append(_send(store, bucket, key, second, part, other))
    store.complete(bucket, key, first, sent[first])
    _arrived(store, bucket, key, data)
    try:
        store.complete(bucket, key, second, sent[second])
    except CrossloadError:
        _arrived(store, bucket, key, data)
        store.abort(bucket, key, second)
        return
    _arrived(store, bucket, key, other)


@case
def many_parts_make_the_object(bench: StoreBench) -> None:
    """More parts than any one request takes (35), where parts may be small."""
    store, bucket, at = bench.area()
    if store.features.part_size_bytes_min > 2**18:
        raise NotOffered("parts of this store are too large to send many in a test")
    key = at + "many"
    upload, data, plan = _begin(store, bucket, key, 35)
    sent = [_send(store, bucket, key, upload, part, data) for part in plan]
    store.complete(bucket, key, upload, sent)
    _arrived(store, bucket, key, data)
    expect_equal(keys(store, bucket, at), [key], "keys listed")
    store.delete(bucket, key)


@case
def wrong_part_list_makes_no_object(bench: StoreBench) -> None:
    """complete with a part that was never sent is refused, and no object appears."""
    store, bucket, at = bench.area()
    key = at + "wrong"
    upload, data, plan = _begin(store, bucket, key, 2)
    first = _send(store, bucket, key, upload, plan[0], data)
    never = replace(plan[1], etag=first.etag)
    try:
        store.complete(bucket, key, upload, [first, never])
    except CrossloadError:
        with expect_error(NotFound, during="head after the refused complete"):
            store.head(bucket, key)
    else:
        raise Broken("complete took a part that was never sent")
    finally:
        store.abort(bucket, key, upload)
