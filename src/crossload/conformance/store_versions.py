"""Where an object lies, how long caches keep it, and single versions of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from crossload.conformance.case import NotOffered, expect, expect_equal, expect_error
from crossload.conformance.store_bench import STORE, StoreBench, put, sample
from crossload.ports.errors import NotFound, Unsupported
from crossload.ports.store import STORAGE_CLASSES, ObjectMeta, Part, VersionedStore, versioned

case = STORE.case
_EXPIRES = "Thu, 01 Dec 2033 16:00:00 GMT"


def _class_case(word: str, *, in_parts: bool) -> Callable[[StoreBench], None]:
    def run(bench: StoreBench) -> None:
        store, bucket, at = bench.area()
        if word not in store.features.storage_classes:
            raise NotOffered(f"the store has no class `{word}`")
        meta, key = ObjectMeta("text/plain", user={"a": "b"}, storage_class=word), at + "cool"
        if in_parts:
            upload = store.open_upload(bucket, key, meta, 4)
            part = store.write_part(bucket, key, upload, Part(1, 0, 4, ""), b"cool", last=True)
            store.complete(bucket, key, upload, [part])
        else:
            put(store, bucket, key, b"cool", meta)
        _, held = store.head(bucket, key)
        expect_equal((held.storage_class, dict(held.user)), (word, {"a": "b"}), "class and metadata")
        if word not in store.features.classes_offline:
            expect_equal(store.read(bucket, key), b"cool", "bytes")
        else:
            _expect_a_word_when_archived(bench, key)

    return run


def _expect_a_word_when_archived(bench: StoreBench, key: str) -> None:
    """Emulators hand the bytes out all the same; a store that does not must say how to get at them."""
    store, bucket, _ = bench.area()
    try:
        data = store.read(bucket, key)
    except Unsupported as error:
        expect(bool(error.hint), "an archived object is refused without a hint what to do")
        return
    expect_equal(data, b"cool", "bytes of an archived object")


for _word in STORAGE_CLASSES:
    for _in_parts, _how in ((False, ""), (True, "_in_parts")):
        _promise = f"An object written{_how.replace('_', ' ')} in storage class `{_word}` says so on head."
        STORE.add(f"class_{_word}{_how}", _promise, _class_case(_word, in_parts=_in_parts))


@case
def standard_is_no_class(bench: StoreBench) -> None:
    """An object that was written without a class has the class "", however the store calls it."""
    store, bucket, at = bench.area()
    put(store, bucket, at + "plain", b"x", ObjectMeta("text/plain"))
    expect_equal(store.head(bucket, at + "plain")[1].storage_class, "", "storage class")


@case
def expires_makes_the_round_trip(bench: StoreBench) -> None:
    """The date until which caches may keep an object comes back as written."""
    store, bucket, at = bench.area()
    if not store.features.expires:
        raise NotOffered("the store keeps no Expires date")
    put(store, bucket, at + "dated", b"x", ObjectMeta("text/plain", expires=_EXPIRES))
    expect_equal(store.head(bucket, at + "dated")[1].expires, _EXPIRES, "expires")


# -- single versions -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _versioned(bench: StoreBench, purpose: str) -> Iterator[tuple[VersionedStore, str]]:
    store = bench.open()
    bucket = ""
    try:
        single = versioned(store)
        bucket = bench.own_bucket(store, purpose)
        if not single.keeps_versions(bucket):
            if bench.keep_versions is None:
                raise NotOffered("this bench may not turn versions on")
            single.keep_versions(bucket)
            expect(single.keeps_versions(bucket), "keep_versions was told, and the bucket keeps none")
        yield single, bucket
    except Unsupported as error:
        raise NotOffered(str(error)) from error
    finally:
        if bucket:
            bench.drop(store, bucket)


@case
def single_versions_are_read(bench: StoreBench) -> None:
    """Every version is headed and read by its name, with its own bytes and metadata, also after a delete."""
    with _versioned(bench, "single") as (store, bucket):
        written: dict[str, bytes] = {}
        for number in range(3):
            data = sample(number, 1000 + number)
            info = store.write(bucket, "doc", data, ObjectMeta("text/plain", user={"number": str(number)}))
            written[info.version] = data
        store.mark_deleted(bucket, "doc")
        for number, (version, data) in enumerate(written.items()):
            info, meta = store.head_version(bucket, "doc", version)
            expect_equal((info.size_bytes, info.version), (len(data), version), f"version {number}")
            expect_equal(dict(meta.user), {"number": str(number)}, f"metadata of version {number}")
            buffer = bytearray(len(data))
            count = store.read_version_into(bucket, "doc", version, 0, memoryview(buffer))
            expect_equal((count, bytes(buffer)), (len(data), data), f"bytes of version {number}")
            middle = bytearray(10)
            store.read_version_into(bucket, "doc", version, 500, memoryview(middle))
            expect_equal(bytes(middle), data[500:510], f"a range of version {number}")
        with expect_error(NotFound, during="head after mark_deleted"):
            store.head(bucket, "doc")


@case
def versions_come_newest_first(bench: StoreBench) -> None:
    """Versions and delete markers of a key come in the order in which they were made, the newest first."""
    with _versioned(bench, "order") as (store, bucket):
        made: list[str] = []
        for step in "wwdwdwwd":  # faster than clocks tick
            if step == "w":
                made.append(
                    store.write(bucket, "doc", sample(len(made), 10 + len(made)), ObjectMeta("text/plain")).version
                )
            else:
                made.append(store.mark_deleted(bucket, "doc"))
        wanted = [version for version in reversed(made) if version]  # no name: this store marks no deletes
        put(store, bucket, "dob", b"before")
        put(store, bucket, "doe", b"behind")
        listed = list(store.versions(bucket))
        expect_equal([info.version for info in listed if info.key == "doc"], wanted, "versions")
        keys = [info.key for info in listed]
        expect_equal(
            len([key for key, after in zip(keys, [*keys[1:], ""], strict=True) if key != after]), 3, "runs of keys"
        )
        latest = [info.version for info in listed if info.key == "doc" and info.is_latest]
        expect_equal(latest, wanted[:1] if made[-1] else [], "latest")


@case
def one_version_is_deleted(bench: StoreBench) -> None:
    """delete_version removes one version or marker for good, and may happen twice."""
    with _versioned(bench, "undo") as (store, bucket):
        first, second = (put(store, bucket, "doc", data).version for data in (b"one", b"two"))
        marker = store.mark_deleted(bucket, "doc")
        if marker:
            store.delete_version(bucket, "doc", marker)
            expect_equal(store.read(bucket, "doc"), b"two", "bytes once the marker is gone")
        for _ in range(2):
            store.delete_version(bucket, "doc", second)
        expect_equal([info.version for info in store.versions(bucket)], [first], "versions left")
        with expect_error(NotFound, during="head of the deleted version"):
            store.head_version(bucket, "doc", second)
