"""Python's cycle collector walks everything that lives each time enough has been made: with an SDK loaded that is a
fifth of the CPU of a copy, and finds nothing."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterator

_MADE_BETWEEN = 50_000
_mutex = threading.Lock()
_inside = 0
_before = (0, 0, 0)


@contextlib.contextmanager
def seldom_collected() -> Iterator[None]:
    """Inside, what is there already is not walked again, and the collector runs seldom. May be nested."""
    global _inside, _before
    with _mutex:
        _inside += 1
        if _inside == 1:
            _before = gc.get_threshold()
            gc.freeze()
            gc.set_threshold(_MADE_BETWEEN, *_before[1:])
    try:
        yield
    finally:
        with _mutex:
            _inside -= 1
            if _inside == 0:
                gc.set_threshold(*_before)
                gc.unfreeze()
