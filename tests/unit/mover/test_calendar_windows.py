"""The calendar of bandwidth, on the two nights a year on which clocks lie, and against a walk second by second."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from crossload.engines.mover.calendar import HORIZON_SECONDS, Calendar, Hours, Piece
from crossload.estate.migration import DataRules
from crossload.estate.reading import read_migration

MIB = 2**20
HOUR = 3600
BERLIN = ZoneInfo("Europe/Berlin")
NIGHT = {"days": ["sat"], "from": "22:00", "to": "06:00", "zone": "Europe/Berlin", "mib_per_second": 400}


def calendar(*windows: dict[str, object], **rules: object) -> Calendar:
    return Calendar.from_rules(DataRules.model_validate({"windows": list(windows), **rules}))


def berlin(*moment: int, fold: int = 0) -> float:
    return datetime(*moment, tzinfo=BERLIN, fold=fold).timestamp()  # type: ignore[arg-type, misc]


def utc(*moment: int) -> float:
    return datetime(*moment, tzinfo=UTC).timestamp()  # type: ignore[arg-type, misc]


def test_without_rules_there_is_no_ceiling() -> None:
    free = Calendar.from_rules(DataRules())
    assert free.unlimited
    assert free.rate_at(utc(2026, 1, 1)) is None
    assert free.finish(10.0, 10**15) == 10.0
    assert free.finish(10.0, 100, own_rate=10) == 20.0
    assert list(free.pieces(0, 100)) == [Piece(0, 100, None)]


def test_a_default_alone_is_a_straight_line() -> None:
    slow = calendar(bandwidth_mib_per_second=10)
    assert slow.rate_at(0) == 10 * MIB
    assert slow.finish(5.0, 100 * MIB) == 15.0
    assert slow.finish(5.0, 100 * MIB, own_rate=5 * MIB) == 25.0
    assert not slow.unlimited


def test_an_ordinary_night_over_midnight() -> None:
    week = calendar(NIGHT, bandwidth_mib_per_second=50)
    saturday, sunday = berlin(2026, 6, 6, 22), berlin(2026, 6, 7, 6)
    assert week.rate_at(saturday - 1) == 50 * MIB
    assert week.rate_at(saturday) == 400 * MIB
    assert week.rate_at(berlin(2026, 6, 7, 0)) == 400 * MIB
    assert week.rate_at(sunday - 1) == 400 * MIB
    assert week.rate_at(sunday) == 50 * MIB
    assert week.rate_at(berlin(2026, 6, 7, 23)) == 50 * MIB, "Sunday's own night is not in the list"
    assert list(week.pieces(saturday - HOUR, sunday + HOUR)) == [
        Piece(saturday - HOUR, saturday, 50 * MIB), Piece(saturday, sunday, 400 * MIB),
        Piece(sunday, sunday + HOUR, 50 * MIB),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("evening", "morning", "hours"),
    [((2026, 3, 28, 22), (2026, 3, 29, 6), 7), ((2026, 10, 24, 22), (2026, 10, 25, 6), 9)],
    ids=["spring forward", "autumn back"],
)
def test_the_night_of_the_change_is_shorter_or_longer(
    evening: tuple[int, ...], morning: tuple[int, ...], hours: int
) -> None:
    week = calendar(NIGHT, outside="stop")
    start, end = berlin(*evening), berlin(*morning)
    assert end - start == hours * HOUR
    [_, night, _] = week.pieces(start - HOUR, end + HOUR)
    assert night == Piece(start, end, 400 * MIB)
    assert week.finish(start - 10 * HOUR, 400 * MIB * hours * HOUR) == end
    late = week.finish(start - 10 * HOUR, 400 * MIB * (hours * HOUR + 1))
    assert late > end + 6 * 24 * HOUR - HOUR, "one byte too many waits for the next Saturday"


def test_a_window_inside_the_hour_that_never_comes() -> None:
    """02:00-03:00 does not exist on 29 March 2026 in Berlin."""
    inside = calendar({"from": "02:10", "to": "02:50", "zone": "Europe/Berlin"}, outside="stop")
    day = [piece for piece in inside.pieces(berlin(2026, 3, 29, 0), berlin(2026, 3, 29, 12)) if piece.rate is None]
    assert day == []
    across = calendar({"from": "02:30", "to": "03:15", "zone": "Europe/Berlin"}, outside="stop")
    [piece] = [p for p in across.pieces(berlin(2026, 3, 29, 0), berlin(2026, 3, 29, 12)) if p.rate is None]
    assert (piece.start, piece.end) == (utc(2026, 3, 29, 1), utc(2026, 3, 29, 1, 15)), "it begins when clocks jump"


def test_a_window_inside_the_hour_that_comes_twice() -> None:
    twice = calendar({"from": "02:10", "to": "02:50", "zone": "Europe/Berlin"}, outside="stop")
    found = [p for p in twice.pieces(berlin(2026, 10, 25, 0), berlin(2026, 10, 25, 12)) if p.rate is None]
    assert [(p.start, p.end) for p in found] == [
        (utc(2026, 10, 25, 0, 10), utc(2026, 10, 25, 0, 50)), (utc(2026, 10, 25, 1, 10), utc(2026, 10, 25, 1, 50)),
    ]  # fmt: skip


def test_the_lowest_of_overlapping_windows_holds_in_any_order() -> None:
    weekend = {"days": ["sat", "sun"], "from": "00:00", "to": "24:00", "mib_per_second": 800}
    backup = {"days": ["sat"], "from": "01:00", "to": "02:00", "mib_per_second": 0}
    free = {"days": ["sat"], "from": "00:30", "to": "03:00"}
    for windows in ([weekend, backup, free], [free, backup, weekend]):
        week = calendar(*windows, bandwidth_mib_per_second=10)
        assert week.rate_at(utc(2026, 6, 6, 0)) == 800 * MIB, "a window may be faster than the default"
        assert week.rate_at(utc(2026, 6, 6, 0, 40)) == 800 * MIB, "no ceiling is the highest one"
        assert week.rate_at(utc(2026, 6, 6, 1, 30)) == 0
        assert week.rate_at(utc(2026, 6, 8, 0)) == 10 * MIB
    assert calendar(free, bandwidth_mib_per_second=10).rate_at(utc(2026, 6, 6, 0, 40)) is None


def test_weekend_joins_over_midnight_and_ends_on_monday() -> None:
    weekend = calendar({"days": ["sat", "sun"], "from": "00:00", "to": "24:00"}, outside="stop")
    [piece] = [p for p in weekend.pieces(utc(2026, 6, 5), utc(2026, 6, 10)) if p.rate is None]
    assert (piece.start, piece.end) == (utc(2026, 6, 6), utc(2026, 6, 8))


def test_finish_over_windows_and_its_own_rate() -> None:
    week = calendar({"from": "22:00", "to": "06:00", "mib_per_second": 100}, bandwidth_mib_per_second=10)
    start = utc(2026, 6, 1, 21)
    by_ten = 10 * MIB * HOUR
    assert week.finish(start, by_ten) == start + HOUR
    assert week.finish(start, by_ten + 100 * MIB * 60) == start + HOUR + 60
    assert week.finish(start, by_ten + 20 * MIB * 60, own_rate=20 * MIB) == start + HOUR + 60
    assert week.finish(start, 0) == start
    assert week.finish(start, by_ten, own_rate=0) == math.inf


def test_work_without_bytes_rests_only_where_the_move_is_stopped() -> None:
    night = calendar({"from": "22:00", "to": "06:00", "mib_per_second": 1}, outside="stop")
    assert night.finish_running(utc(2026, 6, 1, 20), 2 * HOUR) == utc(2026, 6, 2, 0)
    assert night.finish_running(utc(2026, 6, 1, 20), 9 * HOUR) == utc(2026, 6, 2, 23)


def test_what_takes_more_than_five_years_never_ends() -> None:
    rarely = calendar({"days": ["mon"], "from": "00:00", "to": "00:01", "mib_per_second": 1}, outside="stop")
    assert rarely.finish(utc(2026, 6, 1), 300 * 60 * MIB) == math.inf
    assert rarely.finish(utc(2026, 6, 1), 200 * 60 * MIB) < utc(2026, 6, 1) + HORIZON_SECONDS


def test_finish_agrees_with_a_walk_through_time() -> None:
    """Random weeks in zones with odd offsets; every piece against the clock, every finish against a sum."""
    rng = random.Random(7)
    zones = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe"]
    for _ in range(25):
        windows = []
        for _ in range(rng.randint(1, 4)):
            begins, ends = rng.sample(range(0, 1440, 5), 2)
            windows.append({
                "days": rng.sample(["mon", "tue", "wed", "thu", "fri", "sat", "sun"], rng.randint(1, 7)),
                "from": f"{begins // 60:02}:{begins % 60:02}", "to": f"{ends // 60:02}:{ends % 60:02}",
                "zone": rng.choice(zones), "mib_per_second": rng.choice([0.5, 1, 2, 8]),
            })  # fmt: skip
        week = calendar(*windows, bandwidth_mib_per_second=rng.choice([0.25, 4]))
        # Spans the nights of the change in Europe, America and Lord Howe.
        start = rng.choice([utc(2026, 3, 6), utc(2026, 3, 27), utc(2026, 4, 3), utc(2026, 10, 2), utc(2026, 10, 23)])
        until = start + 4 * 24 * HOUR
        pieces = list(week.pieces(start, until))
        assert pieces[0].start == start
        assert pieces[-1].end == until
        assert all(a.end == b.start and a.rate != b.rate for a, b in pairwise(pieces))
        for piece in pieces:
            for at in (piece.start, (piece.start + piece.end) / 2, piece.end - 0.5):
                assert week.rate_at(at) == piece.rate
        size = rng.randint(1, 200) * 1000 * MIB
        through = sum((p.rate or 0) * (p.end - p.start) for p in pieces)
        finish = week.finish(start, min(size, through))
        assert week.through(start, finish) == pytest.approx(min(size, through), rel=1e-9)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ('windows: [{from: 22:00, to: "06:00"}]', "in quotes"),
        ('windows: [{from: "22:00", to: "22:00"}]', "cannot end when it begins"),
        ('windows: [{from: "24:00", to: "02:00"}]', "cannot begin at 24:00"),
        ('windows: [{from: "22:00", to: "6:00"}]', "data.windows.0.to"),
        ('windows: [{from: "22:00", to: "06:00", zone: Europe/Berlim}]', "no time zone of that name"),
        ('windows: [{from: "22:00", to: "06:00", days: [Mon]}]', "data.windows.0.days.0"),
        ('windows: [{from: "22:00", to: "06:00", days: []}]', "data.windows.0.days"),
        ('windows: [{from: "22:00", to: "06:00", mib_per_second: -1}]', "greater than or equal to 0"),
        ("outside: stop", "nothing ever moves"),
        ('outside: stop\n  windows: [{from: "22:00", to: "06:00", mib_per_second: 0}]', "nothing ever moves"),
        ("egress_waivers: [{place: a, reference: c-1, from: 2026-05-02, to: 2026-05-01}]", "before its first day"),
        ("egress_waivers: [{place: a, reference: '', from: 2026-05-02, to: 2026-05-03}]", "egress_waivers.0.reference"),
    ],
)
def test_what_the_file_cannot_mean_is_told_with_its_line(tmp_path: Path, data: str, words: str) -> None:
    text = (
        "apiVersion: crossload/v1\nkind: Migration\nmetadata: {name: x, owner: y}\n"
        "goals:\n  metrics:\n"
        "    - {name: a, measure: latency_p95, direction: lower, limit: 2, unit: s}\n"
        "    - {name: b, measure: error_rate, direction: lower, limit: 0.1, unit: ratio}\n"
        "    - {name: c, measure: data_lag, direction: lower, limit: 9, unit: s}\n"
        "sources: [{id: a, provider: local, region: r1}]\n"
        "targets: {allow: [{id: b, provider: local, region: r2}, {id: c, provider: local, region: r3}]}\n"
        f"data:\n  {data}\n"
    )
    path = tmp_path / "migration.yaml"
    path.write_text(text, encoding="utf-8")
    migration, problems = read_migration(path)
    assert migration is None
    [problem] = problems
    assert words in str(problem).lower() or words in str(problem)
    assert problem.line >= 11
    assert problem.code == "XL112"


def test_the_whole_of_a_good_section_is_read() -> None:
    rules = DataRules.model_validate({"windows": [NIGHT], "outside": "stop", "bandwidth_mib_per_second": 5})
    assert Calendar.from_rules(rules).rate_at(berlin(2026, 6, 5, 12)) == 0, "stop beats the bandwidth outside"
    assert DataRules.model_validate(rules.model_dump(mode="json", by_alias=True)) == rules
    with pytest.raises(ValidationError):
        DataRules.model_validate({"windows": [{**NIGHT, "mib_per_secnd": 4}]})
    assert Hours.of(rules.windows[0]).rate == 400 * MIB
