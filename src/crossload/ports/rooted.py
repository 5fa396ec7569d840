"""A folder of a bucket as if it were the whole bucket: the Store port around the Store port."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from crossload.ports.store import BucketInfo, Bytes, ObjectInfo, ObjectMeta, Part, Store, StoreFeatures


class RootedStore:
    """Whatever bucket is asked for, it is `bucket`, and every key lies under `at` there ("" or a prefix). With `only`
    the one object of that name, as if nothing else were there."""

    def __init__(self, inner: Store, bucket: str, at: str = "", only: str = "") -> None:
        self._inner, self._bucket, self._at, self._only = inner, bucket, at, only
        self.place = inner.place

    @property
    def features(self) -> StoreFeatures:
        return self._inner.features

    def uri(self, bucket: str, key: str = "") -> str:
        return self._inner.uri(self._bucket, self._at + key)

    def buckets(self) -> list[BucketInfo]:
        return [item for item in self._inner.buckets() if item.name == self._bucket]

    def ensure_bucket(self, bucket: str) -> bool:
        return self._inner.ensure_bucket(self._bucket)

    def remove_bucket(self, bucket: str) -> bool:
        return self._inner.remove_bucket(self._bucket)

    def list(self, bucket: str, prefix: str = "", start_after: str = "") -> Iterator[ObjectInfo]:
        after = self._at + start_after if start_after else ""
        if self._only and not self._only.startswith(prefix):
            return
        for info in self._inner.list(self._bucket, self._at + (self._only or prefix), after):
            if not self._only or info.key == self._at + self._only:
                yield self._inside(info)
                if self._only:
                    return

    def versions(self, bucket: str) -> Iterator[ObjectInfo]:
        for info in self._inner.versions(self._bucket):
            if info.key.startswith(self._at) and (not self._only or info.key == self._at + self._only):
                yield self._inside(info)

    def head(self, bucket: str, key: str) -> tuple[ObjectInfo, ObjectMeta]:
        info, meta = self._inner.head(self._bucket, self._at + key)
        return self._inside(info), meta

    def read(self, bucket: str, key: str, start: int = 0, length: int | None = None, if_match: str = "") -> bytes:
        return self._inner.read(self._bucket, self._at + key, start, length, if_match)

    def read_into(self, bucket: str, key: str, start: int, buffer: memoryview, if_match: str = "") -> int:
        return self._inner.read_into(self._bucket, self._at + key, start, buffer, if_match)

    def fetch(self, bucket: str, key: str, buffer: memoryview, if_match: str = "") -> tuple[ObjectInfo, ObjectMeta]:
        info, meta = self._inner.fetch(self._bucket, self._at + key, buffer, if_match)
        return self._inside(info), meta

    def write(self, bucket: str, key: str, data: Bytes, meta: ObjectMeta, **more: Any) -> ObjectInfo:
        return self._inside(self._inner.write(self._bucket, self._at + key, data, meta, **more))

    def open_upload(self, bucket: str, key: str, meta: ObjectMeta, size_bytes: int) -> str:
        return self._inner.open_upload(self._bucket, self._at + key, meta, size_bytes)

    def write_part(self, bucket: str, key: str, upload: str, part: Part, data: Bytes, **more: Any) -> Part:
        return self._inner.write_part(self._bucket, self._at + key, upload, part, data, **more)

    def parts(self, bucket: str, key: str, upload: str) -> list[Part]:
        return self._inner.parts(self._bucket, self._at + key, upload)

    def complete(self, bucket: str, key: str, upload: str, parts: list[Part], **more: Any) -> ObjectInfo:
        return self._inside(self._inner.complete(self._bucket, self._at + key, upload, parts, **more))

    def abort(self, bucket: str, key: str, upload: str) -> None:
        self._inner.abort(self._bucket, self._at + key, upload)

    def delete(self, bucket: str, key: str, if_match: str = "") -> None:
        self._inner.delete(self._bucket, self._at + key, if_match)

    def freeze(self, bucket: str) -> str:
        return self._inner.freeze(self._bucket)

    def thaw(self, bucket: str, token: str) -> None:
        self._inner.thaw(self._bucket, token)

    def _inside(self, info: ObjectInfo) -> ObjectInfo:
        return replace(info, key=info.key[len(self._at) :]) if self._at else info
