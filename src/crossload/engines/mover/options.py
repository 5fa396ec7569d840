"""How a copy is to be done, and who watches it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CopyOptions:
    part_size_bytes: int = 16 * 2**20
    workers: int = 8
    buffer_bytes_max: int = 64 * 2**20
    bandwidth_bytes_per_second: float | None = None
    allow_mass_delete: bool = False
    target_is_home: bool = False  # users write there now: what they changed or removed is theirs, and stays so


@dataclass(frozen=True, slots=True)
class Watcher:
    """Callbacks for live talk; all may be called from any thread."""

    start: Callable[[int, int], None] = lambda objects, size_bytes: None
    moved: Callable[[int, int], None] = lambda objects, size_bytes: None
    say: Callable[[str], None] = lambda text: None


AS_USUAL = CopyOptions()
NOBODY = Watcher()
