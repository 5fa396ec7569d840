"""The judge on simulated arms: false alarms, detection, acceptance, holds; records that compute to the same again."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest

from crossload.engines.traffic.canary import judge_canary
from crossload.engines.traffic.compare import Side
from crossload.engines.traffic.judge import CanaryJudge, MirrorJudge, judge_mirror
from crossload.engines.traffic.recheck import check_record
from crossload.engines.traffic.record import DecisionRecord, JudgeSettings, Limit, Margins
from crossload.engines.traffic.rows import CanaryRow, MirrorRow, quantile, summary

SETTINGS = JudgeSettings(alpha=0.05, alpha_accept=0.05, noise_share=0.25)


def side(rng: random.Random, error: float, slow: float = 1.0) -> Side:
    if rng.random() < error:
        return Side(False, "unavailable")
    return Side(True, "", slow * rng.lognormvariate(0, 0.6), None, "stop", 10, 5, "aa", 20)


def mirror_rows(
    seed: int, count: int, *, error: float = 0.02, slow: float = 1.0, disagree: float = 0.05, noise: float = 0.05
) -> list[MirrorRow]:
    rng = random.Random(seed)
    rows: list[MirrorRow] = []
    for number in range(count):
        source, target = side(rng, 0.02), side(rng, error, slow)
        both = source.ok and target.ok
        twice = rng.random() < SETTINGS.noise_share and source.ok
        rows.append(
            MirrorRow(
                number, f"r{number}", source, target, side(rng, 0) if twice else None,
                (("numbers",) if rng.random() < disagree else ()) if both else None,
                (("numbers",) if rng.random() < noise else ()) if twice else None,
            )
        )  # fmt: skip
    return rows


def verdict_at_any_look(judge: Any, rows: list[Any]) -> str:
    for row in rows:
        judge.add(row)
    return judge.verdict()[0]


def test_mirror_false_rollbacks_stay_below_alpha() -> None:
    """A target exactly as good as the source, margins of zero: the hardest null there is."""
    settings = replace(SETTINGS, margins=Margins(errors=0.0, latency=0.0, agreement=0.0))
    runs = 300
    found = sum(
        verdict_at_any_look(MirrorJudge(settings), mirror_rows(seed, 150)) == "roll-back" for seed in range(runs)
    )
    assert found / runs <= 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5


def test_mirror_false_accepts_stay_below_alpha() -> None:
    """A target whose errors are worse by exactly the margin, all else equal."""
    settings = replace(SETTINGS, margins=Margins(errors=0.1, latency=None, agreement=None))
    runs = 200
    found = sum(
        verdict_at_any_look(MirrorJudge(settings), mirror_rows(seed, 200, error=0.12)) == "accept"
        for seed in range(runs)
    )
    assert found / runs <= 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5


@pytest.mark.parametrize(
    ("bad", "metric"),
    [({"error": 0.4}, "errors"), ({"slow": 3.0}, "latency"), ({"disagree": 0.7}, "agreement")],
)
def test_mirror_rolls_back_a_bad_target_and_says_why(bad: dict[str, float], metric: str) -> None:
    for seed in range(20):
        record = judge_mirror(mirror_rows(seed, 200, **bad), replace(SETTINGS, alpha=0.01))
        assert record.verdict == "roll-back", (seed, record.metrics)
        assert metric in record.reasons[0]
        assert record.decided_at_row is not None
        assert record.decided_at_row < 150


def test_mirror_accepts_an_equal_target_within_200() -> None:
    """What the helpdesk move has: equal weights, no errors, no disagreement."""
    rng = random.Random(1)
    rows: list[MirrorRow] = []
    for n in range(200):
        one = side(rng, 0)
        other = replace(one, latency_seconds=(one.latency_seconds or 0) * rng.uniform(0.9, 1.1))
        rows.append(MirrorRow(n, f"r{n}", one, other, one if n % 4 == 0 else None, (), () if n % 4 == 0 else None))
    record = judge_mirror(rows, JudgeSettings())
    assert record.verdict == "accept", record.reasons
    assert record.noise_floor["asked_twice"] == 50
    assert record.noise_floor["source_differs_from_itself"] == 0


def test_noise_of_the_source_is_not_held_against_the_target() -> None:
    """A third of the source's own answers differ from themselves; so do the target's. And the reverse."""
    noisy = judge_mirror(mirror_rows(3, 250, disagree=0.3, noise=0.3), replace(SETTINGS, alpha=0.01))
    assert noisy.verdict != "roll-back"
    worse = judge_mirror(mirror_rows(3, 250, disagree=0.9, noise=0.1), replace(SETTINGS, alpha=0.01))
    assert worse.verdict == "roll-back"


def test_missing_telemetry_is_hold_and_never_accept() -> None:
    good = [
        MirrorRow(
            n, "r", Side(True, latency_seconds=1.0, finish="stop"), Side(True, latency_seconds=None), None, (), None
        )
        for n in range(300)
    ]
    settings = replace(SETTINGS, margins=Margins(latency=None))
    record = judge_mirror(good, settings)
    assert record.verdict == "hold"
    assert "telemetry" in record.reasons[0]
    with_it = [replace(row, target=replace(row.target, latency_seconds=1.0)) for row in good]
    assert judge_mirror(with_it, settings).verdict == "accept"


def test_a_hard_limit_speaks_before_statistics() -> None:
    rows = mirror_rows(5, 60, slow=1.3)
    limit = Limit("latency_p95", "lower", 0.5)
    record = judge_mirror(rows, replace(SETTINGS, limits=(limit,)))
    assert record.verdict == "roll-back"
    assert "latency_p95" in record.reasons[-1]
    assert record.decided_at_row == limit.requests_min


def canary_rows(
    seed: int, share: float, count: int, *, error: float = 0.03, slow: float = 1.0, real: float | None = None
) -> list[CanaryRow]:
    rng = random.Random(seed)
    rows: list[CanaryRow] = []
    for number in range(count):
        on_target = rng.random() < (share if real is None else real)
        one = side(rng, error, slow) if on_target else side(rng, 0.03)
        rows.append(CanaryRow(number, 0, share, "target" if on_target else "source", one))
    return rows


def test_canary_false_rollbacks_stay_below_alpha() -> None:
    settings = replace(SETTINGS, margins=Margins(errors=0.0, latency=0.0))
    runs, found = 200, 0
    for seed in range(runs):
        rows = [*canary_rows(seed, 0.1, 60), *canary_rows(seed + 10_000, 0.5, 120)]
        found += verdict_at_any_look(CanaryJudge(settings), rows) == "roll-back"
    assert found / runs <= 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5


def test_canary_ignores_what_hits_both_arms() -> None:
    """Half of all requests fail on both sides: an incident, not a bad target."""
    rng = random.Random(8)
    rows = []
    for number in range(400):
        on_target = rng.random() < 0.3
        rows.append(CanaryRow(number, 0, 0.3, "target" if on_target else "source", side(rng, 0.5)))
    assert judge_canary(rows, SETTINGS).verdict == "hold"


def test_canary_finds_a_bad_target() -> None:
    for seed in range(20):
        record = judge_canary(canary_rows(seed, 0.25, 250, error=0.6), replace(SETTINGS, alpha=0.01))
        assert record.verdict == "roll-back", seed
        assert "errors" in record.reasons[0]


def test_at_full_weight_a_failing_target_is_still_seen() -> None:
    rows = [*canary_rows(1, 0.5, 100, error=0.0), *canary_rows(2, 1.0, 60, error=0.5)]
    assert judge_canary(rows, replace(SETTINGS, alpha=0.01)).verdict == "roll-back"
    healthy = [*canary_rows(1, 0.5, 100), *canary_rows(2, 1.0, 200)]
    assert judge_canary(healthy, SETTINGS).verdict == "hold"


def test_a_wrong_split_is_a_hold() -> None:
    good = canary_rows(4, 0.3, 300)
    wrong = canary_rows(4, 0.3, 300, real=0.6)
    assert not CanaryJudge(SETTINGS).split_wrong
    assert "split" in judge_canary(wrong, SETTINGS).reasons[0]
    assert "split" not in " ".join(judge_canary(good, SETTINGS).reasons)


def test_a_record_computes_to_the_same_again_and_tampering_is_seen() -> None:
    rows = mirror_rows(11, 120, error=0.3)
    record = judge_mirror(rows, SETTINGS, {"note": "x"})
    stored = DecisionRecord.from_json(json.loads(json.dumps(record.to_json())))
    kept = [MirrorRow.from_json(json.loads(json.dumps(row.to_json()))) for row in rows]
    assert check_record(stored, kept) == []
    assert "verdict" in check_record(replace(stored, verdict="accept"), kept)
    kept[7] = replace(kept[7], target=Side(True, latency_seconds=0.1))
    assert "rows_sha256" in check_record(stored, kept)
    live = canary_rows(3, 0.25, 200)
    canary = judge_canary(live, SETTINGS)
    again = DecisionRecord.from_json(json.loads(json.dumps(canary.to_json())))
    assert check_record(again, [CanaryRow.from_json(json.loads(json.dumps(row.to_json()))) for row in live]) == []


def test_summary_says_unknown_and_not_zero() -> None:
    found = summary([Side(True, latency_seconds=2.0, input_tokens=3, output_tokens=None), Side(False, "unavailable")])
    assert found["input_tokens"] == 3
    assert found["output_tokens"] is None
    assert found["error_rate"] == 0.5
    assert summary([])["error_rate"] is None
    assert quantile([1, 2, 3, 4], 0.5) == 2
    assert quantile(range(1, 101), 0.95) == 95
    assert quantile([], 0.5) is None
