# ruff: noqa: E501 - tables of text against text
"""The migration file: every problem at once, each with its place, its code and what to do; and never a traceback."""

from __future__ import annotations

import json
import random
import textwrap
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crossload.estate.diagnostic import Diagnostic, Severity
from crossload.estate.migration import Migration, json_schema
from crossload.estate.reading import read_migration

GOOD = textwrap.dedent(
    """\
    # yaml-language-server: $schema=migration.schema.json
    apiVersion: crossload/v1
    kind: Migration
    metadata:
      name: helpdesk
      owner: support
      deadline: 2027-03-01
    environment: lab/env
    goals:
      metrics:
        - {name: latency, measure: latency_p95, direction: lower, limit: 2.5, unit: s, rollback_at: 5}
        - {name: errors, measure: error_rate, direction: lower, limit: 0.01, unit: ratio}
        - {name: answers, measure: answer_agreement, direction: higher, limit: 0.9, unit: ratio}
    sources:
      - id: cloud-a
        provider: local
        region: disk-1
        connection: {root: /srv/a, profile: mover, "client_secret@audit": file:secrets/audit}
    targets:
      allow:
        - id: cloud-b
          provider: local
          region: disk-2
          country: DE
          services:
            vectors: {provider: local, connection: {url: env:PG_URL}}
        - {id: cloud-c, provider: local, region: disk-3, country: FR}
      residency: {personal: [EU]}
    overlays:
      - match: {kind: dataset, name: "docs*"}
        set: {sensitivity: personal, owner: support}
    """
)


def read(tmp_path: Path, text: str | bytes) -> tuple[Migration | None, list[Diagnostic]]:
    path = tmp_path / "migration.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_migration(path)


def found(tmp_path: Path, text: str | bytes) -> list[tuple[str, int, int]]:
    """(code, line, column) of every problem, after the promises that hold for all of them."""
    migration, problems = read(tmp_path, text)
    assert migration is None
    assert problems
    for item in problems:
        assert item.severity is Severity.ERROR
        assert item.subject.endswith("migration.yaml")
        assert str(item).startswith(f"{item.subject}:{item.line}:{item.column}: error {item.code}: ")
    return [(item.code, item.line, item.column) for item in problems]


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) == 1, old
    return GOOD.replace(old, new)


def line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


def test_a_good_file(tmp_path: Path) -> None:
    migration, problems = read(tmp_path, GOOD)
    assert problems == []
    assert migration is not None
    assert migration.name == "helpdesk"
    assert migration.source.id == "cloud-a"
    assert list(migration.places) == ["cloud-a", "cloud-b", "cloud-c"]
    assert migration.places["cloud-b"].service("vectors").connection == {"url": "env:PG_URL"}
    assert migration.places["cloud-b"].service("store").provider == "local"
    assert migration.file.data.workers == 8
    assert migration.folder == tmp_path


