"""An honest Store in memory: conditions, versions, digests, uploads in parts. And it can be made to fail on purpose.

`hook(call)` is asked before and after every call; what it raises is what the caller sees. An error raised *after* the
call is a lost answer: the effect is there, the caller does not know."""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from awscrt import checksums

from crossload.estate.digest import Digest
from crossload.ports.errors import Invalid, NotFound, PreconditionFailed, Unsupported
from crossload.ports.store import BucketInfo, Bytes, Digests, ObjectInfo, ObjectMeta, Part, PlainReads, StoreFeatures

_BARE = ObjectMeta()
FEATURES = StoreFeatures(
    digests_returned=frozenset({"crc64nvme"}),
    digests_verified=frozenset({"crc64nvme"}),
    versions=True,
    tags=True,
    part_size_bytes_min=1,
)


@dataclass(frozen=True, slots=True)
class Call:
    """One call: `number` counts from 1 over the whole store, `when` is before or after."""

    number: int
    when: str
    name: str
    bucket: str
    key: str


Hook = Callable[[Call], None]


@dataclass(frozen=True, slots=True)
class Stored:
    data: bytes
    meta: ObjectMeta
    info: ObjectInfo


@dataclass(slots=True)
class Upload:
    bucket: str
    key: str
    meta: ObjectMeta
    parts: dict[int, tuple[Part, bytes]] = field(default_factory=dict)


def digests_of(data: bytes, algorithms: frozenset[str]) -> tuple[Digest, ...]:
    known: Mapping[str, Callable[[], str]] = {
        "crc64nvme": lambda: checksums.crc64nvme(data).to_bytes(8, "big").hex(),
        "crc32c": lambda: checksums.crc32c(data).to_bytes(4, "big").hex(),
        "md5": lambda: hashlib.md5(data).hexdigest(),
    }
    return tuple(Digest(name, known[name]()) for name in sorted(algorithms))


