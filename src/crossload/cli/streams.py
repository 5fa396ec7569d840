"""Standard streams that outlive their readers, speak any encoding, and never stop work half-way."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, TextIO, cast


class Steady:
    """A stream whose reader may leave (`| head -1`, a log pipe that dies): what nobody hears goes to /dev/null, and
    the work goes on to its end and its true exit code. `forgives` are the errors that mean it."""

    def __init__(self, stream: TextIO, forgives: type[OSError] = BrokenPipeError) -> None:
        self._stream = stream
        self._forgives = forgives

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except self._forgives:
            self.leave()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except self._forgives:
            self.leave()

    def leave(self) -> None:
        """Throw away what could not be written, and all to come."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def steady() -> Iterator[None]:
    """While it lasts: all three descriptors are open (a database file that became number 2 would receive our talk),
    both streams are Steady, what a terminal cannot show becomes `?`, and TERM and HUP end us as Ctrl-C does."""
    while (lowest := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(lowest)
    before = sys.stdout, sys.stderr
    # Data that cannot be written is an error; talk that cannot be heard is not.
    for name, stream, forgives in (("stdout", before[0], BrokenPipeError), ("stderr", before[1], OSError)):
        # None where the descriptor was closed when Python began.
        opened = stream if stream is not None else open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123
        if isinstance(opened, io.TextIOWrapper):
            opened.reconfigure(errors="surrogateescape" if _speaks_utf8(opened) else "replace")
        setattr(sys, name, cast("TextIO", Steady(opened, forgives)))
    main = threading.current_thread() is threading.main_thread()  # no other may set handlers
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if main and signal.getsignal(n) is signal.SIG_DFL]
    for number in numbers:  # what `nohup` has set aside stays aside
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()  # while a reader that left is still no error
        sys.stdout, sys.stderr = before


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _speaks_utf8(stream: TextIO) -> bool:
    try:
        return codecs.lookup(stream.encoding or "ascii").name == "utf-8"
    except LookupError:
        return False


def takes(text: str) -> bool:
    """Whether stdout can take this text as it is, as UTF-8: JSON must stay JSON on every terminal."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return _speaks_utf8(sys.stdout)
