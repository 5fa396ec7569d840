"""Where the Store cases work: buckets of their own, and the doors a provider's test can open for them."""

from __future__ import annotations

import contextlib
import itertools
import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from crossload.conformance.case import Collection
from crossload.ports.errors import CrossloadError
from crossload.ports.store import ObjectInfo, ObjectMeta, Store, versioned

PLAIN = ObjectMeta(content_type="application/octet-stream")


@dataclass(slots=True)
class StoreBench:
    """`open` gives a new Store, as a new process would; `bucket_name` turns a purpose into a name that is free.

    The optional doors show what only a second party can show; a case whose door is None is `not-offered`:
    `unsigned` (wrong credentials), `stranger` (right credentials without rights), `writer` (another identity that may
    write), `absent` (a server that does not answer), `keep_versions` (turn versioning of a bucket on),
    `write_damaged` (send bytes with a digest that is not theirs; must raise). `many_keys` is more than one page of a
    list; benches that share a bucket need a `folder` each."""

    open: Callable[[], Store]
    bucket_name: Callable[[str], str] = field(default=lambda purpose: f"conf-{purpose}-{secrets.token_hex(4)}")
    unsigned: Callable[[], Store] | None = None
    stranger: Callable[[], Store] | None = None
    writer: Callable[[], Store] | None = None
    absent: Callable[[], Store] | None = None
    keep_versions: Callable[[Store, str], None] | None = None
    write_damaged: Callable[[str, str], None] | None = None
    many_keys: int = 1005
    folder: str = "case"
    threads: int = 8
    _made: list[str] = field(default_factory=list[str])
    _shared: list[str] = field(default_factory=list[str])
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def area(self) -> tuple[Store, str, str]:
        """A store, a bucket shared by most cases, and a key prefix nobody else works under."""
        store = self.open()
        if not self._shared:
            self._shared.append(self.own_bucket(store, "shared"))
        return store, self._shared[0], f"{self.folder}-{next(self._numbers):03d}/"

    def own_bucket(self, store: Store, purpose: str) -> str:
        """A new bucket for one case."""
        bucket = self.bucket_name(purpose)
        self._made.append(bucket)
        store.ensure_bucket(bucket)
        return bucket

    def close(self) -> None:
        """Remove what the cases left. Old versions that cannot be removed keep a bucket alive: then it stays."""
        store = self.open()
        for bucket in self._made:
            with contextlib.suppress(CrossloadError):
                store.thaw(bucket, "")
            self.drop(store, bucket)
        self._made.clear()
        self._shared.clear()

    def drop(self, store: Store, bucket: str) -> None:
        """Remove a bucket of a case with all that lies in it: some servers have room for few of them."""
        with contextlib.suppress(CrossloadError):
            for info in list(store.list(bucket)):
                store.delete(bucket, info.key)
        with contextlib.suppress(CrossloadError):
            single = versioned(store)
            for info in list(single.versions(bucket)):
                single.delete_version(bucket, info.key, info.version)
        with contextlib.suppress(CrossloadError):
            store.remove_bucket(bucket)


STORE = Collection[StoreBench]()


def put(store: Store, bucket: str, key: str, data: bytes, meta: ObjectMeta = PLAIN) -> ObjectInfo:
    return store.write(bucket, key, data, meta)


def keys(store: Store, bucket: str, prefix: str) -> list[str]:
    """Sorted by UTF-8 bytes: the order of `list` is the store's own."""
    return sorted((info.key for info in store.list(bucket, prefix)), key=str.encode)


def sample(seed: int, size_bytes: int) -> bytes:
    """Bytes that do not compress, the same in every run."""
    return random.Random(seed).randbytes(size_bytes)  # noqa: S311  # test data, guards nothing
