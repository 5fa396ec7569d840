"""Retry is the Store port around the Store port: full-jitter backoff on errors that say they are retryable, and fewer
requests at a time while the store says "slow down"."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from crossload.ports.errors import CrossloadError, Throttled
from crossload.ports.store import BucketInfo, Bytes, ObjectInfo, ObjectMeta, Part, Store, StoreFeatures, versioned

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Waits up to `base * 2**attempt` seconds (full jitter, at most `delay_seconds_max`), gives up `give_up_seconds`
    after the first failure. A server's Retry-After is a lower bound."""

    base_seconds: float = 0.2
    delay_seconds_max: float = 5.0
    give_up_seconds: float = 120.0


class Pace:
    """How many requests may be under way at a store: halved when it says "slow down", one more after a whole round
    without (additive increase, multiplicative decrease, as TCP does it; Chiu and Jain 1989)."""

    def __init__(self, requests_max: int = 256) -> None:
        self._most = float(requests_max)
        self._mutex = threading.Lock()
        self._free = threading.Condition(self._mutex)
        self._waiting = 0
        self._window = self._most
        self._under_way = 0
        self.slowed = 0

    @property
    def window(self) -> float:
        return self._window

    def enter(self) -> None:
        with self._mutex:
            while self._under_way >= self._window:
                self._waiting += 1
                self._free.wait()
                self._waiting -= 1
            self._under_way += 1

    def leave(self, *, throttled: bool) -> None:
        with self._mutex:
            if throttled:
                # Not below one; and from what is really under way, or a wide window would take many refusals to close.
                self._window = max(1.0, min(self._window, float(self._under_way)) / 2)
                self.slowed += 1
            elif self._window < self._most:
                self._window = min(self._most, self._window + 1 / self._window)
            self._under_way -= 1
            if self._waiting:
                self._free.notify()


def retry(
    call: Callable[[], Result], policy: RetryPolicy, say: Callable[[str], None], pace: Pace | None = None
) -> Result:
    """Call until it works, the error is final, or the time is up."""
    started = 0.0
    attempt = 0
    while True:
        throttled = False
        if pace is not None:
            pace.enter()
        try:
            return call()
        except CrossloadError as error:
            throttled = isinstance(error, Throttled)
            now = time.monotonic()
            started = started or now
            if not error.retryable or now - started > policy.give_up_seconds:
                raise
            problem = error
        finally:
            if pace is not None:
                pace.leave(throttled=throttled)
        ceiling = min(policy.delay_seconds_max, policy.base_seconds * 2**attempt)
        delay = max(random.uniform(0, ceiling), problem.retry_after_seconds or 0.0)  # noqa: S311
        if attempt in (3, 6) or attempt % 10 == 9:
            say(f"waiting for a store to come back: {problem}")
        attempt += 1
        time.sleep(delay)


