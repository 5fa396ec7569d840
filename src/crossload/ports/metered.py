"""Bytes that leave a place, counted before they leave: the Store port around the Store port."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from crossload.ports.store import ObjectInfo, ObjectMeta, Store


def metered(inner: Store, count: Callable[[int], None]) -> Store:
    """The same store; `count` hears of every byte that is about to leave it."""
    return cast("Store", _MeteredStore(inner, count))


class _MeteredStore:
    """`count` hears of every read before it begins, those that are tried again included. Everything else is the inner
    store's own."""

    def __init__(self, inner: Store, count: Callable[[int], None]) -> None:
        self._inner = inner
        self._count = count

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name != "read_version_into":  # not every store has it, so it is counted where it is found
            return found

        def counted(bucket: str, key: str, version: str, start: int, buffer: memoryview) -> int:
            self._count(len(buffer))
            return found(bucket, key, version, start, buffer)

        return counted

    def read(self, bucket: str, key: str, start: int = 0, length: int | None = None, if_match: str = "") -> bytes:
        if length is not None:
            self._count(length)
            return self._inner.read(bucket, key, start, length, if_match)
        expected = max(0, self._inner.head(bucket, key)[0].size_bytes - start)
        self._count(expected)
        data = self._inner.read(bucket, key, start, None, if_match)
        if len(data) > expected:  # it was replaced by a longer one in between
            self._count(len(data) - expected)
        return data

    def read_into(self, bucket: str, key: str, start: int, buffer: memoryview, if_match: str = "") -> int:
        self._count(len(buffer))
        return self._inner.read_into(bucket, key, start, buffer, if_match)

    def fetch(self, bucket: str, key: str, buffer: memoryview, if_match: str = "") -> tuple[ObjectInfo, ObjectMeta]:
        self._count(len(buffer))
        return self._inner.fetch(bucket, key, buffer, if_match)
