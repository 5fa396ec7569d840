"""How a copy is to be done, and who watches it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from crossload.engines.mover.calendar import Calendar
from crossload.estate.migration import DataRules


@dataclass(frozen=True, slots=True)
class CopyOptions:
    part_size_bytes: int = 16 * 2**20
    workers: int = 8
    buffer_bytes_max: int = 64 * 2**20
    calendar: Calendar = field(default_factory=Calendar)  # how fast the link may be used, and when
    allow_mass_delete: bool = False
    target_is_home: bool = False  # users write there now: what they changed or removed is theirs, and stays so

    @classmethod
    def of(cls, rules: DataRules, *, target_is_home: bool = False, users_wait: bool = False) -> CopyOptions:
        """The `data:` section of a migration file. While `users_wait`, as in a freeze, no window and no ceiling
        holds."""
        return cls(
            part_size_bytes=rules.part_size_mib * 2**20,
            workers=rules.workers,
            calendar=Calendar() if users_wait else Calendar.from_rules(rules),
            allow_mass_delete=rules.allow_mass_delete,
            target_is_home=target_is_home,
        )


@dataclass(frozen=True, slots=True)
class Watcher:
    """Callbacks for live talk; all may be called from any thread."""

    start: Callable[[int, int], None] = lambda objects, size_bytes: None
    moved: Callable[[int, int], None] = lambda objects, size_bytes: None
    say: Callable[[str], None] = lambda text: None


AS_USUAL = CopyOptions()
NOBODY = Watcher()
