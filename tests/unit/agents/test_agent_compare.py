"""Comparing tool calls: what counts as a difference, and what a result may promise."""

from __future__ import annotations

import pytest

from crossload.engines.agents import Call, compare


def status(order_id: object) -> Call:
    return Call("order_status", {"order_id": order_id})


def test_equal_calls_are_equal_whatever_their_spelling() -> None:
    left = {"c1": [Call("find", {"a": 1, "b": {"x": [1, 2.0]}})]}
    right = {"c1": [Call("find", {"b": {"x": [1.0, 2]}, "a": 1.0})]}
    found = compare(left, right)
    assert found.equal
    assert found.differences == ()
    assert found.rate == 1.0


@pytest.mark.parametrize(
    ("source", "target", "kind", "position"),
    [
        ([status(1)], [status(2)], "arguments", 0),
        ([status(1)], [status("1")], "arguments", 0),
        ([status(1)], [status(True)], "arguments", 0),
        ([status(1)], [Call("cancel", {"order_id": 1})], "tool", 0),
        ([status(1)], [], "missing", 0),
        ([], [status(1)], "extra", 0),
        ([status(1), status(2)], [status(2), status(1)], "arguments", 0),
        ([status(1), status(2)], [status(1)], "missing", 1),
        ([status(1)], [status(1), status(1)], "extra", 1),
    ],
)
def test_each_kind_of_difference(source: list[Call], target: list[Call], kind: str, position: int) -> None:
    found = compare({"c1": source, "c2": [status(9)]}, {"c1": target, "c2": [status(9)]})
    assert not found.equal
    assert (found.cases, found.same) == (2, 1)
    (difference,) = found.differences
    assert (difference.case, difference.kind, difference.position) == ("c1", kind, position)
    assert "c1" in found.summary()


def test_a_case_that_one_side_did_not_run_is_a_difference() -> None:
    found = compare({"c1": [status(1)]}, {"c2": [status(1)]})
    assert [(item.case, item.kind) for item in found.differences] == [("c1", "absent"), ("c2", "absent")]


def test_nothing_compared_proves_nothing() -> None:
    assert not compare({}, {}).equal
    assert compare({}, {}).rate is None
    assert compare({}, {}).summary() == "no conversation was run"
    silent = compare({"c1": []}, {"c1": []})
    assert (silent.same, silent.silent, silent.equal) == (1, 1, False)


def test_few_cases_promise_little() -> None:
    def of(cases: int, wrong: int) -> float | None:
        source = {f"c{number}": [status(number)] for number in range(cases)}
        target = {f"c{number}": [status(number + (number < wrong) * 100)] for number in range(cases)}
        return compare(source, target).rate_low

    # Wilson's lower bound at 95 %: n / (n + z^2) when all are equal.
    assert of(8, 0) == pytest.approx(8 / (8 + 1.959964**2))
    assert of(200, 0) == pytest.approx(200 / (200 + 1.959964**2))
    assert of(10, 10) == pytest.approx(0.0, abs=1e-12)
    assert of(20, 2) == pytest.approx(0.6990, abs=1e-3)


def test_the_report_is_json() -> None:
    found = compare({"c1": [status(1)]}, {"c1": [status(2)]}).to_json()
    assert found["differences"] == [
        {
            "case": "c1", "kind": "arguments", "position": 0, "source": 'order_status {"order_id":1}',
            "target": 'order_status {"order_id":2}',
        }
    ]  # fmt: skip
    assert (found["equal"], found["rate"]) == (False, 0.0)
