"""The Store port: objects in buckets. One conformance suite holds every provider to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, cast

from crossload.estate.digest import Digest
from crossload.ports.errors import PreconditionFailed, Unsupported

Bytes = bytes | bytearray | memoryview
Digests = tuple[Digest, ...]
# From warm to cold, with the cheaper place each time and the dearer way back; `automatic` is moved by the store itself.
STORAGE_CLASSES = ("infrequent", "cold", "archive", "automatic")


@dataclass(frozen=True, slots=True)
class StoreFeatures:
    """Facts of one store, asked instead of its name.

    `digests_returned`: algorithms the server computes itself and reports on head (trust level `stored`).
    `digests_verified`: algorithms the server checks on write (trust level `sent`).
    `sorted_list`: listings come in UTF-8 order of the keys, so that ranges of keys can be listed side by side.
    `storage_classes`: words of STORAGE_CLASSES that can be written; of these the `classes_offline` cannot be read back
    before somebody restores them.

    Keys: `hierarchical` stores are folders inside (a key is not also a folder, no segment is empty);
    `segment_bytes_max` is one segment between slashes, 0 for no limit; `letters_refused` are in no key, or are changed
    in silence; `trims_dots`: dots and spaces that end a segment may get lost."""

    digests_returned: frozenset[str] = frozenset()
    digests_verified: frozenset[str] = frozenset()
    conditional_create: bool = True
    conditional_read: bool = True
    versions: bool = False
    tags: bool = True
    sorted_list: bool = False
    part_size_bytes_min: int = 5 * 2**20
    parts_max: int = 10_000
    user_metadata_bytes_max: int = 2048
    storage_classes: tuple[str, ...] = ()
    classes_offline: tuple[str, ...] = ()
    expires: bool = False
    hierarchical: bool = False
    case_sensitive: bool = True
    dot_segments: bool = True
    trims_dots: bool = False
    key_bytes_max: int = 1024
    segment_bytes_max: int = 0
    letters_refused: str = ""


@dataclass(frozen=True, slots=True)
class ObjectMeta:
    """What goes with the bytes. `user` keys are lower-case. `tags` is separate, because some stores have none.
    `storage_class` is "" (standard) or a word of STORAGE_CLASSES; `expires` is an HTTP date, for caches."""

    content_type: str = ""
    cache_control: str = ""
    content_disposition: str = ""
    content_encoding: str = ""
    content_language: str = ""
    user: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    storage_class: str = ""
    expires: str = ""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object as listed or written. `etag` is opaque and changes with the bytes; `version` is "" when the store
    keeps none; `modified_at` is seconds since the epoch."""

    key: str
    size_bytes: int
    etag: str
    version: str = ""
    modified_at: float = 0.0
    digests: Digests = ()
    is_latest: bool = True
    is_delete_marker: bool = False

    def digest(self, algorithm: str) -> Digest | None:
        return next((item for item in self.digests if item.algorithm == algorithm), None)


@dataclass(frozen=True, slots=True)
class Part:
    """One part of an open upload; numbers count from 1; `etag` is what `complete` wants back."""

    number: int
    offset_bytes: int
    size_bytes: int
    etag: str


@dataclass(frozen=True, slots=True)
class BucketInfo:
    name: str
    region: str = ""
    versioning: bool | None = None
    encryption: str = "unknown"