class RetryingStore:
    """A Store that waits for a store. Conditional writes may report PreconditionFailed for our own first attempt whose
    answer was lost: the caller compares digests before it believes in a stranger."""

    def __init__(self, inner: Store, policy: RetryPolicy, say: Callable[[str], None]) -> None:
        self._inner = inner
        self._policy = policy
        self._say = say
        self.place = inner.place
        self.pace = Pace()

    @property
    def features(self) -> StoreFeatures:
        """Those of the store, which may know itself better after its first answer."""
        return self._inner.features

    def _retry(self, call: Callable[[], Result]) -> Result:
        return retry(call, self._policy, self._say, self.pace)

    def uri(self, bucket: str, key: str = "") -> str:
        return self._inner.uri(bucket, key)

    def buckets(self) -> list[BucketInfo]:
        return self._retry(self._inner.buckets)

    def ensure_bucket(self, bucket: str) -> bool:
        return self._retry(lambda: self._inner.ensure_bucket(bucket))

    def remove_bucket(self, bucket: str) -> bool:
        return self._retry(lambda: self._inner.remove_bucket(bucket))

    def list(self, bucket: str, prefix: str = "", start_after: str = "") -> Iterator[ObjectInfo]:
        """A listing that breaks off goes on behind the last key that came."""
        attempt = 0
        came = time.monotonic()  # when something last came: a listing of hours is not given up for its length
        while True:
            try:
                for item in self._inner.list(bucket, prefix, start_after):
                    came = time.monotonic()
                    start_after = item.key
                    yield item
                return
            except CrossloadError as error:
                attempt = self._wait(error, attempt, came)

    def versions(self, bucket: str) -> Iterator[ObjectInfo]:
        """A listing that breaks off starts again and skips what was given already."""
        given: set[tuple[str, str]] = set()
        attempt = 0
        came = time.monotonic()
        while True:
            try:
                for item in self._inner.versions(bucket):
                    came = time.monotonic()
                    if (item.key, item.version) not in given:
                        given.add((item.key, item.version))
                        yield item
                return
            except CrossloadError as error:
                attempt = self._wait(error, attempt, came)

    def _wait(self, error: CrossloadError, attempt: int, came: float) -> int:
        policy = self._policy
        if not error.retryable or time.monotonic() - came > policy.give_up_seconds:
            raise error
        attempt += 1
        if attempt in (2, 5) or attempt % 10 == 0:
            self._say(f"waiting for a store to come back: {error}")
        time.sleep(random.uniform(policy.base_seconds, policy.delay_seconds_max))  # noqa: S311
        return attempt

    def head(self, bucket: str, key: str) -> tuple[ObjectInfo, ObjectMeta]:
        return self._retry(lambda: self._inner.head(bucket, key))

    def read(self, bucket: str, key: str, start: int = 0, length: int | None = None, if_match: str = "") -> bytes:
        return self._retry(lambda: self._inner.read(bucket, key, start, length, if_match))

    def read_into(self, bucket: str, key: str, start: int, buffer: memoryview, if_match: str = "") -> int:
        return self._retry(lambda: self._inner.read_into(bucket, key, start, buffer, if_match))

    def fetch(self, bucket: str, key: str, buffer: memoryview, if_match: str = "") -> tuple[ObjectInfo, ObjectMeta]:
        return self._retry(lambda: self._inner.fetch(bucket, key, buffer, if_match))

    def write(self, bucket: str, key: str, data: Bytes, meta: ObjectMeta, **more: Any) -> ObjectInfo:
        return self._retry(lambda: self._inner.write(bucket, key, data, meta, **more))

    def open_upload(self, bucket: str, key: str, meta: ObjectMeta, size_bytes: int) -> str:
        return self._retry(lambda: self._inner.open_upload(bucket, key, meta, size_bytes))

    def write_part(self, bucket: str, key: str, upload: str, part: Part, data: Bytes, **more: Any) -> Part:
        return self._retry(lambda: self._inner.write_part(bucket, key, upload, part, data, **more))

    def parts(self, bucket: str, key: str, upload: str) -> list[Part]:
        return self._retry(lambda: self._inner.parts(bucket, key, upload))

    def complete(self, bucket: str, key: str, upload: str, parts: list[Part], **conditions: Any) -> ObjectInfo:
        return self._retry(lambda: self._inner.complete(bucket, key, upload, parts, **conditions))

    def abort(self, bucket: str, key: str, upload: str) -> None:
        self._retry(lambda: self._inner.abort(bucket, key, upload))

    def delete(self, bucket: str, key: str, if_match: str = "") -> None:
        self._retry(lambda: self._inner.delete(bucket, key, if_match))

    def freeze(self, bucket: str) -> str:
        return self._retry(lambda: self._inner.freeze(bucket))

    def thaw(self, bucket: str, token: str) -> None:
        self._retry(lambda: self._inner.thaw(bucket, token))

    # -- single versions; Unsupported where the store has none ---------------------------------------------------------

    def keeps_versions(self, bucket: str) -> bool:
        return self._retry(lambda: versioned(self._inner).keeps_versions(bucket))

    def keep_versions(self, bucket: str) -> None:
        self._retry(lambda: versioned(self._inner).keep_versions(bucket))

    def head_version(self, bucket: str, key: str, version: str) -> tuple[ObjectInfo, ObjectMeta]:
        return self._retry(lambda: versioned(self._inner).head_version(bucket, key, version))

    def read_version_into(self, bucket: str, key: str, version: str, start: int, buffer: memoryview) -> int:
        return self._retry(lambda: versioned(self._inner).read_version_into(bucket, key, version, start, buffer))

    def delete_version(self, bucket: str, key: str, version: str) -> None:
        self._retry(lambda: versioned(self._inner).delete_version(bucket, key, version))

    def mark_deleted(self, bucket: str, key: str) -> str:
        """Never retried: a second delete would leave a second marker."""
        return versioned(self._inner).mark_deleted(bucket, key)
