"""Each comparison rule on a pair that passes and on one that fails."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from crossload.engines.checks.catalog import attacks, comparisons
from crossload.engines.checks.compare import compare, table, tally
from crossload.engines.checks.model import EQUAL, STRICTER, UNKNOWN, WEAKER, Access, Line, Pair
from crossload.estate.countries import expand
from crossload.ports.policy import Fact


def lines_of(rule: str, pair: Pair) -> list[Line]:
    return next(item for item in comparisons() if item.id == rule).lines(pair)


def with_fact(pair: Pair, side: str, name: str, value: Any) -> Pair:
    changed = getattr(pair, side)
    posture = replace(changed.posture, facts={**changed.posture.facts, name: Fact(value, "table")})
    return replace(pair, **{side: replace(changed, posture=posture)})


def with_access(pair: Pair, side: str, identity: str, operation: str, allowed: bool | None) -> Pair:
    changed = getattr(pair, side)
    return replace(
        pair, **{side: replace(changed, access={**changed.access, (identity, operation): Access(allowed, "table")})}
    )


RANKED = [
    ("encryption", "encryption", "customer-key", "provider-key", "none"),
    ("versioning", "versioning", "on", "off", "off"),
    ("transport", "transport", "tls-only", "plain-possible", "plain-possible"),
    ("access-logs", "access_logs", "on", "off", "off"),
]


@pytest.mark.parametrize(("rule", "fact", "strong", "weak", "weakest"), RANKED)
def test_ranked_facts(pair: Pair, rule: str, fact: str, strong: str, weak: str, weakest: str) -> None:
    assert [line.verdict for line in lines_of(rule, pair)] == [EQUAL]
    for value in {weak, weakest}:
        worse = lines_of(rule, with_fact(pair, "target", fact, value))
        assert [line.verdict for line in worse] == [WEAKER]
        assert worse[0].hint, "a weaker line without a way out"
    better = with_fact(with_fact(pair, "source", fact, weak), "target", fact, strong)
    assert lines_of(rule, better)[0].verdict == STRICTER


@pytest.mark.parametrize(("rule", "fact"), [(row[0], row[1]) for row in RANKED])
def test_unknown_target_is_never_equal(pair: Pair, rule: str, fact: str) -> None:
    silent = with_fact(pair, "target", fact, None)
    assert lines_of(rule, silent)[0].verdict == UNKNOWN
    both = with_fact(silent, "source", fact, None)
    assert lines_of(rule, both)[0].verdict == UNKNOWN
    assert lines_of(rule, both)[0].target == "unknown"


@pytest.mark.parametrize(("rule", "fact", "strong", "weak", "weakest"), RANKED)
def test_unknown_source(pair: Pair, rule: str, fact: str, strong: str, weak: str, weakest: str) -> None:
    silent = with_fact(pair, "source", fact, None)
    assert lines_of(rule, silent)[0].verdict == STRICTER, "nothing can protect more than the strongest"
    assert lines_of(rule, with_fact(silent, "target", fact, weakest))[0].verdict == UNKNOWN


def test_public_access_closed_on_both_sides(pair: Pair) -> None:
    (line,) = lines_of("public-access", pair)
    assert (line.verdict, line.blocks) == (EQUAL, False)


def test_public_access_open_by_settings(pair: Pair) -> None:
    (line,) = lines_of("public-access", with_fact(pair, "target", "public_access", "open"))
    assert (line.verdict, line.blocks) == (WEAKER, True)


def test_public_access_a_request_that_got_through_beats_the_settings(pair: Pair) -> None:
    (line,) = lines_of("public-access", with_access(pair, "target", "none", "read", True))
    assert (line.verdict, line.target, line.blocks) == (WEAKER, "open", True)
    assert "read" in line.how


def test_public_access_open_source_does_not_excuse_an_open_target(pair: Pair) -> None:
    both = with_fact(with_fact(pair, "source", "public_access", "open"), "target", "public_access", "open")
    assert lines_of("public-access", both)[0].verdict == WEAKER


def test_public_access_refused_by_real_calls_where_settings_are_silent(pair: Pair) -> None:
    silent = with_fact(pair, "target", "public_access", None)
    assert lines_of("public-access", silent)[0].verdict == EQUAL
    one_unknown = with_access(silent, "target", "none", "delete", None)
    assert lines_of("public-access", one_unknown)[0].verdict == UNKNOWN, "three refusals say nothing of the fourth"


@pytest.mark.parametrize(("rule", "operation"), [("readers", "read"), ("readers", "list"), ("writers", "write"),
                                                 ("writers", "delete")])  # fmt: skip
def test_rights(pair: Pair, rule: str, operation: str) -> None:
    def verdict(source: bool | None, target: bool | None) -> str:
        changed = with_access(with_access(pair, "source", "app", operation, source), "target", "app", operation, target)
        return next(line.verdict for line in lines_of(rule, changed) if line.subject == f"app may {operation}")

    assert verdict(True, True) == EQUAL
    assert verdict(False, False) == EQUAL
    assert verdict(True, False) == STRICTER
    assert verdict(None, False) == STRICTER
    assert verdict(False, True) == WEAKER
    assert verdict(None, True) == UNKNOWN
    assert verdict(True, None) == UNKNOWN
    assert verdict(False, None) == UNKNOWN


def test_rights_leave_our_own_identity_out_and_name_everybody_else(pair: Pair) -> None:
    changed = with_access(pair, "target", "own", "write", True)
    changed = with_access(changed, "source", "app", "write", True)
    subjects = [line.subject for line in lines_of("writers", changed)]
    assert subjects == ["app may write", "app may delete"]
    assert lines_of("writers", changed)[0].verdict == UNKNOWN, "the target was not asked about the app"


def test_residency_passes_inside_and_stops_outside(pair: Pair, target_place: Any) -> None:
    (line,) = lines_of("residency", pair)
    assert (line.verdict, line.blocks) == (EQUAL, False)
    abroad = replace(pair, target=replace(pair.target, place=replace(target_place, country="US")))
    (line,) = lines_of("residency", abroad)
    assert (line.verdict, line.blocks) == (WEAKER, True)


@pytest.mark.parametrize(
    ("country", "region", "verdict"),
    [("", "europe-west3", UNKNOWN), ("DE", "us-east1", WEAKER), ("DE", "eu", WEAKER), ("DE", None, UNKNOWN)],
)
def test_residency_unknown_or_elsewhere_stops(
    pair: Pair, target_place: Any, country: str, region: str | None, verdict: str
) -> None:
    moved = with_fact(pair, "target", "region", region)
    moved = replace(moved, target=replace(moved.target, place=replace(target_place, country=country)))
    (line,) = lines_of("residency", moved)
    assert (line.verdict, line.blocks) == (verdict, True)
    assert line.hint


def test_residency_without_a_rule_is_said_and_does_not_stop(pair: Pair) -> None:
    (line,) = lines_of("residency", replace(pair, allowed=None))
    assert not line.blocks
    assert "no residency rule" in line.hint


def test_country_sets() -> None:
    assert {"DE", "FR"} <= expand(["EU"])
    assert "NO" not in expand(["EU"])
    assert "NO" in expand(["EEA"])
    assert expand(["US", "CH"]) == {"US", "CH"}
    assert len(expand(["EU"])) == 27


def test_every_comparison_speaks_about_a_safe_pair_and_finds_nothing(pair: Pair) -> None:
    found = compare(pair, comparisons())
    assert {line.rule for line in found} == {rule.id for rule in comparisons()} - {"readers", "writers"}
    assert tally(found)[EQUAL] == len(found)


def test_table_names_the_worst_first(pair: Pair) -> None:
    bad = with_fact(with_fact(pair, "target", "versioning", "off"), "target", "encryption", None)
    verdicts = [row["verdict"] for row in table(compare(bad, comparisons()))]
    assert verdicts[:2] == [WEAKER, UNKNOWN]
    assert set(verdicts[2:]) == {EQUAL}


def test_the_folder_is_the_list() -> None:
    assert {rule.id for rule in comparisons()} == {
        "access-logs", "encryption", "public-access", "readers", "residency", "transport", "versioning", "writers",
    }  # fmt: skip
    assert len(attacks()) >= 8
