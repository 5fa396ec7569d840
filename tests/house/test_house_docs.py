"""Invariant 12: every verb, port, diagnostic code, stage, provider and setting has its page."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from functools import cache

import pytest
from source_tree import DOCS, PACKAGE, sources

from crossload import wiring
from crossload.cli.main import VERBS
from crossload.estate.migration import json_schema
from crossload.ports import errors

CODE = re.compile(r"\bXL[1-9]\d\d\b")


@cache
def page(name: str = "") -> str:
    """One page, or all of them."""
    if name:
        path = DOCS / name
        return path.read_text(encoding="utf-8") if path.exists() else ""
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md")))


def all_in(wanted: Iterable[str], text: str, where: str) -> None:
    """Fail with the whole list of what `where` does not mention."""
    missing = sorted(word for word in wanted if not re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text))
    if missing:
        pytest.fail(f"{where} lacks: {', '.join(missing)}", pytrace=False)


@cache
def codes() -> set[str]:
    """Every code that the package can say, from its string literals."""
    return {
        code
        for source in sources()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for code in CODE.findall(node.value)
    }


def test_every_verb_has_its_line() -> None:
    all_in(VERBS, page("cli.md"), "docs/cli.md")


def test_every_option_of_every_verb_is_named() -> None:
    import importlib

    import click

    wanted: set[str] = set()
    for verb, (module, _) in VERBS.items():
        command = getattr(importlib.import_module(module), f"{verb}_command")
        for option in command.params:
            if isinstance(option, click.Option) and option.name not in ("help",):
                wanted.add(max(option.opts, key=len))
    assert len(wanted) > 10
    all_in(wanted, page("cli.md") + page("lab.md"), "docs/cli.md")


def test_every_exit_code_is_explained() -> None:
    from crossload.cli import exits

    known = {value for name, value in vars(exits).items() if name.isupper() and isinstance(value, int)}
    assert len(known) >= 8
    assert sorted(code for code in known if not re.search(rf"^\| {code} \|", page("cli.md"), re.MULTILINE)) == []


def test_every_port_is_named() -> None:
    files = {path.stem for path in (PACKAGE / "ports").glob("*.py")} - {"__init__", "errors", "provider"}
    all_in((f"ports/{name}.py" for name in files), page("ports.md"), "docs/ports.md")
    offered = {port for ports in wiring.support_matrix().values() for port in ports}
    all_in((name.capitalize() for name in offered), page("ports.md"), "docs/ports.md")


def test_every_diagnostic_code_is_explained() -> None:
    assert len(codes()) > 60
    explained = set(re.findall(r"^\| (XL\d\d\d) \|", page("diagnostics.md"), re.MULTILINE))
    without, stale = sorted(codes() - explained), sorted(explained - codes())
    assert not without, f"codes without a line in docs/diagnostics.md: {', '.join(without)}"
    assert not stale, f"lines about codes that nothing says any more: {', '.join(stale)}"


def test_a_code_means_one_thing() -> None:
    """One code, one engine (and the stage above it): a script that knows it must not be surprised."""
    rooms: dict[str, set[str]] = {}
    for source in sources():
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE.fullmatch(node.value):
                parts = source.path.split("/")
                rooms.setdefault(node.value, set()).add("/".join(parts[:2] if parts[0] == "engines" else parts[:1]))
    shared = {code: sorted(found) for code, found in rooms.items() if len(found - {"stages"}) > 1}
    assert shared == {}


def test_every_error_code_is_in_the_tree_of_its_module() -> None:
    """The docstring of ports/errors.py draws the tree; it must have every leaf."""
    leaves = [name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)]
    all_in(leaves, errors.__doc__ or "", "the docstring of ports/errors.py")
    found = [value.code for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert len(found) == len(set(found))


def test_every_key_of_the_migration_file_is_on_its_page() -> None:
    schema = json_schema()
    keys = {key for section in [schema, *schema["$defs"].values()] for key in section.get("properties", {})}
    all_in(keys, page("migration-file.md"), "docs/migration-file.md")


@pytest.mark.parametrize("kind", ["stages", "providers"])
def test_stages_and_providers_are_spoken_of(kind: str) -> None:
    names = wiring.STAGES if kind == "stages" else tuple(wiring.PROVIDERS)
    all_in(names, page().lower(), "docs/")


def test_links_between_pages_lead_somewhere() -> None:
    broken = [
        f"{path.relative_to(DOCS)} -> {target}"
        for path in sorted(DOCS.rglob("*.md"))
        for target in re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8"))
        if "://" not in target and not (path.parent / target).exists()
    ]
    assert broken == []


def test_the_docs_speak_of_no_machine() -> None:
    """No path of the machine the page was written on."""
    found = [
        f"{path.relative_to(DOCS)}: {match}"
        for path in sorted(DOCS.rglob("*.md"))
        for match in re.findall(r"(?:/root|/work|/home/\w+|/tmp/\w+)/[\w./-]*", path.read_text(encoding="utf-8"))
    ]
    assert found == []
