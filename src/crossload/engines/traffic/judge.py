"""The judge: feeds rows to bets, one pair of bets per metric, and says accept, roll back, or hold.

roll-back  the average wealth of "the target is worse than its margin" reached 1/alpha, or a hard limit is broken
accept     for every metric, "the target is within its margin" reached 1/alpha_accept, and telemetry is complete
hold       neither; also whenever telemetry is missing or the traffic split is not what was asked for"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from crossload.engines.traffic.betting import Bet, pairs_needed
from crossload.engines.traffic.compare import Side
from crossload.engines.traffic.record import ACCEPT, HOLD, METRICS, ROLL_BACK, DecisionRecord, JudgeSettings
from crossload.engines.traffic.rows import SOURCE, TARGET, CanaryRow, MirrorRow, rows_digest, summary

_QUANTILES = (0.5, 0.75, 0.9, 0.95)
_WORST_MAX = 20


class Thresholds:
    """Latencies of the source's past: "slow" means slower than its own quantile, known before the next answer."""

    def __init__(self, warmup: int) -> None:
        self._warmup = warmup
        self._values: list[float] = []
        self._levels: tuple[float, ...] = ()

    def add(self, seconds: float) -> None:
        self._values.append(seconds)
        count = len(self._values)
        # Looked up anew only now and then: any level is valid as long as it does not peek at the next answer.
        if count >= self._warmup and (not self._levels or count % 25 == 0):
            ordered = sorted(self._values)
            self._levels = tuple(ordered[min(count - 1, int(share * count))] for share in _QUANTILES)

    def badness(self, seconds: float, scale: float) -> float | None:
        """Share of the levels, each scaled, that this answer is not faster than; None until the warm-up is over."""
        if not self._levels:
            return None
        return sum(seconds >= level * scale for level in self._levels) / len(self._levels)


class MetricBets:
    """`worse` bets that the target is worse than the margin, `fine` that it is not."""

    def __init__(self, margin: float) -> None:
        self.margin = margin
        self.worse = Bet(guess=0.1)
        self.fine = Bet(guess=margin if margin > 0 else 0.02)
        self.difference = 0.0

    @property
    def count(self) -> int:
        return self.worse.count

    def pair(self, difference: float, low: float, high: float) -> None:
        """A difference target - source in [low, high]; positive is worse."""
        self.difference += difference
        self.worse.update(difference - self.margin, low - self.margin)
        self.fine.update(self.margin - difference, self.margin - high)

    def to_json(self, name: str) -> dict[str, Any]:
        return {
            "name": name,
            "margin": self.margin,
            "n": self.count,
            "mean_difference": self.difference / self.count if self.count else None,
            "wealth_worse": self.worse.wealth,
            "wealth_worse_best": math.exp(min(self.worse.best, 700.0)),
            "wealth_fine": self.fine.wealth,
            "wealth_fine_best": math.exp(min(self.fine.best, 700.0)),
        }


