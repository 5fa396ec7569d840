"""Invariants 7, 8 and 9: no copy without a digest, no secret as a value, no unknown as a zero."""

from __future__ import annotations

import ast
import base64
import dataclasses
import gzip
import importlib
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from source_tree import Source, functions, name_of, sources

from crossload.engines.mover.manifest import write_manifest
from crossload.estate.migration import json_schema
from crossload.ledger.journal import Entry, Journal
from crossload.ledger.ledger import Ledger

# -- 7: nothing counts as copied without a digest --------------------------------------------------------------------


def finishing(source: Source) -> Iterator[tuple[int, bool]]:
    """(line, has a digest) of every place that makes a journal entry `done`."""
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Call):
            continue
        named = {keyword.arg: keyword.value for keyword in node.keywords}
        values = [*node.args, *(value for name, value in named.items() if name == "state")]
        done = any(isinstance(value, ast.Constant) and value.value == "done" for value in values)
        if done and name_of(node.func).rpartition(".")[2] in ("with_", "Entry", "replace"):
            yield node.lineno, "sha256" in named


def test_an_entry_becomes_done_only_together_with_its_digest() -> None:
    places = [(source.path, line, digest) for source in sources() for line, digest in finishing(source)]
    assert len(places) >= 2
    assert [place for place in places if not place[2]] == []


def test_a_planted_entry_without_digest_is_found() -> None:
    for code in (
        'journal.put(entry.with_(state="done"))',
        'Entry(key, 1, etag, "done")',
        'replace(entry, state="done")',
    ):
        assert [digest for _, digest in finishing(Source("x.py", "x", code, ast.parse(code)))] == [False]


def test_the_manifest_refuses_what_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no sha256"):
        write_manifest([Entry("a", 1, "etag", "done")], tmp_path)


# -- 8: secrets are references ---------------------------------------------------------------------------------------

SECRET_NAME = re.compile(
    r"(^|_)(password|passwd|secret|token|api_key|private_key|passphrase|credentials?"
    r"|secret_key|secret_access_key|session_token)$"
)


def names_in_schema(value: Any, way: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.get("properties", {}).items():
            yield f"{way}.{name}"
            yield from names_in_schema(inner, f"{way}.{name}")
        for name, inner in value.items():
            if name != "properties":
                yield from names_in_schema(inner, way)
    elif isinstance(value, list):
        for inner in value:
            yield from names_in_schema(inner, way)


def test_the_migration_file_has_no_key_for_a_secret() -> None:
    names = list(names_in_schema(json_schema()))
    assert len(names) > 40
    assert [name for name in names if SECRET_NAME.search(name.rpartition(".")[2].lower())] == []


def test_no_noun_step_or_record_has_a_field_for_a_secret() -> None:
    fields: list[str] = []
    for source in sources():
        if source.room not in ("estate", "steps", "ledger"):
            continue
        for value in vars(importlib.import_module(source.module)).values():
            if isinstance(value, type) and dataclasses.is_dataclass(value) and value.__module__ == source.module:
                fields += [f"{value.__name__}.{field.name}" for field in dataclasses.fields(value)]
    assert len(fields) > 60
    assert [name for name in fields if SECRET_NAME.search(name.rpartition(".")[2])] == []


def test_no_column_holds_a_secret(tmp_path: Path) -> None:
    Ledger(tmp_path / "ledger.db").close()
    Journal(tmp_path / "journal.db").close()
    columns: list[str] = []
    for name in ("ledger.db", "journal.db"):
        database = sqlite3.connect(tmp_path / name)
        for (table,) in database.execute("select name from sqlite_master where type='table'").fetchall():
            columns += [row[1] for row in database.execute(f"pragma table_info({table})")]
        database.close()
    assert len(columns) > 20
    assert [name for name in columns if SECRET_NAME.search(name)] == []


def test_fields_that_do_hold_secrets_stay_out_of_repr() -> None:
    """A dataclass prints itself into tracebacks and logs."""
    from crossload.ports.provider import Settings

    assert not next(field for field in dataclasses.fields(Settings) if field.name == "environment").repr
    shown: list[str] = []
    for source in sources():
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.ClassDef) or any(
                f.name == "__repr__" for f in node.body if isinstance(f, ast.FunctionDef)
            ):
                continue
            if any(
                "dataclass" in ast.unparse(item) or "NamedTuple" in ast.unparse(item)
                for item in [*node.decorator_list, *node.bases]
            ):
                shown += [
                    f"{source.path}:{item.lineno}: {node.name}.{ast.unparse(item.target)}"
                    for item in node.body
                    if isinstance(item, ast.AnnAssign)
                    and SECRET_NAME.search(ast.unparse(item.target))
                    and ast.unparse(item.annotation) in ("str", "bytes", "str | None")
                    and not (item.value is not None and "repr=False" in ast.unparse(item.value))
                ]
    places = {place.partition(":")[0] + ":" + place.rpartition(" ")[2] for place in shown}
    harmless = {
        "ports/portable.py:Page.next_token": "where a listing goes on",
        "engines/mover/freezing.py:FreezeReport.token": "the bucket policy that `thaw` puts back",
        "engines/checks/model.py:Try.credential": "the name of a credential, by which it is looked up",
        "engines/gateway/config.py:Config.admin_token": "a reference: the config refuses a value",
    }
    assert {place for place in places - set(harmless) if not place.startswith("lab/")} == set()
    assert set(harmless) <= places, "an allowance that nothing needs any more"