class MemoryStore(PlainReads):
    """`listed_digests=False` behaves like stores that tell digests on head only."""

    def __init__(
        self, place: str = "memory", features: StoreFeatures = FEATURES, *, listed_digests: bool = True
    ) -> None:
        self.place = place
        self.features = features
        self.listed_digests = listed_digests
        self.hook: Hook = lambda _: None
        self.calls = 0
        self.log: list[tuple[str, str]] = []
        self.sent_bytes = 0
        self.objects: dict[str, dict[str, Stored]] = {}
        self.history: dict[str, list[ObjectInfo]] = {}
        self.kept: dict[tuple[str, str], Stored] = {}  # (bucket, version) -> what it was
        self.versioned_buckets: set[str] | None = None  # None: all of them
        self.uploads: dict[str, Upload] = {}
        self._mutex = threading.RLock()
        self._numbers = itertools.count(1)

    # -- for tests ---------------------------------------------------------------------------------------------------

    def put(self, bucket: str, key: str, data: bytes, meta: ObjectMeta = _BARE) -> ObjectInfo:
        """Write behind the hook's back, as another party would."""
        with self._mutex:
            return self._place(bucket, key, data, meta)

    def drop(self, bucket: str, key: str) -> None:
        with self._mutex:
            self._remove(bucket, key)

    def flip(self, bucket: str, key: str, position: int) -> None:
        """Change one byte, as a disk or a stranger would: new etag, new digest."""
        with self._mutex:
            old = self.objects[bucket][key]
            data = bytearray(old.data)
            data[position] ^= 0x01
            self._place(bucket, key, bytes(data), old.meta)

    def contents(self, bucket: str) -> dict[str, tuple[bytes, ObjectMeta]]:
        with self._mutex:
            return {key: (item.data, item.meta) for key, item in sorted(self.objects[bucket].items())}

    def bytes_of(self, bucket: str) -> dict[str, bytes]:
        return {key: data for key, (data, _) in self.contents(bucket).items()}

    def uri(self, bucket: str, key: str = "") -> str:
        return f"memory://{bucket}/{key}"

    # -- the port ----------------------------------------------------------------------------------------------------

    def buckets(self) -> list[BucketInfo]:
        with self._call("buckets"):
            return [BucketInfo(name) for name in sorted(self.objects)]

    def ensure_bucket(self, bucket: str) -> bool:
        with self._call("ensure_bucket", bucket):
            if bucket in self.objects:
                return False
            self.objects[bucket] = {}
            self.history[bucket] = []
            return True

    def remove_bucket(self, bucket: str) -> bool:
        with self._call("remove_bucket", bucket):
            if self.objects.get(bucket):
                raise PreconditionFailed(f"bucket {bucket} is not empty")
            return self.objects.pop(bucket, None) is not None

    def list(self, bucket: str, prefix: str = "", start_after: str = "") -> Iterator[ObjectInfo]:
        with self._call("list", bucket):
            infos = [item.info for key, item in self._bucket(bucket).items() if key.startswith(prefix)]
            infos = [info for info in infos if not start_after or info.key < start_after]
        # The order of a listing is the store's own: ours is backwards, so that nobody relies on it.
        for info in sorted(infos, key=lambda item: item.key, reverse=True):
            with self._call("list-item", bucket, info.key):
                pass
            yield info if self.listed_digests else replace(info, digests=())

    def versions(self, bucket: str) -> Iterator[ObjectInfo]:
        if not self.features.versions:
            raise Unsupported(f"{self.place} keeps no versions")
        with self._call("versions", bucket):
            current = {key: item.info.version for key, item in self._bucket(bucket).items()}
            last = {info.key: info.version for info in self.history[bucket]}
            found = [
                replace(info, is_latest=last[info.key] == info.version if info.is_delete_marker
                        else current.get(info.key) == info.version)
                for info in self.history[bucket]
            ]  # fmt: skip
        yield from sorted(reversed(found), key=lambda info: info.key)

    def keeps_versions(self, bucket: str) -> bool:
        self._needs_versions()
        return self.versioned_buckets is None or bucket in self.versioned_buckets

    def keep_versions(self, bucket: str) -> None:
        self._needs_versions()
        if self.versioned_buckets is not None:
            self.versioned_buckets.add(bucket)

    def head_version(self, bucket: str, key: str, version: str) -> tuple[ObjectInfo, ObjectMeta]:
        with self._call("head_version", bucket, key):
            item = self._version(bucket, key, version)
            return item.info, item.meta

    def read_version_into(self, bucket: str, key: str, version: str, start: int, buffer: memoryview) -> int:
        with self._call("read_version_into", bucket, key):
            data = self._version(bucket, key, version).data[start : start + len(buffer)]
            buffer[: len(data)] = data
            return len(data)

    def delete_version(self, bucket: str, key: str, version: str) -> None:
        with self._call("delete_version", bucket, key):
            self.history[bucket] = [info for info in self.history[bucket] if info.version != version]
            self.kept.pop((bucket, version), None)
            left = [info for info in self.history[bucket] if info.key == key]
            if left and not left[-1].is_delete_marker:
                self.objects[bucket][key] = self.kept[bucket, left[-1].version]
            else:
                self.objects[bucket].pop(key, None)

    def mark_deleted(self, bucket: str, key: str) -> str:
        with self._call("mark_deleted", bucket, key):
            self._needs_versions()
            self._bucket(bucket).pop(key, None)
            mark = ObjectInfo(key, 0, "", f"v{next(self._numbers)}", is_delete_marker=True)
            self.history[bucket].append(mark)
            return mark.version

    def _needs_versions(self) -> None:
        if not self.features.versions:
            raise Unsupported(f"{self.place} keeps no versions")

    def _version(self, bucket: str, key: str, version: str) -> Stored:
        if (bucket, version) not in self.kept:
            raise NotFound(f"no version {version} of {bucket}/{key}")
        return self.kept[bucket, version]

    def head(self, bucket: str, key: str) -> tuple[ObjectInfo, ObjectMeta]:
        with self._call("head", bucket, key):
            item = self._object(bucket, key)
            return item.info, item.meta

    def read(self, bucket: str, key: str, start: int = 0, length: int | None = None, if_match: str = "") -> bytes:
        with self._call("read", bucket, key):
            item = self._object(bucket, key)
            if if_match and self.features.conditional_read and item.info.etag != if_match:
                raise PreconditionFailed(f"{bucket}/{key} is not {if_match} any more")
            return item.data[start : None if length is None else start + length]

    def write(
        self, bucket: str, key: str, data: Bytes, meta: ObjectMeta, *, if_absent: bool = False, if_match: str = "",
        digests: Digests = (),
    ) -> ObjectInfo:  # fmt: skip
        with self._call("write", bucket, key):
            self.sent_bytes += len(data)
            self._check(bucket, key, if_absent, if_match)
            return self._place(bucket, key, bytes(data), self._held(meta))

    def open_upload(self, bucket: str, key: str, meta: ObjectMeta, size_bytes: int) -> str:
        with self._call("open_upload", bucket, key):
            self._bucket(bucket)
            name = f"upload-{next(self._numbers)}"
            self.uploads[name] = Upload(bucket, key, self._held(meta))
            return name

    def write_part(
        self, bucket: str, key: str, upload: str, part: Part, data: Bytes, *, last: bool, digests: Digests = ()
    ) -> Part:
        with self._call("write_part", bucket, key):
            self.sent_bytes += len(data)
            open_one = self._upload(upload)
            if len(data) != part.size_bytes or part.number > self.features.parts_max:
                raise Invalid(f"part {part.number} of {len(data)} bytes is not what was announced")
            if not last and part.size_bytes < self.features.part_size_bytes_min:
                raise Invalid(f"part {part.number} is smaller than {self.features.part_size_bytes_min} bytes")
            kept = replace(part, etag=hashlib.md5(data).hexdigest())
            open_one.parts[part.number] = (kept, bytes(data))
            return kept

    def parts(self, bucket: str, key: str, upload: str) -> list[Part]:
        with self._call("parts", bucket, key):
            return [part for _, (part, _) in sorted(self._upload(upload).parts.items())]

    def complete(
        self, bucket: str, key: str, upload: str, parts: list[Part], *, if_absent: bool = False, if_match: str = ""
    ) -> ObjectInfo:
        with self._call("complete", bucket, key):
            item = self._upload(upload)
            found = [item.parts.get(part.number) for part in parts]
            chosen = [one for one, part in zip(found, parts, strict=True) if one and one[0].etag == part.etag]
            if sum(len(data) for _, data in chosen) != sum(part.size_bytes for part in parts):
                raise Invalid("a part of this list was never sent")
            self._check(bucket, key, if_absent, if_match)
            del self.uploads[upload]
            return self._place(bucket, key, b"".join(data for _, data in chosen), item.meta)

    def abort(self, bucket: str, key: str, upload: str) -> None:
        with self._call("abort", bucket, key):
            self.uploads.pop(upload, None)

    def delete(self, bucket: str, key: str, if_match: str = "") -> None:
        with self._call("delete", bucket, key):
            held = self._bucket(bucket).get(key)
            if held is None:
                return
            if if_match and held.info.etag != if_match:
                raise PreconditionFailed(f"{bucket}/{key} is not {if_match} any more")
            self._remove(bucket, key)

    def freeze(self, bucket: str) -> str:
        raise Unsupported("memory cannot freeze")

    def thaw(self, bucket: str, token: str) -> None:
        return

    # -- inside ------------------------------------------------------------------------------------------------------

    @contextmanager
    def _call(self, name: str, bucket: str = "", key: str = "") -> Iterator[None]:
        with self._mutex:
            self.calls += 1
            number = self.calls
            self.log.append((name, key))
        self.hook(Call(number, "before", name, bucket, key))
        with self._mutex:
            yield
        self.hook(Call(number, "after", name, bucket, key))

    def _bucket(self, bucket: str) -> dict[str, Stored]:
        if bucket not in self.objects:
            raise NotFound(f"no bucket {bucket}")
        return self.objects[bucket]

    def _object(self, bucket: str, key: str) -> Stored:
        if key not in self._bucket(bucket):
            raise NotFound(f"no object {bucket}/{key}")
        return self.objects[bucket][key]

    def _upload(self, upload: str) -> Upload:
        if upload not in self.uploads:
            raise NotFound(f"no upload {upload}")
        return self.uploads[upload]

    def _check(self, bucket: str, key: str, if_absent: bool, if_match: str) -> None:
        held = self._bucket(bucket).get(key)
        if if_absent and held is not None:
            raise PreconditionFailed(f"{bucket}/{key} is there already")
        if if_match and (held is None or held.info.etag != if_match):
            raise PreconditionFailed(f"{bucket}/{key} is not {if_match} any more")

    def _place(self, bucket: str, key: str, data: bytes, meta: ObjectMeta) -> ObjectInfo:
        number = next(self._numbers)
        version = f"v{number}" if self.features.versions else ""
        digests = digests_of(data, self.features.digests_returned)
        info = ObjectInfo(key, len(data), f"etag-{number}", version, float(number), digests)
        self._bucket(bucket)[key] = Stored(data, meta, info)
        self.history[bucket].append(info)
        self.kept[bucket, version] = self.objects[bucket][key]
        return info

    def _remove(self, bucket: str, key: str) -> None:
        if self._bucket(bucket).pop(key, None) is not None and self.features.versions:
            mark = ObjectInfo(key, 0, "", f"v{next(self._numbers)}", is_delete_marker=True)
            self.history[bucket].append(mark)

    def _held(self, meta: ObjectMeta) -> ObjectMeta:
        """What a server of this kind keeps: lower-case names of user metadata, and tags only where there are tags."""
        user = {name.lower(): value for name, value in meta.user.items()}
        return replace(meta, user=user, tags=dict(meta.tags) if self.features.tags else {})
