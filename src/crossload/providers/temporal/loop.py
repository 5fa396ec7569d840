"""The SDK speaks asyncio only; the rest of the house blocks. One thread runs its loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class Loop:
    """Started at the first call, and a daemon: it keeps no process alive."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Wait for it, in short steps, so that Ctrl-C is heard; then it is cancelled."""
        waiting = asyncio.run_coroutine_threadsafe(coroutine, self._running())
        try:
            while True:
                try:
                    return waiting.result(timeout=0.5)
                except TimeoutError:
                    if waiting.done():  # the coroutine's own
                        raise
        except BaseException:
            waiting.cancel()
            raise

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._mutex:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="fleet", daemon=True).start()
            return self._loop
