"""A verdict computed again from its rows, by anyone who has both."""

from __future__ import annotations

from collections.abc import Sequence

from crossload.engines.traffic.canary import judge_canary
from crossload.engines.traffic.judge import judge_mirror
from crossload.engines.traffic.record import DecisionRecord, JudgeSettings
from crossload.engines.traffic.rows import CanaryRow, MirrorRow


def check_record(record: DecisionRecord, rows: Sequence[MirrorRow | CanaryRow]) -> list[str]:
    """Names of the fields that come out otherwise when the record is computed again from its rows; [] when it holds."""
    settings = JudgeSettings.from_json(record.settings)
    if record.kind == "mirror":
        again = judge_mirror([row for row in rows if isinstance(row, MirrorRow)], settings, record.context)
    else:
        again = judge_canary([row for row in rows if isinstance(row, CanaryRow)], settings, record.context)
    one, other = record.to_json(), again.to_json()
    return [name for name in one if one[name] != other[name]]