SecretsIn = Callable[[Path, Mapping[str, str]], list[str]]


def test_the_search_for_secrets_finds_them_in_every_dress(tmp_path: Path, secrets_in: SecretsIn) -> None:
    secret = 'hunter2/+"and more'
    assert secrets_in(tmp_path, {"db": secret}) == []
    import html
    import json
    from urllib.parse import quote

    dresses = {
        "plain.log": f"password is {secret}!".encode(),
        "plan.json": json.dumps({"x": secret}).encode(),
        "url.txt": f"http://u:{quote(secret, safe='')}@h/".encode(),
        "page.html": f"<b>{html.escape(secret)}</b>".encode(),
        "basic.txt": b"Authorization: Basic " + base64.b64encode(f"user:{secret}".encode()),
        "basic1.txt": base64.b64encode(f"u:{secret}".encode()),
        "basic2.txt": base64.b64encode(f"{secret}".encode()),
        "log.gz": gzip.compress(secret.encode()),
        "deep/wide.bin": secret.encode("utf-16-le"),
    }
    for name, data in dresses.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"before " + data if not name.endswith(".gz") else data)
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.set_setting("x", secret)
    ledger.close()
    assert secrets_in(tmp_path, {"db": secret, "other": "not in there"}) == sorted(
        [f"{name}: db" for name in [*dresses, "ledger.db"]]
    )
    with pytest.raises(ValueError, match="too short"):
        secrets_in(tmp_path, {"pin": "1234"})


def test_no_secret_lies_in_the_repository(repository: Path) -> None:
    """Keys of the kinds that scanners look for, in anything we publish."""
    kinds = re.compile(
        rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/=]{40}|\bAKIA(?!IOSFODNN7EXAMPLE)[0-9A-Z]{16}\b"
        rb"|\bghp_[A-Za-z0-9]{36}\b|\bsk-[A-Za-z0-9]{32,}\b|\bAIza[0-9A-Za-z_-]{35}\b"
    )
    found: list[str] = []
    for folder in ("src", "tests", "docs", "examples", "scripts", "changelog"):
        for path in (repository / folder).rglob("*"):
            if path.is_file() and "node_modules" not in path.parts and path.stat().st_size < 2**20:
                found += [
                    f"{path.relative_to(repository)}: {match[:12]!r}" for match in kinds.findall(path.read_bytes())
                ]
    allowed = re.compile(r"NOBODY|ABSENT|EXAMPLE|TEST|WRONG|FAKE|AKIAA{8}|0000")
    assert [item for item in found if not allowed.search(item)] == []