def test_all_problems_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = changed("  owner: support\n", "  ownr: support\n")
    text = text.replace("limit: 2.5", "limit: fast").replace("direction: higher", "direction: highr")
    text = text.replace("kind: Migration", "kind: Migraton").replace("country: FR", "country: France")
    codes = found(tmp_path, text)
    assert codes == sorted(codes, key=lambda item: item[1:])
    assert [code for code, _, _ in codes] == ["XL112", "XL111", "XL110", "XL112", "XL112", "XL112"]
    assert [line for _, line, _ in codes] == [
        line_of(text, "kind: Migraton"), line_of(text, "  name: helpdesk"), line_of(text, "ownr"),
        line_of(text, "limit: fast"), line_of(text, "highr"), line_of(text, "France"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "old, new, code, part, hint",
    [
        ("  owner: support\n", "  owner: support\n  dedline: 2027-01-01\n", "XL110", "dedline", "did you mean `deadline`?"),
        ("      residency: {personal: [EU]}".strip(), "residncy: {personal: [EU]}", "XL110", "residncy", "did you mean `residency`?"),
        ("  owner: support\n", "  owner: support\n  zzz: 1\n", "XL110", "zzz", "known keys here: deadline, name, owner"),
        ("direction: higher", "direction: highr", "XL112", "highr", "did you mean `higher`?"),
        ("measure: error_rate", "measure: zzz", "XL112", "zzz", "one of: answer_agreement"),
        ("vectors: {provider", "vector: {provider", "XL112", "vector:", "did you mean `vectors`?"),
        ("set: {sensitivity: personal", "set: {sensitvity: personal", "XL112", "sensitvity", "did you mean `sensitivity`?"),
        ("limit: 0.01", "limit: null", "XL112", "null", "Worst value"),
        ("name: helpdesk", "name: Help Desk", "XL112", "Help Desk", "Name of this migration"),
        ("country: DE", "country: germany", "XL112", "germany", "ISO 3166-1"),
        ("profile: mover", "profile: 7", "XL112", "7,", ""),
        ("deadline: 2027-03-01", "deadline: soon", "XL112", "soon", "Last day"),
    ],
)  # fmt: skip
def test_one_problem_names_its_place_and_the_way_out(
    tmp_path: Path, old: str, new: str, code: str, part: str, hint: str
) -> None:
    text = changed(old, new)
    migration, problems = read(tmp_path, text)
    assert migration is None
    assert len(problems) == 1
    problem = problems[0]
    lines = text.splitlines()
    line = next(number for number, content in enumerate(lines, 1) if part in content)
    assert (problem.code, problem.line) == (code, line)
    assert problem.column == lines[line - 1].index(part) + 1
    assert hint in problem.hint


@pytest.mark.parametrize("name", ["apiVersion", "kind", "metadata", "goals", "sources", "targets"])
def test_a_section_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    lines = GOOD.splitlines(keepends=True)
    start = next(n for n, line in enumerate(lines) if line.startswith(f"{name}:"))
    end = next((n for n in range(start + 1, len(lines)) if not lines[n].startswith((" ", "#"))), len(lines))
    migration, problems = read(tmp_path, "".join(lines[:start] + lines[end:]))
    assert migration is None
    assert [(item.code, item.summary) for item in problems] == [("XL111", f"`{name}` is missing")]


def test_duplicate_keys(tmp_path: Path) -> None:
    text = changed("      owner: support\n".strip() + "\n", "owner: support\n  owner: other\n")
    migration, problems = read(tmp_path, text)
    assert migration is None
    assert [item.code for item in problems] == ["XL103"]
    assert problems[0].line == line_of(text, "owner: other")
    assert f"first on line {line_of(text, '  owner: support')}" in problems[0].summary


@pytest.mark.parametrize(
    "old, new, code, part",
    [
        ("id: cloud-c", "id: cloud-a", "XL120", "cloud-a, provider"),
        ("region: disk-3", "region: disk-2", "XL121", "allow:"),
        ("  residency:", "  forbid: [disk-2, mars]\n  regions: {min: 1}\n  residency:", "XL122", "mars"),
        ("name: answers", "name: errors", "XL123", "errors, measure: answer"),
        ("overlays:", "cutover: {canary_weights: [5, 25]}\noverlays:", "XL124", "[5, 25]"),
        ("overlays:", "cutover: {canary_weights: []}\noverlays:", "XL124", "[]"),
        ("overlays:", "cutover: {canary_weights: [50, 5, 100]}\noverlays:", "XL124", "[50, 5"),
        ("overlays:", "cutover: {canary_weights: [0, 100]}\noverlays:", "XL124", "[0,"),
        ("file:secrets/audit", "hunter2", "XL125", "hunter2"),
        ("env:PG_URL", "postgresql://app:hunter2@127.0.0.1/db", "XL125", "postgresql:"),
        ("profile: mover", "password: hunter2", "XL125", "hunter2"),
        ("profile: mover", "api_key: hunter2", "XL125", "hunter2"),
        ("profile: mover", "token@freeze: hunter2", "XL125", "hunter2"),
    ],
)
def test_what_no_single_field_can_see(tmp_path: Path, old: str, new: str, code: str, part: str) -> None:
    text = changed(old, new)
    migration, problems = read(tmp_path, text)
    assert migration is None
    assert [item.code for item in problems] == [code]
    wanted = line_of(text, part)
    # An empty or missing list is pointed at by the nearest thing that is there.
    assert problems[0].line in (wanted, wanted + (1 if part == "allow:" else 0))
    assert problems[0].hint
    assert "hunter2" not in "".join(str(item) for item in problems)


def test_settings_that_only_sound_secret_pass(tmp_path: Path) -> None:
    text = changed(
        "profile: mover", "credentials_file: /srv/credentials, client_id: mover, url: postgresql://app@host/db"
    )
    assert read(tmp_path, text)[1] == []


# -- not a migration file at all -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, code",
    [
        ("", "XL102"),
        ("# only a comment\n", "XL102"),
        ("---\n", "XL112"),
        ("7", "XL112"),
        ("[]", "XL112"),
        ("just text", "XL112"),
        ("a: [1, 2", "XL101"),
        ("a: b: c", "XL101"),
        ("\ta: 1", "XL101"),
        ("a: 1\n---\nb: 2\n", "XL101"),
        ("a: *nobody", "XL101"),
        ("a: !!python/object:os.system x", "XL101"),
        ("a: !unknown x", "XL101"),
        ("a: \x07", "XL101"),
        ("? [a, b]\n: 1", "XL101"),
        ("? {a: b}\n: 1", "XL101"),
        ("!!int foo", "XL101"),
        ("a: !!timestamp x", "XL101"),
        ("a: 2027-99-99", "XL101"),
        ("a: !!float x", "XL101"),
        ("a: " + "9" * 5000, "XL101"),
        ("[" * 600, "XL101"),
        ("&a [*a]", "XL112"),
        ("&a {x: *a}", "XL110"),
        ("%YAML 9.9\n---\na: 1", "XL101"),
        (b"\xff\xfe\x00", "XL100"),
        ("ünï: 1".encode("latin-1"), "XL100"),
    ],
)
def test_what_is_no_such_file_is_said_so(tmp_path: Path, text: str | bytes, code: str) -> None:
    migration, problems = read(tmp_path, text)
    assert migration is None
    assert code in {item.code for item in problems}
    assert all(item.hint or item.code in ("XL111", "XL112") for item in problems)
    json.dumps([item.to_json() for item in problems])


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "migration.yaml", tmp_path):
        migration, problems = read_migration(path)
        assert migration is None
        assert [item.code for item in problems] == ["XL100"]
        assert "crossload init" in problems[0].hint


