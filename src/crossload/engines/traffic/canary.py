"""Canary: live traffic by weight, one step after the other; back to the source the moment the judge says so."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from crossload.engines.traffic.compare import Side, short_hash, side_of
from crossload.engines.traffic.judge import CanaryJudge
from crossload.engines.traffic.record import ACCEPT, HOLD, ROLL_BACK, DecisionRecord, JudgeSettings
from crossload.engines.traffic.rows import CanaryRow
from crossload.ports.errors import CrossloadError
from crossload.ports.models import ChatReply, ChatRequest


@dataclass(frozen=True, slots=True)
class CanaryPlan:
    """`weights_percent` are the target's shares, step by step; each step lasts `requests_per_step` requests."""

    weights_percent: tuple[float, ...] = (5, 25, 50, 100)
    requests_per_step: int = 40
    workers: int = 2
    settings: JudgeSettings = field(default_factory=JudgeSettings)

    def to_json(self) -> dict[str, Any]:
        return {
            "weights_percent": list(self.weights_percent),
            "requests_per_step": self.requests_per_step,
            "workers": self.workers,
        }


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of one request: the arm it was routed to ("" when nobody said) and its answer."""

    arm: str
    side: Side
    session: str = ""


def sent(request: ChatRequest, reply: ChatReply | CrossloadError, session: str = "", arm: str = "") -> Sent:
    """From a gateway's reply or error. A reply that another arm had to give counts as a failure of the arm it was
    routed to: otherwise a dead target would look like a healthy source. `arm` is for errors, which carry none."""
    hashed = short_hash(session) if session else ""
    if isinstance(reply, CrossloadError):
        return Sent(arm, Side(False, reply.code), hashed)
    if reply.failed_over_from:
        return Sent(reply.failed_over_from, Side(False, "failed-over"), hashed)
    return Sent(reply.arm, side_of(reply, request), hashed)


def run_canary(
    plan: CanaryPlan,
    send: Callable[[int], Sent],
    set_target_percent: Callable[[float], object],
    *,
    rows: Sequence[CanaryRow] = (),
    keep: Callable[[CanaryRow], object] = lambda row: None,
    mirror: DecisionRecord | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[DecisionRecord, list[CanaryRow]]:
    """Run the ramp to its end or to the first roll-back or hold; the weight is then 0 and the source answers.

    `send(number)` sends one request of live traffic. `rows` are those of an earlier run that was cut off: they are
    judged first and not sent again, and the ramp goes on where it stood. `keep` stores each row before the next batch
    is sent. `mirror` is the record of the paired comparison: a ramp of a few hundred requests cannot show small
    differences, so without an accepted mirror the end of the ramp is a hold. `stop` (Ctrl-C) leaves the weight as it
    is, so that a resumed run goes on."""
    judge = CanaryJudge(plan.settings)
    found: list[CanaryRow] = []
    for row in rows:
        judge.add(row)
        found.append(row)
    context = _context(plan, mirror)
    with ThreadPoolExecutor(plan.workers, thread_name_prefix="canary") as pool:
        for step, percent in enumerate(plan.weights_percent):
            left = plan.requests_per_step - sum(row.step == step for row in found)
            if left > 0 and not _bad(judge):
                set_target_percent(percent)
            while left > 0 and not _bad(judge):
                if stop():
                    return _finish(judge, found, context), found
                numbers = range(len(found), len(found) + min(left, plan.workers))
                for number, one in zip(numbers, pool.map(partial(_safely, send), numbers), strict=True):
                    row = CanaryRow(number, step, percent / 100, one.arm, one.side, one.session)
                    found.append(row)
                    judge.add(row)
                    keep(row)
                left -= len(numbers)
    if _bad(judge):
        set_target_percent(0)
    return _finish(judge, found, context), found


def judge_canary(
    rows: Sequence[CanaryRow], settings: JudgeSettings, context: Mapping[str, Any] | None = None
) -> DecisionRecord:
    """The record of a canary, computed from its rows alone. `context` is the one of the record to compare with."""
    judge = CanaryJudge(settings)
    for row in rows:
        judge.add(row)
    return _finish(judge, list(rows), dict(context or {}))


def _safely(send: Callable[[int], Sent], number: int) -> Sent:
    """An error nobody could assign to an arm is missing telemetry, not a crash of the ramp."""
    try:
        return send(number)
    except CrossloadError as error:
        return Sent("", Side(False, error.code))


def _bad(judge: CanaryJudge) -> bool:
    return bool(judge.alarm or judge.holds())


def _context(plan: CanaryPlan, mirror: DecisionRecord | None) -> dict[str, Any]:
    evidence = None if mirror is None else {"verdict": mirror.verdict, "rows_sha256": mirror.rows_sha256}
    return {"plan": plan.to_json(), "mirror": evidence}


def _finish(judge: CanaryJudge, rows: Sequence[CanaryRow], context: Mapping[str, Any]) -> DecisionRecord:
    """The judge's own verdict, and where that is open the end of the ramp together with the mirror's acceptance."""
    record = judge.record(rows, context)
    if record.verdict == ROLL_BACK or judge.holds():
        return record
    plan = context.get("plan") or {}
    steps = plan.get("weights_percent") or []
    wanted = len(steps) * plan.get("requests_per_step", 0)
    if len(rows) < wanted or not wanted:
        return _with(record, HOLD, [f"the ramp is not finished: {len(rows)} of {wanted} requests"])
    if record.verdict == ACCEPT:
        return record
    evidence = context.get("mirror")
    if evidence and evidence["verdict"] == ACCEPT:
        text = f"the ramp ended without an alarm after {len(rows)} requests, and the mirror accepted the target"
        return _with(record, ACCEPT, [text])
    return _with(record, HOLD, ["the ramp ended without an alarm, but no accepted mirror stands behind it"])


def _with(record: DecisionRecord, verdict: str, reasons: list[str]) -> DecisionRecord:
    return replace(record, verdict=verdict, reasons=tuple(reasons))