# -- 9: unknown is not zero ------------------------------------------------------------------------------------------

MEASURED = re.compile(
    r"bytes|size|count|price|cost|usd|rows|objects|versions|markers|latency|seconds|throughput|tokens|dimension"
)
# `file:function` -> why a zero may stand in for what is not known there.
ZERO_IS_RIGHT = {
    "ports/retrying.py:retry": "no Retry-After is no lower bound",
    "engines/traffic/judge.py:_scale": "no margin asked for is no margin",
    "providers/aws/store.py:head": "a server that does not say how many tags there are is asked for them",
    "providers/gcp/portable.py:stored_of": "goes into converted applications; a stored object has a size",
    "providers/aws/models.py": "the wire itself leaves a count out when it is zero",
}
# Known and not yet mended. Each is a number that reads as measured and is not.
OPEN: dict[str, str] = {}


def zeros(source: Source) -> Iterator[tuple[str, str]]:
    """(place, expression) of `x or 0` and `.get(x, 0)`, `.fact(x, 0)` where x is something measured."""
    for function in functions(source.tree):
        for node in ast.walk(function):
            zero = False
            if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or):
                last = node.values[-1]
                zero = isinstance(last, ast.Constant) and type(last.value) in (int, float) and last.value in (0, 1)
                # `.value or 0.0` is how a known Quantity is narrowed; the test below looks at those.
                zero = zero and not ast.unparse(node.values[0]).endswith(".value")
            elif (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("get", "fact")
            ):
                last = node.args[-1] if len(node.args) == 2 else None
                zero = isinstance(last, ast.Constant) and type(last.value) in (int, float) and last.value in (0, 1)
            text = ast.unparse(node) if zero else ""
            if MEASURED.search(text.lower()) and "counts.get" not in text:
                yield f"{source.path}:{function.name}", text


def test_no_unknown_is_read_as_zero() -> None:
    rooms = ("stages", "engines", "ports", "providers", "api", "web", "cli", "steps", "estate")
    found = dict.fromkeys(item for source in sources() if source.room in rooms for item in zeros(source))
    allowed = (*ZERO_IS_RIGHT, *OPEN)
    assert [f"{place}: {text}" for place, text in found if not place.startswith(allowed)] == []
    used = {item for item in allowed for place, _ in found if place.startswith(item)}
    assert set(allowed) == used, "an allowance that nothing needs any more"


@pytest.mark.parametrize(
    "code", ['a.fact("size_bytes") or 0', 'a.fact("rows", 0)', 'd.get("usd_per_hour", 0.0)', "info.size_bytes or 0"]
)
def test_a_planted_zero_is_found(code: str) -> None:
    text = f"def f(a, d, info):\n    return {code}\n"
    assert list(zeros(Source("engines/x.py", "x", text, ast.parse(text))))


def test_a_quantity_is_narrowed_only_where_it_is_known() -> None:
    """`.value or 0.0` satisfies the type checker; it may stand only behind a question whether the value is known."""
    question = re.compile(r"\.known|is None|is not None|default=|\.value is|unknown|priced|-> str")
    found = [
        f"{source.path}:{function.lineno}: {function.name}"
        for source in sources()
        for function in functions(source.tree)
        for text in [ast.unparse(function)]
        if re.search(r"\.value or 0", text) and not question.search(text)
    ]
    allowed = {
        "engines/planner/placement.py:total": "called for places whose costs are known only",
        "engines/planner/forecast.py:seconds": "the function around it has asked before",
    }
    assert [item for item in found if f"{item.partition(':')[0]}:{item.rpartition(' ')[2]}" not in allowed] == []
