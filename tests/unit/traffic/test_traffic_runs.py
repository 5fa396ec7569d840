"""Mirror and canary as they run: bounded, resumable, and back to the source the moment the verdict says so."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import replace

import pytest

from crossload.engines.traffic.canary import CanaryPlan, Sent, judge_canary, run_canary, sent
from crossload.engines.traffic.compare import Side
from crossload.engines.traffic.judge import judge_mirror
from crossload.engines.traffic.mirror import MirrorPlan, mirror
from crossload.engines.traffic.recheck import check_record
from crossload.engines.traffic.record import JudgeSettings
from crossload.engines.traffic.rows import CanaryRow, MirrorRow
from crossload.ports.errors import Unavailable
from crossload.ports.models import ChatReply, ChatRequest

REQUESTS = [ChatRequest.ask(f"question {n}", max_tokens=8) for n in range(40)]


def reply(text: str, **more: object) -> ChatReply:
    return replace(ChatReply(text, "stop", 5, 3, 0.01), **more)  # type: ignore[arg-type]


class Model:
    def __init__(self, answer: str = "It takes {n} days") -> None:
        self.calls = 0
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()
        self._answer = answer

    def __call__(self, request: ChatRequest) -> ChatReply:
        with self._lock:
            self.calls += 1
            self._now += 1
            self.most = max(self.most, self._now)
        time.sleep(0.002)
        with self._lock:
            self._now -= 1
        return reply(self._answer.format(n=request.messages[0].content.split()[-1]))


def test_mirror_asks_both_and_the_source_twice_for_a_share() -> None:
    source, target = Model(), Model()
    plan = MirrorPlan(noise_share=0.3, workers=3)
    rows = list(mirror(REQUESTS, source, target, plan))
    assert [row.number for row in rows] == list(range(40))
    twice = sum(row.again is not None for row in rows)
    assert 3 <= twice <= 25
    assert target.calls == 40
    assert source.calls == 40 + twice
    assert source.most <= 3
    assert all(row.target_differs == () for row in rows)
    assert "question" not in str([row.to_json() for row in rows])


def test_mirror_sees_a_changed_fact_and_a_dead_target() -> None:
    rows = list(mirror(REQUESTS, Model(), Model("It takes 9{n} days"), MirrorPlan(0.0)))
    assert all(row.target_differs == ("numbers",) for row in rows)

    def dead(request: ChatRequest) -> ChatReply:
        raise Unavailable("gone")

    rows = list(mirror(REQUESTS, Model(), dead, MirrorPlan(0.0)))
    assert {row.target.error for row in rows} == {"unavailable"}
    assert all(row.target_differs is None for row in rows)
    assert judge_mirror(rows, JudgeSettings(noise_share=0)).verdict == "roll-back"


def test_mirror_goes_on_where_it_was_cut_off() -> None:
    plan = MirrorPlan(0.3)
    first: list[MirrorRow] = []
    for row in mirror(REQUESTS, Model(), Model(), plan, stop=lambda: len(first) >= 15):
        first.append(row)  # noqa: PERF402 - `stop` watches it grow
    assert 15 <= len(first) < 20
    source = Model()
    rest = list(mirror(REQUESTS, source, Model(), plan, done=first))
    assert sorted(row.number for row in [*first, *rest]) == list(range(40))
    whole = list(mirror(REQUESTS, Model(), Model(), plan))
    pattern = [row.again is not None for row in [*first, *rest]]
    assert pattern == [row.again is not None for row in whole]


def test_a_bug_in_a_callable_is_not_taken_for_a_bad_answer() -> None:
    def broken(request: ChatRequest) -> ChatReply:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(mirror(REQUESTS, Model(), broken, MirrorPlan(0.0)))


class Router:
    """Routes by the weight in force, like the gateway."""

    def __init__(self, error: float = 0.0, seed: int = 1) -> None:
        self.weights: list[float] = []
        self.sent = 0
        self._error = error
        self._rng = random.Random(seed)
        self._lock = threading.Lock()

    def set_target_percent(self, percent: float) -> None:
        self.weights.append(percent)

    def send(self, number: int) -> Sent:
        with self._lock:
            self.sent += 1
            on_target = self._rng.random() * 100 < self.weights[-1]
            bad = on_target and self._rng.random() < self._error
            seconds = self._rng.uniform(0.1, 0.2)
        return Sent(
            "target" if on_target else "source", Side(not bad, "unavailable" if bad else "", seconds, finish="stop")
        )


PLAN = CanaryPlan((5, 25, 50, 100), 40, 1, JudgeSettings())


def accepted() -> object:
    rows = [
        MirrorRow(n, "r", Side(True, "", 0.1, finish="stop"), Side(True, "", 0.1, finish="stop"), None, (), None)
        for n in range(250)
    ]
    record = judge_mirror(rows, JudgeSettings())
    assert record.verdict == "accept"
    return record


def test_a_good_ramp_ends_at_full_weight_and_is_accepted_with_the_mirror() -> None:
    router = Router()
    record, rows = run_canary(PLAN, router.send, router.set_target_percent, mirror=accepted())  # type: ignore[arg-type]
    assert record.verdict == "accept", record.reasons
    assert router.weights == [5, 25, 50, 100]
    assert len(rows) == 160
    assert check_record(record, rows) == []


def test_without_a_mirror_the_end_of_the_ramp_is_a_hold() -> None:
    router = Router()
    record, _ = run_canary(PLAN, router.send, router.set_target_percent)
    assert record.verdict == "hold"
    assert router.weights[-1] == 100


def test_a_bad_target_is_sent_home_at_once() -> None:
    router = Router(error=1.0)
    record, rows = run_canary(PLAN, router.send, router.set_target_percent, mirror=accepted())  # type: ignore[arg-type]
    assert record.verdict == "roll-back"
    assert router.weights[-1] == 0
    assert 100 not in router.weights
    assert router.sent == len(rows) < 120


def test_a_ramp_that_was_cut_off_goes_on() -> None:
    router = Router()
    kept: list[CanaryRow] = []
    record, _ = run_canary(PLAN, router.send, router.set_target_percent, keep=kept.append, stop=lambda: len(kept) >= 60)
    assert record.verdict == "hold"
    assert "not finished" in record.reasons[0]
    assert router.weights == [5, 25]
    again, rows = run_canary(
        PLAN,
        router.send,
        router.set_target_percent,
        rows=kept,
        keep=kept.append,
        mirror=accepted(),  # type: ignore[arg-type]
    )
    assert router.weights == [5, 25, 25, 50, 100]
    assert router.sent == 160 == len(rows) == len(kept)
    assert again.verdict == "accept"
    assert judge_canary(kept, PLAN.settings, again.context).to_json() == again.to_json()


def test_lost_telemetry_stops_the_ramp() -> None:
    router = Router()

    def lossy(number: int) -> Sent:
        if number % 4 == 0:
            raise Unavailable("nobody answered")
        return router.send(number)

    record, rows = run_canary(PLAN, lossy, router.set_target_percent)
    assert record.verdict == "hold"
    assert "telemetry" in record.reasons[0]
    assert router.weights[-1] == 0
    assert len(rows) < 40


def test_a_failed_over_answer_counts_against_the_arm_that_failed() -> None:
    request = REQUESTS[0]
    one = sent(request, reply("ok", arm="source", failed_over_from="target"), "session-1")
    assert (one.arm, one.side.ok, one.side.error) == ("target", False, "failed-over")
    assert "session-1" not in one.session
    two = sent(request, Unavailable("x"), arm="target")
    assert (two.arm, two.side.error) == ("target", "unavailable")
    three = sent(request, reply("ok", arm="source"))
    assert (three.arm, three.side.bad) == ("source", False)