class _Judge:
    """What both kinds share. `verdict` may be read after every row; a roll-back, once said, stays."""

    kind = ""

    def __init__(self, settings: JudgeSettings) -> None:
        self.settings = settings
        self.bets: dict[str, MetricBets] = {}
        for name, margin in zip(METRICS, self._margins(), strict=True):
            if margin is not None:
                # Latency's margin is inside its thresholds, so its bet is on a plain difference of 0.
                self.bets[name] = MetricBets(0.0 if name == "latency" else margin)
        self.thresholds = Thresholds(settings.latency_warmup)
        self.sides: dict[str, list[Side]] = {SOURCE: [], TARGET: []}
        self.missing = 0
        self.count = 0
        self.noise_asked = 0
        self.noise_differs = 0
        self.compared = 0
        self.differs = 0
        self.alarm: list[str] = []
        self.decided_at: int | None = None
        self.fine_at: dict[str, int] = {}

    def _margins(self) -> tuple[float | None, float | None, float | None]:
        margins = self.settings.margins
        return margins.errors, margins.latency, margins.agreement

    @property
    def _scale(self) -> float:
        return 1 + (self.settings.margins.latency or 0.0)

    def _after(self) -> None:
        """Look at everything once more; called after each row."""
        settings = self.settings
        if not self.alarm:
            wealths = self.wealths()
            if wealths:
                # The average of bets is a bet itself, however they depend on each other: no correction for many looks
                # or many metrics is needed.
                average = sum(wealths.values()) / len(wealths)
                if average >= 1 / settings.alpha:
                    named = [name for name, wealth in wealths.items() if wealth * settings.alpha >= 1]
                    self.alarm.append(
                        f"the target is worse than its margin in {', '.join(named or wealths)}"
                        f" (evidence {average:.3g} against {1 / settings.alpha:g} needed)"
                    )
            self.alarm += self._limits_broken()
            if self.alarm:
                self.decided_at = self.count
        threshold = math.log(1 / settings.alpha_accept)
        for name, bet in self.bets.items():
            if name not in self.fine_at and bet.fine.best >= threshold:
                self.fine_at[name] = self.count
                if len(self.fine_at) == len(self.bets) and self.decided_at is None:
                    self.decided_at = self.count

    def wealths(self) -> dict[str, float]:
        """Evidence, per metric, that the target is worse than its margin."""
        return {name: bet.worse.wealth for name, bet in self.bets.items()}

    def _limits_broken(self) -> list[str]:
        if not self.settings.limits:
            return []
        found = summary(self.sides[TARGET])
        values = {
            "latency_p95": (found["latency_p95_seconds"], found["requests"]),
            "error_rate": (found["error_rate"], found["requests"]),
            "answer_agreement": (1 - self.differs / self.compared if self.compared else None, self.compared),
        }
        return [
            f"{limit.measure} of the target is {values[limit.measure][0]:.4g}, the limit is {limit.at:g}"
            for limit in self.settings.limits
            if limit.measure in values and limit.broken_by(*values[limit.measure])
        ]

    def holds(self) -> list[str]:
        """Why nothing can be accepted, whatever the bets say."""
        if self.missing > max(2, self.settings.missing_max * self.count):
            return [f"telemetry is missing for {self.missing} of {self.count} requests"]
        return []

    def verdict(self) -> tuple[str, list[str]]:
        if self.alarm:
            return ROLL_BACK, list(self.alarm)
        held = self.holds()
        if held:
            return HOLD, held
        open_ = [name for name in self.bets if name not in self.fine_at]
        if self.bets and not open_:
            at = max(self.fine_at.values())
            return ACCEPT, [f"every metric is shown to be within its margin (after {at} requests)"]
        return HOLD, [self._undecided(name) for name in open_] or ["no metric decides"]

    def _undecided(self, name: str) -> str:
        bet = self.bets[name]
        text = f"{name}: neither worse nor shown to be within its margin after {bet.count} comparisons"
        if bet.margin > 0 and not bet.difference:
            return f"{text}; {pairs_needed(bet.margin, self.settings.alpha_accept)} without a difference would show it"
        return text

    def record(self, rows: Sequence[MirrorRow | CanaryRow], context: Mapping[str, Any] | None = None) -> DecisionRecord:
        verdict, reasons = self.verdict()
        return DecisionRecord(
            kind=self.kind,
            verdict=verdict,
            reasons=tuple(reasons),
            settings=self.settings.to_json(),
            metrics=tuple(bet.to_json(name) for name, bet in self.bets.items()),
            source=summary(self.sides[SOURCE]),
            target=summary(self.sides[TARGET]),
            noise_floor={
                "asked_twice": self.noise_asked,
                "source_differs_from_itself": self.noise_differs / self.noise_asked if self.noise_asked else None,
                "compared": self.compared,
                "target_differs_from_source": self.differs / self.compared if self.compared else None,
            },
            rows=len(rows),
            rows_sha256=rows_digest(rows),
            decided_at_row=self.decided_at,
            worst=tuple(_worst(rows)),
            context=dict(context or {}),
        )


class MirrorJudge(_Judge):
    kind = "mirror"

    def add(self, row: MirrorRow) -> None:
        self.count += 1
        self.sides[SOURCE].append(row.source)
        self.sides[TARGET].append(row.target)
        if "errors" in self.bets:
            self.bets["errors"].pair(float(row.target.bad) - float(row.source.bad), -1.0, 1.0)
        self._latency(row)
        self._agreement(row)
        self._after()

    def _latency(self, row: MirrorRow) -> None:
        source, target = row.source.latency_seconds, row.target.latency_seconds
        if row.source.ok and row.target.ok and (source is None or target is None):
            self.missing += 1
        if source is None or not row.source.ok:
            return
        if "latency" in self.bets and target is not None and row.target.ok:
            slow_target = self.thresholds.badness(target, self._scale)
            slow_source = self.thresholds.badness(source, 1.0)
            if slow_target is not None and slow_source is not None:
                self.bets["latency"].pair(slow_target - slow_source, -1.0, 1.0)
        self.thresholds.add(source)

    def _agreement(self, row: MirrorRow) -> None:
        """The source is asked twice for a random share of requests; dividing its self-disagreement by that share makes
        the difference unbiased without asking it twice every time."""
        if row.target_differs is None:
            return  # a side without an answer is an error, and counted there
        differs = float(bool(row.target_differs))
        self.compared += 1
        self.differs += int(differs)
        noise = 0.0
        if row.again_differs is not None:
            self.noise_asked += 1
            self.noise_differs += int(bool(row.again_differs))
            noise = float(bool(row.again_differs)) / self.settings.noise_share
        if "agreement" in self.bets:
            low = -1 / self.settings.noise_share if self.settings.noise_share else 0.0
            self.bets["agreement"].pair(differs - noise, low, 1.0)