class Store(Protocol):
    """All calls are blocking and safe to call from many threads. Errors are those of `ports.errors`.

    Every write may happen twice with the same bytes; `if_absent` and `if_match` keep it from overwriting others."""

    place: str

    @property
    def features(self) -> StoreFeatures:
        """A store may know itself better once it has answered: ask again, rather than keep them."""
        ...

    def uri(self, bucket: str, key: str = "") -> str:
        """The object's address as other tools of this provider write it."""
        ...

    def buckets(self) -> list[BucketInfo]: ...
    def ensure_bucket(self, bucket: str) -> bool:
        """Create it unless it is there. True when it was created now (so that undo may remove it)."""
        ...

    def remove_bucket(self, bucket: str) -> bool:
        """Remove an empty bucket; False when it does not exist."""
        ...

    def list(self, bucket: str, prefix: str = "", start_after: str = "") -> Iterator[ObjectInfo]:
        """Latest versions, those behind the key `start_after` in the store's order. The order is the store's own: sort
        before you rely on it, unless `features.sorted_list`."""
        ...

    def versions(self, bucket: str) -> Iterator[ObjectInfo]:
        """All versions and delete markers; those of one key together, the newest first. `Unsupported` when the store
        keeps none."""
        ...

    def head(self, bucket: str, key: str) -> tuple[ObjectInfo, ObjectMeta]: ...

    def read(self, bucket: str, key: str, start: int = 0, length: int | None = None, if_match: str = "") -> bytes:
        """Bytes [start, start+length). `if_match` is an etag; a changed object raises PreconditionFailed."""
        ...

    def read_into(self, bucket: str, key: str, start: int, buffer: memoryview, if_match: str = "") -> int:
        """`read` into the caller's buffer; how many bytes it took, fewer than it holds where the object ends."""
        ...

    def fetch(self, bucket: str, key: str, buffer: memoryview, if_match: str = "") -> tuple[ObjectInfo, ObjectMeta]:
        """A whole object with all that goes with it, in one request where the store can: `size_bytes` of the buffer
        are filled. PreconditionFailed when it is larger than the buffer, or changed."""
        ...

    def write(
        self, bucket: str, key: str, data: Bytes, meta: ObjectMeta, *, if_absent: bool = False, if_match: str = "",
        digests: Digests = (),
    ) -> ObjectInfo:  # fmt: skip
        """Whole object in one request; the server checks a digest of it where it can. `digests` of the bytes that are
        known already need not be computed again. What is returned names only digests that the server told."""
        ...

    def open_upload(self, bucket: str, key: str, meta: ObjectMeta, size_bytes: int) -> str:
        """Begin an upload in parts; the id survives our own death."""
        ...

    def write_part(
        self, bucket: str, key: str, upload: str, part: Part, data: Bytes, *, last: bool, digests: Digests = ()
    ) -> Part:
        """One part; any order, from many threads. `digests` as for `write`."""
        ...

    def parts(self, bucket: str, key: str, upload: str) -> list[Part]:
        """What the server has of an open upload: the truth that beats any journal. NotFound when it is gone."""
        ...

    def complete(
        self, bucket: str, key: str, upload: str, parts: list[Part], *, if_absent: bool = False, if_match: str = ""
    ) -> ObjectInfo:
        """Make the object from its parts; the condition holds at this moment."""
        ...

    def abort(self, bucket: str, key: str, upload: str) -> None:
        """Forget an open upload; silent when it is gone already."""
        ...

    def delete(self, bucket: str, key: str, if_match: str = "") -> None:
        """Silent when the object is not there."""
        ...

    def freeze(self, bucket: str) -> str:
        """Deny writes for everybody but us; returns what `thaw` needs. `Unsupported` when the store cannot."""
        ...

    def thaw(self, bucket: str, token: str) -> None: ...


class VersionedStore(Store, Protocol):
    """What a store must be able to do besides, so that the history of a bucket can be carried. `version` is a name
    that `versions` gave; NotFound when it is gone."""

    def keeps_versions(self, bucket: str) -> bool:
        """Whether the bucket keeps what is overwritten or deleted in it from now on."""
        ...

    def keep_versions(self, bucket: str) -> None:
        """Make it so."""
        ...

    def head_version(self, bucket: str, key: str, version: str) -> tuple[ObjectInfo, ObjectMeta]: ...

    def read_version_into(self, bucket: str, key: str, version: str, start: int, buffer: memoryview) -> int:
        """As `read_into`, of one version."""
        ...

    def delete_version(self, bucket: str, key: str, version: str) -> None:
        """This version or delete marker, for good; silent when it is gone."""
        ...

    def mark_deleted(self, bucket: str, key: str) -> str:
        """Delete the object as a user would, and keep its versions. The name of the delete marker, "" in a store that
        marks no deletes."""
        ...


_VERSION_CALLS = (
    "keeps_versions", "keep_versions", "head_version", "read_version_into", "delete_version", "mark_deleted",
)  # fmt: skip


def versioned(store: Store) -> VersionedStore:
    """The same store, if it can be asked for single versions. Raises Unsupported when it cannot."""
    if not store.features.versions or not all(hasattr(store, name) for name in _VERSION_CALLS):
        raise Unsupported(
            f"{store.place} cannot read and write single versions", hint="carry the latest versions: `versions: latest`"
        )
    return cast("VersionedStore", store)


class PlainReads:
    """`read_into` and `fetch` for stores whose clients can only hand out bytes: one copy more, one request more."""

    def head(self, bucket: str, key: str) -> tuple[ObjectInfo, ObjectMeta]:
        raise NotImplementedError

    def read(self, bucket: str, key: str, start: int = 0, length: int | None = None, if_match: str = "") -> bytes:
        raise NotImplementedError

    def read_into(self, bucket: str, key: str, start: int, buffer: memoryview, if_match: str = "") -> int:
        data = self.read(bucket, key, start, len(buffer), if_match)
        buffer[: len(data)] = data
        return len(data)

    def fetch(self, bucket: str, key: str, buffer: memoryview, if_match: str = "") -> tuple[ObjectInfo, ObjectMeta]:
        info, meta = self.head(bucket, key)
        if (if_match and info.etag != if_match) or info.size_bytes > len(buffer):
            raise PreconditionFailed(f"{bucket}/{key} is not the object that was listed")
        count = self.read_into(bucket, key, 0, buffer[: info.size_bytes], info.etag)
        if count != info.size_bytes:
            raise PreconditionFailed(f"{bucket}/{key}: {count} of {info.size_bytes} bytes")
        return info, meta
