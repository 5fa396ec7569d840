"""A vector index from one store straight to another, in blocks."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator

from crossload.engines.mover.vectors.digests import Hasher, IndexDigest, IndexSource
from crossload.ports.vectors import Block, IndexInfo, Vectors

_BLOCKS_AHEAD = 4


def move_index(source: IndexSource, target: Vectors, name: str, *, build: bool = True) -> tuple[IndexInfo, IndexDigest]:
    """Stream all rows over, then build the index (unless told not to). Returns the source's description and the digest
    of what was sent. Where both stores speak one wire form, rows are handed on as they came.

    At the target readers see the old rows until all new ones are there. Holds a few blocks in memory."""
    info = source.describe(name)
    hasher = Hasher()
    with _Ahead(lambda: hasher.passing(source.export(name, wire=target.wire))) as blocks:
        target.load(info, blocks)
    if build:
        target.build(info)
    return info, hasher.digest()


class _Ahead:
    """Blocks read by a thread of their own while the target writes; what the source raises is raised at the target's
    side, in its place. The source's generator is opened and closed in that thread."""

    def __init__(self, begin: Callable[[], Iterator[Block]]) -> None:
        self._begin = begin
        self._ready: queue.Queue[Block | BaseException | None] = queue.Queue(_BLOCKS_AHEAD)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._read, name="vectors-reader", daemon=True)

    def __enter__(self) -> Iterator[Block]:
        self._thread.start()
        return self._blocks()

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        while self._thread.is_alive():
            try:  # a reader that waits for room must see that nobody takes any more
                self._ready.get_nowait()
            except queue.Empty:
                pass
            self._thread.join(0.02)

    def _read(self) -> None:
        blocks: Iterator[Block] | None = None
        try:
            blocks = self._begin()
            for block in blocks:
                if self._stopped.is_set():
                    return
                self._ready.put(block)
            self._ready.put(None)
        except BaseException as error:  # noqa: BLE001  # raised again where the rows are taken
            self._ready.put(error)
        finally:
            close = getattr(blocks, "close", None)
            if close is not None:
                close()

    def _blocks(self) -> Iterator[Block]:
        while (item := self._ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