def test_the_place_of_a_forbidden_character(tmp_path: Path) -> None:
    assert found(tmp_path, "kind: Migration\nmetadata:\n  name: a\x07b\n") == [("XL101", 3, 10)]


@pytest.mark.timeout(20)
def test_a_billion_laughs_end_soon(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    text = "\n".join(lines) + "\nsources: *a29\noverlays: *a29\nmetadata: *a29\nkind: *a29\n"
    migration, problems = read(tmp_path, text)
    assert migration is None
    assert all(len(str(item)) < 2000 for item in problems)


def test_anchors_and_merges_are_allowed(tmp_path: Path) -> None:
    text = changed("        - {id: cloud-c, provider: local, region: disk-3, country: FR}".strip(),
                   "- &c {id: cloud-c, provider: local, region: disk-3, country: FR}\n    - {<<: *c, id: cloud-d, region: disk-4}")  # fmt: skip
    migration, problems = read(tmp_path, text)
    assert problems == []
    assert migration is not None
    assert migration.places["cloud-d"].country == "FR"


# -- the published schema --------------------------------------------------------------------------------------------


def test_the_schema_names_every_key_of_the_good_file() -> None:
    import yaml

    schema = json_schema()
    json.dumps(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"

    def walk(value: object, at: dict[str, object], way: str) -> None:
        while "$ref" in at or "anyOf" in at:
            if "anyOf" in at:
                options = [one for one in at["anyOf"] if one.get("type") != "null"]  # type: ignore[attr-defined,union-attr]
                at = options[0]
            else:
                at = schema["$defs"][str(at["$ref"]).rpartition("/")[2]]
        if isinstance(value, dict):
            if "properties" in at:
                assert at.get("additionalProperties") is False, way
                for key, inner in value.items():
                    walk(inner, at["properties"][key], f"{way}.{key}")  # type: ignore[index]
        elif isinstance(value, list):
            for inner in value:
                walk(inner, at["items"], f"{way}[]")  # type: ignore[arg-type]

    walk(yaml.safe_load(GOOD), schema, "")


def test_every_key_of_the_schema_is_described() -> None:
    schema = json_schema()
    bare = [
        f"{name}.{key}"
        for name, section in schema["$defs"].items()
        for key, value in section.get("properties", {}).items()
        if "description" not in value and "$ref" not in value
    ]
    allowed = {  # their names say it all, or their section does
        "Gateway.host", "Regions.max", "DataRules.part_size_mib", "DataRules.workers", "DataRules.manifest",
        "Cutover.requests_per_weight",
    }  # fmt: skip
    assert set(bare) <= allowed


# -- fuzz ------------------------------------------------------------------------------------------------------------

FUZZ = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def never_raises(tmp_path: Path, content: bytes) -> None:
    migration, problems = read(tmp_path, content)
    assert (migration is None) == any(item.severity is Severity.ERROR for item in problems)
    for item in problems:
        assert str(item)
        assert item.code.startswith("XL1")


@FUZZ
@given(st.binary(max_size=200))
def test_random_bytes(tmp_path: Path, content: bytes) -> None:
    never_raises(tmp_path, content)


@FUZZ
@given(st.text(alphabet="ab:-[]{}&*!|>'\"#%@`?,~ \n\t0.<=", max_size=80))
def test_random_yaml(tmp_path: Path, text: str) -> None:
    never_raises(tmp_path, text.encode())


@FUZZ
@given(st.integers(0, 2**32), st.integers(1, 6))
def test_a_good_file_with_some_of_it_exchanged(tmp_path: Path, seed: int, changes: int) -> None:
    """Characters dropped, doubled, exchanged; lines moved; values replaced by ones of another kind."""
    chance = random.Random(seed)
    text = GOOD
    values = [
        "null",
        "[]",
        "{}",
        "7",
        "-1",
        "1e400",
        ".nan",
        "true",
        "''",
        "2027-01-01",
        "!!binary aGk=",
        "&x y",
        "0x1F",
        "<<",
    ]
    for _ in range(changes):
        at = chance.randrange(len(text))
        kind = chance.randrange(5)
        if kind == 0:
            text = text[:at] + text[at + chance.randrange(1, 8) :]
        elif kind == 1:
            text = text[:at] + chance.choice("\n :-{}[]'\"&*!#|") + text[at:]
        elif kind == 2:
            lines = text.splitlines()
            chance.shuffle(lines[:5])
            lines.insert(chance.randrange(len(lines)), lines.pop(chance.randrange(len(lines))))
            text = "\n".join(lines)
        elif kind == 3:
            end = text.find("\n", at)
            colon = text.find(": ", at)
            if 0 <= colon < end:
                text = text[: colon + 2] + chance.choice(values) + text[end:]
        else:
            text = text[:at] + chance.choice(values) + text[at:]
        if not text:
            break
    never_raises(tmp_path, text.encode())
