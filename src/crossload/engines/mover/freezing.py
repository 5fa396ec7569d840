"""The freeze: writes at the source are denied, then deltas run until two in a row find nothing to do."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from crossload.engines.mover.bucket import PassReport, move_bucket
from crossload.engines.mover.options import CopyOptions
from crossload.engines.mover.returning import ReturnReport, return_changes
from crossload.ledger.journal import Journal
from crossload.ports.errors import Unsupported
from crossload.ports.store import Store

_PASSES_MAX = 8


@dataclass(slots=True)
class FreezeReport:
    """`enforced` is False when the store cannot deny writes: then the writers must be stopped by hand. `token` is what
    lifting the freeze needs; it holds a policy, no secret. `converged` says that the last two passes were empty."""

    enforced: bool
    token: str = ""
    why: str = ""
    converged: bool = False
    passes: list[PassReport] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def carried(self) -> int:
        return sum(item.copied + item.recognised + item.removed for item in self.passes)

    def to_json(self) -> dict[str, Any]:
        return {
            "enforced": self.enforced, "token": self.token, "why": self.why, "converged": self.converged,
            "passes": [item.to_json() for item in self.passes], "delta_objects": self.carried,
            "delta_bytes": sum(item.sent_bytes for item in self.passes), "seconds": round(self.seconds, 3),
        }  # fmt: skip


def freeze(
    guard: Store, source: Store, target: Store, bucket: str, journal: Journal, options: CopyOptions, prefix: str = ""
) -> FreezeReport:
    """`guard` is the source opened with an identity that may change who writes. If the deltas do not converge the
    freeze is lifted again, so that a failed cutover leaves users writing; not where the target is their home already,
    or they would write on both sides."""
    began = time.monotonic()
    try:
        report = FreezeReport(True, guard.freeze(bucket))
    except Unsupported as error:
        report = FreezeReport(False, why=str(error))
    try:
        empty = 0
        while empty < 2 and len(report.passes) < _PASSES_MAX:
            found = move_bucket(source, bucket, target, bucket, journal, options, prefix=prefix)
            report.passes.append(found)
            empty = empty + 1 if found.empty else 0
        report.converged = empty == 2
    finally:
        if not report.converged and report.enforced and not options.target_is_home:
            guard.thaw(bucket, report.token)
    report.seconds = time.monotonic() - began
    return report


def unfreeze(
    guard: Store, source: Store, target: Store, bucket: str, journal: Journal, token: str, prefix: str = ""
) -> ReturnReport:
    """Lift the freeze, then bring back what users wrote at the target. `source` must be able to write.

    The freeze goes first because it denies us too; until the return is done the application still writes at the
    target, so nothing is written on both sides."""
    guard.thaw(bucket, token)
    return return_changes(source, target, bucket, journal, prefix=prefix)
