"""Invariants 3, 5 and 6: plan() does no I/O, every stage has its four verbs, every effect is safe to repeat."""

from __future__ import annotations

import ast
import builtins
import inspect
import io
import os
import socket
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from source_tree import REPOSITORY, Source, functions, name_of, sources

from crossload import wiring
from crossload.estate.asset import Asset, Edge, Inventory, Kind, KindReport
from crossload.estate.evidence import Outcome
from crossload.estate.migration import Migration, MigrationFile
from crossload.ports.world import World
from crossload.steps.graph import in_order
from crossload.steps.step import Facts, Planned, Stage, Step

STAGES = list(wiring.STAGES)
VERBS = ("plan", "perform", "verify", "undo")


def stages() -> dict[str, Stage]:
    return {name: wiring.stage(name) for name in STAGES}


def source_of(name: str) -> Source:
    return next(source for source in sources() if source.path == f"stages/{name}.py")


# -- 5: four verbs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STAGES)
def test_the_four_verbs_with_their_signatures(name: str) -> None:
    module = wiring.stage(name)
    assert name == module.NAME
    for verb in VERBS:
        asked, given = getattr(Stage, verb), getattr(module, verb)
        wanted = list(inspect.signature(asked).parameters)[1:]
        assert list(inspect.signature(given).parameters) == wanted, f"{name}.{verb}"
        hints = get_type_hints(given, vars(module) | {"World": World})
        expected = {"plan": (Migration, Facts, Planned)}.get(verb, (Step, World, Outcome))
        assert tuple(hints.values()) == expected, f"{name}.{verb}"


@pytest.mark.parametrize("name", STAGES)
def test_the_verbs_come_in_their_order(name: str) -> None:
    order = [
        node.name for node in source_of(name).tree.body if isinstance(node, ast.FunctionDef) and node.name in VERBS
    ]
    assert order == list(VERBS)


@pytest.mark.parametrize("name", STAGES)
def test_every_verb_knows_every_action_it_plans(name: str) -> None:
    """A step whose action a verb does not know would fall through to the wrong one: actions are compared by name, and
    the last one may be the rest. So at most one planned action is not named in the stage's other functions."""
    planned = {step.action for step in plans()[name].steps}
    source = source_of(name)
    plan = next(node for node in functions(source.tree) if node.name == "plan")
    outside = [
        node.value
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and not plan.lineno <= node.lineno <= (plan.end_lineno or 0)
    ]
    assert len(planned - set(outside)) <= 1, planned - set(outside)


# -- 3: plan() does no I/O -------------------------------------------------------------------------------------------

FORBIDDEN_CALLS = {
    "open", "print", "input", "exec", "eval", "time.sleep", "time.time", "time.monotonic", "datetime.now", "date.today",
    "os.environ", "os.getenv", "os.listdir", "os.scandir", "os.stat", "subprocess.run", "subprocess.Popen", "random",
    "secrets.token_hex", "secrets.token_bytes", "uuid.uuid4",
}  # fmt: skip
FORBIDDEN_METHODS = {
    "read_text", "read_bytes", "write_text", "write_bytes", "exists", "is_file", "is_dir", "iterdir", "glob", "rglob",
    "stat", "mkdir", "unlink", "touch", "resolve", "store", "vectors", "models", "identity", "account", "policy",
    "probe", "agents", "code", "outcome",
}  # fmt: skip