class CanaryJudge(_Judge):
    """Randomised traffic: an answer's badness counts for or against the target by how surprising its arm was, so what
    hits both arms cancels out. At a weight of 0 or 1 nothing can be learned by comparison: then the target's errors are
    watched against the rate the source had before (not exact any more: that rate is itself an estimate)."""

    kind = "canary"

    def __init__(self, settings: JudgeSettings) -> None:
        super().__init__(settings)
        self._ratio = (Bet(guess=0.05), Bet(guess=0.05))
        self._centres: dict[str, list[float]] = {"errors": [0.0, 0.0], "latency": [0.0, 0.0]}
        self.split_wrong = False
        self.watch = Bet(guess=0.1)

    def wealths(self) -> dict[str, float]:
        return {**super().wealths(), "watch": self.watch.wealth} if self.bets else {}

    def _margins(self) -> tuple[float | None, float | None, float | None]:
        margins = self.settings.margins
        return margins.errors, margins.latency, None  # nothing to agree with: each request has one answer

    def add(self, row: CanaryRow) -> None:
        self.count += 1
        if row.arm not in (SOURCE, TARGET) or (row.side.ok and row.side.latency_seconds is None):
            self.missing += 1
            self._after()
            return
        share = row.target_share
        self.sides[row.arm].append(row.side)
        on_target = 1.0 if row.arm == TARGET else 0.0
        if 0 < share < 1:
            self._split(on_target, share)
        else:
            self._watch(row, share)
        self._bet("errors", float(row.side.bad), on_target, share)
        seconds = row.side.latency_seconds
        if row.side.ok and seconds is not None:
            scale = self._scale if row.arm == TARGET else 1.0
            slow = self.thresholds.badness(seconds, scale)
            if slow is not None:
                self._bet("latency", slow, on_target, share)
            if row.arm == SOURCE:
                self.thresholds.add(seconds)
        self._after()

    def _bet(self, name: str, badness: float, on_target: float, share: float) -> None:
        bet = self.bets.get(name)
        if bet is None or not 0 < share < 1:
            return
        total, count = self._centres[name]
        centre = total / count if count else 0.0
        self._centres[name] = [total + badness, count + 1]
        scale = share * (1 - share)
        value = (on_target - share) * (badness - centre)
        high = max((1 - share) * (1 - centre), share * centre)
        low = -max((1 - share) * centre, share * (1 - centre))
        bet.difference += value / scale
        bet.worse.update(value - scale * bet.margin, low - scale * bet.margin - 1e-9)
        bet.fine.update(scale * bet.margin - value, scale * bet.margin - high - 1e-9)

    def _watch(self, row: CanaryRow, share: float) -> None:
        margin = self.settings.margins.errors
        if margin is None or share < 1 or row.arm != TARGET:
            return
        before = self.sides[SOURCE]
        usual = (sum(side.bad for side in before) + 1) / (len(before) + 2)
        self.watch.update(float(row.side.bad) - usual - margin, -usual - margin - 1e-9)

    def _split(self, on_target: float, share: float) -> None:
        self._ratio[0].update(on_target - share, -share)
        self._ratio[1].update(share - on_target, share - 1)
        average = (self._ratio[0].wealth + self._ratio[1].wealth) / 2
        self.split_wrong = self.split_wrong or average >= 1 / self.settings.sample_ratio_alpha

    def holds(self) -> list[str]:
        found = super().holds()
        if self.split_wrong:
            found.append("the traffic split is not the one that was set: routing or telemetry is at fault")
        return found


def judge_mirror(
    rows: Sequence[MirrorRow], settings: JudgeSettings, context: Mapping[str, Any] | None = None
) -> DecisionRecord:
    judge = MirrorJudge(settings)
    for row in rows:
        judge.add(row)
    return judge.record(rows, context)


def _worst(rows: Iterable[MirrorRow | CanaryRow]) -> list[int]:
    """Numbers of the rows a person should look at first: failures, then answers that differ in most kinds."""
    scored: list[tuple[int, int]] = []
    for row in rows:
        if isinstance(row, MirrorRow):
            score = 100 * (row.target.bad and not row.source.bad) + len(row.target_differs or ())
        else:
            score = 100 * (row.arm == TARGET and row.side.bad)
        if score:
            scored.append((-score, row.number))
    return [number for _, number in sorted(scored)[:_WORST_MAX]]
