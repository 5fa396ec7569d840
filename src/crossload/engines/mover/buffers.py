"""Buffers lent to workers, reused, and never more bytes than the pool may hold."""

from __future__ import annotations

import threading

_SIZES = tuple(2**power for power in range(16, 31))  # 64 KiB to 1 GiB, so that a few sizes serve every object
_KEPT_MAX = 64


class Buffer:
    """`view` is exactly as long as was asked for. Give it back once; giving back twice does nothing."""

    __slots__ = ("_held", "_pool", "view")

    def __init__(self, pool: BufferPool, held: bytearray, size_bytes: int) -> None:
        self._pool: BufferPool | None = pool
        self._held = held
        self.view = memoryview(held)[:size_bytes]

    def give_back(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            self.view.release()
            pool.take_back(self._held)


class BufferPool:
    """At most `cap_bytes` are lent at a time, or one buffer, if that is larger. Who asks waits for those who give back:
    so nobody may wait for somebody else's buffer while it holds one that the other needs."""

    def __init__(self, cap_bytes: int) -> None:
        self._cap = cap_bytes
        self._lent = 0
        self._idle: dict[int, list[bytearray]] = {}
        self._idle_bytes = 0
        self._mutex = threading.Lock()
        self._free = threading.Condition(self._mutex)
        self._waiting = 0

    def lend(self, size_bytes: int) -> Buffer:
        size = next((one for one in _SIZES if one >= size_bytes), size_bytes)
        with self._mutex:
            while self._lent and self._lent + size > self._cap:
                self._waiting += 1
                self._free.wait()
                self._waiting -= 1
            self._lent += size
            idle = self._idle.get(size)
            held = idle.pop() if idle else None
            if held is not None:
                self._idle_bytes -= size
            else:
                self._shrink(size)
        return Buffer(self, held if held is not None else bytearray(size), size_bytes)

    def take_back(self, held: bytearray) -> None:
        size = len(held)
        with self._mutex:
            self._lent -= size
            if len(self._idle.setdefault(size, [])) < _KEPT_MAX and self._idle_bytes + size <= self._cap:
                self._idle[size].append(held)
                self._idle_bytes += size
            if self._waiting:
                self._free.notify_all()

    def _shrink(self, size_bytes: int) -> None:
        """Forget idle buffers of other sizes, so that lent and idle ones together stay under the cap."""
        for idle in self._idle.values():
            while idle and self._lent + self._idle_bytes > self._cap:
                self._idle_bytes -= len(idle.pop())