def reached(source: Source, root: str) -> Iterator[ast.AST]:
    """The function and all functions of its module that it calls, however deep."""
    by_name = {node.name: node for node in source.tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    waiting, seen = [root], set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in by_name:
            continue
        seen.add(name)
        yield by_name[name]
        waiting += [node.id for node in ast.walk(by_name[name]) if isinstance(node, ast.Name)]


def effects(source: Source) -> list[str]:
    found: list[str] = []
    for function in reached(source, "plan"):
        for node in ast.walk(function):
            if isinstance(node, ast.Call):
                name = name_of(node.func)
                if name in FORBIDDEN_CALLS or any(name.endswith(f".{call}") for call in FORBIDDEN_CALLS if "." in call):
                    found.append(f"{source.path}:{node.lineno}: {name}()")
                elif isinstance(node.func, ast.Attribute) and node.func.attr in FORBIDDEN_METHODS:
                    found.append(f"{source.path}:{node.lineno}: .{node.func.attr}()")
            elif isinstance(node, ast.Name) and node.id == "world":
                found.append(f"{source.path}:{node.lineno}: world")
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                found.append(f"{source.path}:{node.lineno}: an import, which reads files")
    return found


@pytest.mark.parametrize("name", STAGES)
def test_plan_says_nothing_that_does_something(name: str) -> None:
    assert effects(source_of(name)) == []


@pytest.mark.parametrize(
    "line",
    ["open('x')", "Path('x').read_text()", "world.store('a')", "time.sleep(1)", "datetime.now(UTC)", "import os"],
)
def test_a_planted_effect_is_found(line: str) -> None:
    code = "def plan(migration, facts):\n    return _deeper()\n\n"
    code += f"def _deeper():\n    return _deepest()\n\ndef _deepest():\n    {line}\n"
    assert effects(Source("stages/planted.py", "planted", code, ast.parse(code)))


def _place(name: str, country: str) -> dict[str, Any]:
    return {
        "id": name,
        "provider": "local",
        "region": f"region-of-{name}",
        "country": country,
        "connection": {"root": "x"},
    }


def migration() -> Migration:
    """Every section filled, so that every branch of planning has something to plan."""
    metric = {"direction": "lower", "limit": 1.0, "unit": "s"}
    value: dict[str, Any] = {
        "apiVersion": "crossload/v1",
        "kind": "Migration",
        "metadata": {"name": "helpdesk", "owner": "support", "deadline": "2027-03-01"},
        "goals": {
            "metrics": [
                {"name": "latency", "measure": "latency_p95", "rollback_at": 2.0, **metric},
                {"name": "errors", "measure": "error_rate", **metric},
                {"name": "equality", "measure": "digest_mismatches", **metric},
            ],
            "budget": {"one_time_usd": 100, "monthly_usd": 50},
        },
        "sources": [_place("cloud-a", "DE")],
        "targets": {
            "allow": [_place("cloud-b", "DE"), _place("cloud-c", "FR")],
            "residency": {"personal": ["EU"]},
            "forbid": ["region-of-cloud-c"],
            "regions": {"min": 1},
        },
        "overlays": [{"match": {"kind": "dataset"}, "set": {"sensitivity": "personal", "owner": "support"}}],
        "app": {"path": "app"},
    }
    return Migration(MigrationFile.model_validate(value), Path("/nowhere/migration.yaml"))


def _asset(kind: Kind, name: str, **facts: Any) -> Asset:
    return Asset(
        f"{kind}:{name}", kind, name, "cloud-a", f"native/{name}", facts, {"team": "x"}, {"sensitivity": "personal"}
    )


def inventory() -> Inventory:
    """One asset of every kind there is; of datasets also one about which nothing is known."""
    size = 123_456_789
    filled = {
        Kind.DATASET: {
            "bucket": "docs",
            "object_count": 10,
            "size_bytes": size,
            "older_versions": 2,
            "delete_markers": 1,
        },
        Kind.MODEL: {"bucket": "models", "key": "m/model.gguf", "size_bytes": size, "format": "gguf"},
        Kind.INDEX: {"table": "docs", "dimension": 384, "rows": 100, "metric": "cosine", "index_type": "hnsw"},
        Kind.ENDPOINT: {"model": "model", "wire": "chat"},
        Kind.APP: {"path": "app", "language": "python"},
        Kind.AGENT: {"model": "model", "tools": ["orders"]},
    }
    assets = [_asset(kind, "one", **filled.get(kind, {})) for kind in Kind if kind is not Kind.ESTATE]
    assets.append(_asset(Kind.DATASET, "unknown"))
    edges = (
        Edge("agent:one", "calls", "endpoint:one"), Edge("app:one", "calls", "endpoint:one"),
        Edge("app:one", "reads", "dataset:one"), Edge("endpoint:one", "built-from", "model:one"),
        Edge("endpoint:one", "serves", "model:one"),
    )  # fmt: skip
    reports = (KindReport("cloud-a", "dataset", "found", 2), KindReport("cloud-a", "function", "denied", None, "no"))
    return Inventory(tuple(sorted(assets, key=lambda asset: asset.id)), tuple(sorted(edges)), reports)


def facts() -> Facts:
    held = inventory()
    outcomes = {
        "foundations/probe/cloud-a-cloud-b": {
            "write_bytes_per_second": [1e7, 2e7], "read_bytes_per_second": [3e7], "latency_seconds": {"p50": 0.01},
        },
    }  # fmt: skip
    return Facts(held, {asset.id: "cloud-b" for asset in held.assets}, outcomes, "2026-11-24")


@cache
def plans() -> dict[str, Planned]:
    return {name: module.plan(migration(), facts()) for name, module in stages().items()}


def test_plan_runs_with_every_door_shut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once with the doors open (modules and the providers' fact files are read on first use), then with all of them
    shut: what planning still wants to know of the world raises."""
    first = plans()

    def shut(*arguments: Any, **_: Any) -> Any:
        raise AssertionError(f"plan() reached for the world: {arguments[:2]}")

    made, found = migration(), facts()
    for module, name in (
        (builtins, "open"), (io, "open"), (os, "open"), (os, "stat"), (os, "scandir"), (os, "listdir"), (os, "mkdir"),
        (os, "getenv"), (socket, "socket"), (socket, "getaddrinfo"), (subprocess, "Popen"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, shut)
    try:
        for door in (lambda: Path("x").exists(), lambda: Path("x").read_text(), lambda: list(Path("x").iterdir())):
            with pytest.raises(AssertionError, match="reached for the world"):
                door()
        second = {name: stage.plan(made, found) for name, stage in stages().items()}
    finally:
        monkeypatch.undo()
    assert second == first, "the same facts give the same plan"


def test_every_kind_of_asset_that_moves_is_planned_for() -> None:
    made = plans()
    planned = {step.asset for planned in made.values() for step in planned.steps}
    assert {"dataset:one", "dataset:unknown", "model:one", "index:one", "endpoint:one", "app:one"} <= planned
    silent = [name for name, stage in made.items() if not stage.steps]
    assert silent == []


def test_steps_are_what_a_step_is() -> None:
    """Ids tell stage and asset, nothing but JSON is in the parameters, and all together can be put in order."""
    import json

    known: set[str] = set()
    steps = [step for planned in plans().values() for step in planned.steps]
    for name, planned in plans().items():
        for step in planned.steps:
            assert step.stage == name
            assert step.id.startswith(f"{name}/{step.action}/"), step.id
            assert step.id not in known, step.id
            known.add(step.id)
            assert step.risk in ("low", "medium", "high")
            assert step.wave >= 1
            assert step.summary
            assert step.undo, f"{step.id} does not say how it is undone"
            assert Step.from_json(json.loads(json.dumps(step.to_json()))) == step
        for item in planned.diagnostics:
            assert item.code.startswith("XL")
    unknown = {(step.id, name) for step in steps for name in step.after if name not in known}
    assert {name.partition("/")[0] for _, name in unknown} <= set(STAGES)
    in_order([Step.from_json({**step.to_json(), "after": [n for n in step.after if n in known]}) for step in steps])


def test_an_unknown_size_is_said_to_be_unknown() -> None:
    summary = next(step.summary for step in plans()["transfer"].steps if step.asset == "dataset:unknown")
    assert "unknown" in summary
    assert "0.0 MiB" not in summary


# -- 6: safe to repeat -----------------------------------------------------------------------------------------------


# Stages whose perform has no lasting effect to find again, and why.
MEASURES = {
    "foundations": "signs in, asks and measures; what it writes it removes",
    "cutover": "sends traffic and decides anew; weights, freeze and switch are set to a value, not moved by one",
}


@pytest.mark.parametrize("name", [name for name in STAGES if name not in MEASURES])
def test_a_repeat_that_finds_nothing_to_do_can_say_so(name: str) -> None:
    """perform (or what it calls in its stage) can come to `unchanged`: it looks before it acts."""
    source = source_of(name)
    calls = {
        name_of(node.func)
        for function in reached(source, "perform")
        for node in ast.walk(function)
        if isinstance(node, ast.Call)
    }
    assert "Outcome.unchanged" in calls, f"{name}.perform never says `unchanged`"


@cache
def files_with_repeats() -> list[tuple[Path, str]]:
    """Path and text of every test file outside of this house that speaks of doing something again."""
    again = ("again", "twice", "second", "repeat", "unchanged", "idempotent")
    files = [(path, path.read_text(encoding="utf-8")) for path in (REPOSITORY / "tests").rglob("test_*.py")]
    return [(path, text) for path, text in files if "house" not in path.parts and any(word in text for word in again)]


@pytest.mark.parametrize("name", STAGES)
def test_somebody_tests_the_repeat(name: str) -> None:
    """A test somewhere performs this stage's steps and speaks of doing it again. Which one is found by reading."""
    for path, text in files_with_repeats():
        if (
            f"stages import {name}" in text
            or f"stages.{name}" in text
            or ("stages import" in text and f" {name}" in text)
        ):
            return
        if "journeys" in path.parts and (f'"{name}"' in text or "apply()" in text or '"apply"' in text):
            return
    pytest.fail(f"no test performs {name} twice")
