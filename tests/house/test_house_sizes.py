"""Sizes: a guide with a hard ceiling, and surfaces that must not grow without somebody noticing."""

from __future__ import annotations

import ast
import warnings

import pytest
from source_tree import Source, functions, sources

from crossload import api
from crossload.ports.world import World

FILE_LINES_AIM, FILE_LINES_MAX = 400, 500
FUNCTION_LINES_AIM, FUNCTION_LINES_MAX = 60, 90
STAGE_LINES_MAX = 360  # the aim is 300; past it the engine below is missing something
API_NAMES_MAX = 30


def sizes() -> tuple[dict[str, int], dict[str, int]]:
    files = {source.path: source.text.count("\n") for source in sources()}
    lengths = {
        f"{source.path}:{function.name}": (function.end_lineno or function.lineno) - function.lineno + 1
        for source in sources()
        for function in functions(source.tree)
    }
    return files, lengths


def test_files_and_functions_stay_readable(recwarn: pytest.WarningsRecorder) -> None:
    files, lengths = sizes()
    assert {name: size for name, size in files.items() if size > FILE_LINES_MAX} == {}
    assert {name: size for name, size in lengths.items() if size > FUNCTION_LINES_MAX} == {}
    large = [f"{name} ({size} lines)" for name, size in files.items() if size > FILE_LINES_AIM]
    large += [f"{name} ({size} lines)" for name, size in lengths.items() if size > FUNCTION_LINES_AIM]
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        for item in large:
            warnings.warn(f"ask which second noun or verb lives in {item}", stacklevel=1)
    assert len(recwarn) == len(large)
    assert len(large) <= len(files) // 20, f"more than one file in twenty is over the aim: {large}"


def test_a_stage_decides_and_leaves_the_work_to_an_engine() -> None:
    stages = {source.path: source.text.count("\n") for source in sources() if source.room == "stages"}
    assert {name: size for name, size in stages.items() if size > STAGE_LINES_MAX} == {}


def test_the_world_stays_small() -> None:
    """It is the one thing every stage is handed: it must not rot into a god object. Each method gives one port."""
    methods = [name for name, value in vars(World).items() if callable(value) and not name.startswith("_")]
    facts = list(World.__annotations__)
    assert len(methods) <= 12, methods
    assert len(facts) <= 4, facts


def test_the_real_world_is_no_larger_than_the_port() -> None:
    from crossload.wiring import CloudWorld

    port = {name for name in vars(World) if not name.startswith("_")} | set(World.__annotations__)
    extra = {name for name in vars(CloudWorld) if not name.startswith("_")} - port
    assert extra == set(), "a stage that needs this would not run in another World"


def test_the_api_exports_what_it_says_and_no_more() -> None:
    assert len(api.__all__) <= API_NAMES_MAX
    assert sorted(api.__all__) == sorted(set(api.__all__))
    own = {
        node.name
        for source in sources()
        if source.room == "api"
        for node in source.tree.body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
    }
    assert own - set(api.__all__) == set(), "public and not in __all__"
    for name in api.__all__:
        assert hasattr(api, name), name
        assert getattr(api, name).__doc__, f"{name} has no docstring"


def test_the_faces_use_only_what_the_api_exports() -> None:
    used = {
        alias.name
        for source in sources()
        if source.room in ("cli", "web")
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ImportFrom) and node.module == "crossload.api"
        for alias in node.names
    }
    assert used - set(api.__all__) == set()


def undocumented(source: Source) -> list[str]:
    if ast.get_docstring(source.tree) is None:
        return [source.path]
    return []


def test_every_module_says_what_it_is() -> None:
    assert [name for source in sources() for name in undocumented(source)] == []


def test_annotations_are_everywhere() -> None:
    """Every function of the package says what it takes and gives."""
    bare = [
        f"{source.path}:{function.lineno}: {function.name}"
        for source in sources()
        for function in functions(source.tree)
        if function.returns is None
        or any(
            argument.annotation is None
            for argument in [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
            if argument.arg not in ("self", "cls")
        )
    ]
    assert bare == []


def test_no_handler_swallows_everything() -> None:
    """`except Exception` that neither raises nor says why it may be silent hides the next bug."""
    silent: list[str] = []
    for source in sources():
        lines = source.text.splitlines()
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.ExceptHandler):
                continue
            name = ast.unparse(node.type) if node.type else ""
            if name not in ("", "Exception", "BaseException"):
                continue
            raises = any(isinstance(item, ast.Raise) for item in ast.walk(node))
            if not raises and "BLE001" not in lines[node.lineno - 1]:
                silent.append(f"{source.path}:{node.lineno}")
    assert silent == []
