"""Faults of the machine itself: a disk that is full, a clock that is wrong."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from crossload.lab.faults.proof import FaultDidNotFire, FaultUnavailable

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """A file system of its own that can be filled to the last byte."""

    folder: Path

    def free_bytes(self) -> int:
        facts = os.statvfs(self.folder)
        return facts.f_bavail * facts.f_frsize

    def fill(self, leave_bytes: int = 0) -> Path:
        """Use up the space but for `leave_bytes`; returns the file that holds it (delete it to make room again)."""
        ballast = self.folder / ".ballast"
        block = bytes(4096)
        with ballast.open("ab", buffering=0) as out:
            while self.free_bytes() > leave_bytes:
                try:
                    out.write(block)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    break
        if self.free_bytes() > leave_bytes + len(block):
            raise FaultDidNotFire(f"{self.free_bytes()} bytes are still free")
        return ballast


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[SmallDisk]:
    """A file system of `size_bytes` in memory on `folder`. Raises FaultUnavailable where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={size_bytes},mode=0755".encode()
    if _libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, options) != 0:
        raise FaultUnavailable(f"cannot mount a small disk: {os.strerror(ctypes.get_errno())}")
    try:
        yield SmallDisk(folder)
    finally:
        # Lazy: a process that still stands in the folder must not keep the mount for ever.
        _libc.umount2(os.fsencode(folder), 2)


def skewed(argv: Sequence[str], *, hours: float) -> list[str]:
    """`argv` run with its clock off by `hours`. Raises FaultUnavailable when faketime is not installed."""
    program = shutil.which("faketime")
    if program is None:
        raise FaultUnavailable("faketime is not installed (Debian package faketime)")
    return [program, "-f", f"{hours * 3600:+.0f}s", *argv]
