"""Connection settings: a misspelt one is told with its place, what was meant, and exit code 2; a good one never is."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crossload import api, wiring
from crossload.cli.main import VERBS, main
from crossload.engines.planner.draft import draft_migration
from crossload.estate.diagnostic import Diagnostic
from crossload.estate.reading import connections_of
from crossload.lab.places import source_place, target_places
from crossload.ports.provider import IDENTITIES

GOOD = textwrap.dedent(
    """\
    apiVersion: crossload/v1
    kind: Migration
    metadata: {name: desk, owner: support}
    goals:
      metrics:
        - {name: latency, measure: latency_p95, direction: lower, limit: 2.5, unit: s}
        - {name: errors, measure: error_rate, direction: lower, limit: 0.01, unit: ratio}
        - {name: answers, measure: answer_agreement, direction: higher, limit: 0.9, unit: ratio}
    sources:
      - id: old
        provider: aws
        region: eu-central-1
        connection: &account
          profile: mover
          profile@freeze: freezer
          config_file: env:CONFIG
          data_path: sdk
        services:
          vectors: {provider: postgres, connection: {url: env:PG, url@audit: env:PG_AUDIT}}
          models: {provider: aws, connection: {profile: mover, model: m}}
    targets:
      regions: {min: 1}
      allow:
        - id: new
          provider: gcp
          region: europe-west3
          connection:
            endpoint: env:GCS
            project: desk
            client_id: mover
            client_id@contractor: contractor
          services:
            models: {provider: openai, connection: {base_url: env:LLM, model: m}}
    """
)


def read(tmp_path: Path, text: str) -> list[Diagnostic]:
    path = tmp_path / "migration.yaml"
    path.write_text(text, encoding="utf-8")
    name, problems = api.check_file(path)
    assert bool(name) == (not any(str(problem.severity) == "error" for problem in problems))
    return problems


def changed(*pairs: tuple[str, str]) -> str:
    text = GOOD
    for old, new in pairs:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def place_of(text: str, part: str) -> tuple[int, int]:
    before = text[: text.index(part)]
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def test_a_good_file_is_clean(tmp_path: Path) -> None:
    assert read(tmp_path, GOOD) == []


@pytest.mark.parametrize(
    "old, new, key, hint",
    [
        ("endpoint: env", "endpont: env", "endpont", "did you mean `endpoint`?"),
        ("profile: mover\n", "profil: mover\n", "profil:", "did you mean `profile`?"),
        ("profile@freeze", "profle@freeze", "profle@freeze", "did you mean `profile@freeze`?"),
        ("{url: env:PG,", "{ulr: env:PG,", "ulr", "did you mean `url`?"),
        ("base_url", "baseurl", "baseurl", "did you mean `base_url`?"),
        ("project: desk", "zzz: desk", "zzz", "known settings here: audience, client_id, client_secret, endpoint, "),
        ("connection: {profile: mover, model: m}", "connection: {zzz: m}", "zzz",
         "known settings here: account, config_file, credentials_file, endpoint, model, profile, vendor"),
        ("profile@freeze", "profile@", "profile@", "one of: profile@app, profile@audit"),
        ("project: desk", "root: desk", "root", "known settings here"),
        ("postgres, connection: {url: env:PG, url@audit: env:PG_AUDIT}", "local, connection: {zzz: x}", "zzz",
         "known settings here: root"),  # a provider that does not offer that port
    ],
)  # fmt: skip
def test_a_misspelt_setting_is_told_with_its_place_and_what_was_meant(
    tmp_path: Path, old: str, new: str, key: str, hint: str
) -> None:
    text = changed((old, new))
    (problem,) = read(tmp_path, text)
    assert (problem.code, str(problem.severity)) == ("XL126", "error")
    assert (problem.line, problem.column) == place_of(text, key)
    assert problem.hint.startswith(hint)
    assert str(problem).startswith(f"{tmp_path / 'migration.yaml'}:{problem.line}:{problem.column}: error XL126: ")


def test_all_problems_come_at_once_also_beside_those_of_the_schema(tmp_path: Path) -> None:
    text = changed(
        ("owner: support", "ownr: support"), ("profile@freeze", "profil@freeze"), ("{url: env:PG,", "{ulr: env:PG,"),
        ("provider: gcp", "provider: gpc"), ("limit: 2.5", "limit: fast"), ("base_url", "baseurl"),
    )  # fmt: skip
    problems = read(tmp_path, text)
    assert [problem.code for problem in problems] == [
        "XL111", "XL110", "XL112", "XL126", "XL126", "XL128", "XL126",
    ]  # fmt: skip
    assert [(p.line, p.column) for p in problems] == sorted((p.line, p.column) for p in problems)


def test_a_provider_that_does_not_exist_is_told_where_it_is_named(tmp_path: Path) -> None:
    text = changed(("provider: postgres", "provider: postgers"))
    (problem,) = read(tmp_path, text)
    assert (problem.code, problem.hint) == ("XL128", "did you mean `postgres`?")
    assert (problem.line, problem.column) == place_of(text, "postgers")


def test_a_setting_of_another_port_is_a_warning(tmp_path: Path) -> None:
    text = changed(("{profile: mover, model: m}", "{profile: mover, model: m, data_path: sdk}"))
    (problem,) = read(tmp_path, text)
    assert (problem.code, str(problem.severity)) == ("XL127", "warning")
    assert (problem.line, problem.column) == (place_of(text, "model: m,")[0], place_of(text, "data_path: sdk}")[1])
    assert "store" in problem.summary
    text = GOOD.replace("      data_path: sdk", "      model: m\n      data_path: sdk")
    assert [problem.code for problem in read(tmp_path, text)] == ["XL127"]
    # Without a service of its own, the place answers that port itself.
    assert (
        read(tmp_path, text.replace("      models: {provider: aws, connection: {profile: mover, model: m}}\n", ""))
        == []
    )


@pytest.mark.parametrize("identity", [*IDENTITIES, "contractor", "x", "team-b"])
def test_identities_of_ours_and_of_the_workload_are_fine(tmp_path: Path, identity: str) -> None:
    assert read(tmp_path, changed(("profile@freeze", f"profile@{identity}"))) == []


@pytest.mark.parametrize(
    "identity, meant", [("freze", "freeze"), ("retrun", "return"), ("auditor", "audit"), ("strangr", "stranger")]
)
def test_an_identity_that_is_nearly_ours_is_a_warning(tmp_path: Path, identity: str, meant: str) -> None:
    text = changed(("profile@freeze", f"profile@{identity}"))
    (problem,) = read(tmp_path, text)
    assert (problem.code, str(problem.severity)) == ("XL129", "warning")
    assert problem.hint == f"did you mean `profile@{meant}`?"
    assert (problem.line, problem.column) == place_of(text, f"profile@{identity}")


def test_merges_and_aliases_are_pointed_at_where_the_key_is_written(tmp_path: Path) -> None:
    merged = changed(
        ("{profile: mover, model: m}", "{<<: *account, model: m}"), ("  data_path: sdk\n", "  colour: x\n")
    )
    (problem,) = read(tmp_path, merged)  # one key, one mistake, however many places use it
    assert (problem.line, problem.column) == place_of(merged, "colour")
    text = changed(
        ("connection: {profile: mover, model: m}", "connection: *account"), ("profile: mover\n", "prfile: x\n")
    )
    problems = read(tmp_path, text)
    assert [p.code for p in problems if p.code == "XL126"] == ["XL126"]
    assert (problems[0].line, problems[0].column) == place_of(text, "prfile")


def test_values_are_never_repeated(tmp_path: Path) -> None:
    problems = read(
        tmp_path, changed(("endpoint: env:GCS", "endpont: hunter2"), ("profile: mover\n", "pasword: hunter2\n"))
    )
    assert len(problems) == 2
    assert "hunter2" not in json.dumps([problem.to_json() for problem in problems])


# -- every verb ------------------------------------------------------------------------------------------------------

READERS = sorted(
    verb
    for verb, (module, _) in VERBS.items()
    if verb != "init"  # it writes the file
    and any(p.name == "path" for p in getattr(importlib.import_module(module), f"{verb}_command").params)
)


@pytest.mark.parametrize("verb", READERS)
def test_every_verb_that_reads_the_file_ends_with_code_2(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CROSSLOAD_FILE", raising=False)
    text = changed(("endpoint: env", "endpont: env"))
    (tmp_path / "migration.yaml").write_text(text)
    command: Any = getattr(importlib.import_module(VERBS[verb][0]), f"{verb}_command")
    needed = ["x" for p in command.params if isinstance(p, click.Argument)]
    for option in (p for p in command.params if isinstance(p, click.Option) and p.required):
        needed += [option.opts[0], "env:X"]
    with pytest.raises(SystemExit) as stop:
        main([verb, *needed])
    line, column = place_of(text, "endpont")
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert f"migration.yaml:{line}:{column}: error XL126: gcp has no connection setting `endpont`" in error
    assert "did you mean `endpoint`?" in error
    assert not (tmp_path / ".crossload").exists()


def test_verbs_that_read_the_file_are_many() -> None:
    assert {"validate", "plan", "apply", "verify", "cutover", "rollback", "commit", "status"} <= set(READERS)


# -- what the product itself writes ----------------------------------------------------------------------------------


def lab_file(home: Path) -> str:
    return draft_migration([], "desk", "support", source_place(home), target_places(home, {}), environment="env",
                           app_path="app", questions="questions.jsonl")  # fmt: skip


def test_the_labs_own_file_is_clean(tmp_path: Path) -> None:
    """What `init --lab` and the demo write."""
    text = lab_file(tmp_path)
    assert read(tmp_path, text) == []
    assert text.count("profile@") >= 5 and text.count("client_id@") >= 3
    assert [problem.code for problem in read(tmp_path, text.replace("profile@freeze", "prfile@freeze"))] == [
        "XL126"
    ] * 2


def test_init_refuses_what_validate_would_before_it_asks_anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    def discover(*_: object) -> None:
        raise AssertionError("it must not get this far")

    monkeypatch.setattr(wiring, "discover", discover)
    good = {"id": "new", "provider": "gcp", "region": "europe-west3", "connection": {"project": "desk"}}
    bad = {
        "id": "old", "provider": "aws", "region": "eu-central-1",
        "connection": {"profil": "mover", "endpont": "x", "password": "hunter2"},
    }  # fmt: skip
    for source, targets in ((bad, [good]), (good, [good, bad])):
        with pytest.raises(api.CrossloadError) as raised:
            api.draft_file("desk", "support", source, targets)
        text = str(raised.value)
        assert "place old: aws has no connection setting `profil` (did you mean `profile`?)" in text
        assert "`endpont`" in text and "holds a secret's value" in text
        assert "hunter2" not in text
    with pytest.raises(api.CrossloadError, match="no provider is called `gpc`"):
        api.draft_file("desk", "support", good, [{**good, "provider": "gpc"}])


# -- cost and awkward shapes -----------------------------------------------------------------------------------------


def test_no_sdk_is_loaded_for_it(tmp_path: Path) -> None:
    path = tmp_path / "migration.yaml"
    path.write_text(lab_file(tmp_path).replace("provider: gcp", "provider: azure", 1))
    code = (
        "import sys; from pathlib import Path; from crossload.api import check_file\n"
        "print([p.code for p in check_file(Path(sys.argv[1]))[1]])\n"
        "print(sorted({m.split('.')[0] for m in sys.modules}\n"
        "      & {'boto3', 'botocore', 'azure', 'google', 'psycopg', 'httpx', 'requests', 'awscrt'}))\n"
        "print(sorted(m for m in sys.modules if m.startswith('crossload.providers.')))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    codes, heavy, providers = done.stdout.splitlines()
    assert "XL126" in codes
    assert heavy == "[]"
    assert providers == str([f"crossload.providers.{name}" for name in ("aws", "azure", "gcp", "openai", "postgres")])


@pytest.mark.parametrize(
    "place",
    [
        None, 7, [], {}, {"provider": 7}, {"provider": "local", "connection": 7, "services": 7},
        {"provider": "local", "connection": ["root"], "services": ["store"]},
        {"provider": ["local"], "services": {"store": 7, "vector": {"provider": "postgres"}, 7: 7}},
        {"provider": "local", "connection": {7: "x", None: "y"}},
    ],
)  # fmt: skip
def test_shapes_that_are_no_place_are_left_to_the_schema(place: Any) -> None:
    assert [problem for found in connections_of(place) for problem in wiring.judge(found)] == []


WORDS = st.sampled_from(
    ["provider", "connection", "services", "models", "vectors", "aws", "url", "profile@x", "@", "", "7"]
)
SHAPES = st.recursive(
    st.none() | st.integers() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner),
    max_leaves=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(SHAPES, SHAPES)
def test_no_shape_of_places_raises(tmp_path: Path, source: Any, target: Any) -> None:
    file = {"apiVersion": "crossload/v1", "sources": [source, {"provider": "aws", "connection": source}],
            "targets": {"allow": target}}  # fmt: skip
    for value in (file, source, {"sources": source, "targets": target}):
        for problem in read(tmp_path, json.dumps(value)):
            assert str(problem)
