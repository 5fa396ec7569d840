"""The order of steps, and the saved plan: the same bytes for the same plan, refused when its world has changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossload.estate.diagnostic import Diagnostic, errors_in
from crossload.ports.errors import Invalid, Stale
from crossload.steps.graph import in_order
from crossload.steps.plan import Plan, load_plan
from crossload.steps.step import Step

Make = Callable[..., Step]


def named(name: str, *after: str) -> Step:
    return Step(name, "goals", "make", "estate:x", name, after=after)


def ids(steps: list[Step]) -> list[str]:
    return [item.id for item in steps]


def test_what_waits_comes_after_and_the_rest_stays_as_planned() -> None:
    steps = [named("d", "b"), named("a"), named("b", "c"), named("c"), named("e")]
    assert ids(in_order(steps)) == ["c", "b", "d", "a", "e"]
    assert ids(in_order([])) == []


@given(st.data())
def test_any_graph_without_a_circle_is_put_in_order(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    steps = [
        named(f"{n}", *(f"{m}" for m in data.draw(st.sets(st.integers(0, n - 1), max_size=4))) if n else ())
        for n in range(count)
    ]
    shuffled = data.draw(st.permutations(steps))
    ordered = ids(in_order(shuffled))
    assert sorted(ordered) == sorted(ids(steps))
    for item in steps:
        assert all(ordered.index(name) < ordered.index(item.id) for name in item.after)
    assert ids(in_order(shuffled)) == ordered


@pytest.mark.parametrize(
    "steps, circle",
    [
        ([named("a", "a")], "a -> a"),
        ([named("a", "b"), named("b", "a")], "a -> b -> a"),
        ([named("x"), named("a", "x", "b"), named("b", "c"), named("c", "b")], "b -> c -> b"),
    ],
)
def test_a_circle_is_named(steps: list[Step], circle: str) -> None:
    with pytest.raises(Invalid, match=circle):
        in_order(steps)


def test_an_unknown_step_is_named() -> None:
    with pytest.raises(Invalid, match="step a waits for nobody, which is not in the plan"):
        in_order([named("a", "nobody")])


def test_an_id_used_twice_is_refused() -> None:
    """One of the two would be lost without a word."""
    with pytest.raises(Invalid, match="two steps are called a"):
        in_order([named("a"), named("b"), named("a")])


def test_a_chain_longer_than_pythons_stack() -> None:
    steps = [named(f"{n}", f"{n + 1}") for n in range(5000)] + [named("5000")]
    assert ids(in_order(steps)) == [f"{n}" for n in range(5000, -1, -1)]


def plan(**changes: object) -> Plan:
    values: dict[str, object] = {
        "name": "helpdesk",
        "migration": "1" * 64,
        "inventory": "2" * 64,
        "steps": (
            Step("a", "goals", "make", "dataset:ü", "make", {"n": [1, None, "é"]}, ("b",), "undo", "high", 2),
            named("b"),
        ),
        "diagnostics": (Diagnostic.error("XL401", "no", subject="dataset:ü", hint="do", line=3, column=4),),
        "choices": {"dataset:ü": "cloud-b"},
        "estimates": {"cost": {"value": "unknown", "unit": "usd"}},
    }
    return Plan(**{**values, **changes})  # type: ignore[arg-type]


def test_a_plan_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "plan.lock.json"
    plan().save(path)
    loaded = load_plan(path)
    assert loaded == plan()
    assert loaded.digest == plan().digest
    assert errors_in(loaded.diagnostics), "an error that was saved is still one"
    before = path.read_bytes()
    loaded.save(path)
    assert path.read_bytes() == before
    assert [item.name for item in path.parent.iterdir()] == ["plan.lock.json"]


def test_the_digest_sees_every_field() -> None:
    digests = {plan().digest}
    for name, value in (
        ("name", "other"), ("migration", "3" * 64), ("inventory", "3" * 64), ("steps", ()), ("diagnostics", ()),
        ("choices", {}), ("estimates", {}),
    ):  # fmt: skip
        digests.add(plan(**{name: value}).digest)
    assert len(digests) == 8


def test_a_stale_plan_says_what_changed() -> None:
    made = plan()
    made.check_fresh("1" * 64, "2" * 64)
    for migration, inventory, words in (
        ("x", "2" * 64, "the migration file changed"),
        ("1" * 64, "x", "the inventory changed"),
        ("x", "x", "the migration file and the inventory changed"),
    ):
        with pytest.raises(Stale, match=words) as stale:
            made.check_fresh(migration, inventory)
        assert stale.value.hint == "run `crossload plan`"


def test_no_plan_yet(tmp_path: Path) -> None:
    with pytest.raises(Stale, match="no plan yet"):
        load_plan(tmp_path / "plan.lock.json")


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "7", "null", "{}", '{"format": 2}', '{"format": 1}', "\udcff",
        '{"format": 1, "steps": 7}', "[" * 9999,
    ],
)  # fmt: skip
def test_what_is_no_plan_is_said_to_be_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plan.lock.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(Invalid) as invalid:
        load_plan(path)
    assert str(path) in str(invalid.value)
    assert "crossload plan" in invalid.value.hint


def test_any_field_missing_is_said(tmp_path: Path) -> None:
    path = tmp_path / "plan.lock.json"
    whole = plan().to_json()
    for name in whole:
        path.write_text(json.dumps({key: value for key, value in whole.items() if key != name}))
        with pytest.raises(Invalid):
            load_plan(path)
    broken = [{**whole["steps"][0], "after": None}], [{"id": "a"}], [7]
    for steps in broken:
        path.write_text(json.dumps({**whole, "steps": steps}))
        with pytest.raises(Invalid):
            load_plan(path)
    path.write_text(json.dumps({**whole, "diagnostics": [{**whole["diagnostics"][0], "severity": "awful"}]}))
    with pytest.raises(Invalid):
        load_plan(path)
