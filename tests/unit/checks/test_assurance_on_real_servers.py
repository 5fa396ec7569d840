"""The checks on the lab's real servers: cloud B behind its front holds; without its front every hole is found."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from crossload.engines.checks.access import who_may
from crossload.engines.checks.attack import PREFIX, REQUESTS_MAX, run_attacks
from crossload.engines.checks.catalog import attacks, comparisons
from crossload.engines.checks.compare import compare, look
from crossload.engines.checks.model import BLOCKED, ERROR, OPEN, Pair, Scene
from crossload.estate.asset import Asset, Kind
from crossload.estate.place import Place
from crossload.estate.secret import read_env_file
from crossload.ports.probe import DELETE, LIST, NONE, OWN, READ, WRITE
from crossload.ports.provider import Settings
from crossload.ports.store import ObjectMeta, Store
from crossload.providers.aws.policy import open_policy as open_aws_policy
from crossload.providers.aws.probe import open_probe as open_aws_probe
from crossload.providers.aws.store import open_store as open_aws_store
from crossload.providers.gcp.policy import open_policy as open_gcp_policy
from crossload.providers.gcp.probe import open_probe as open_gcp_probe
from crossload.providers.gcp.store import open_store as open_gcp_store

if TYPE_CHECKING:
    from crossload.lab import Lab

BUCKET, OTHER, KEY = "assurance-docs", "assurance-models", "folder/a.txt"


@pytest.fixture(scope="module")
def target(lab: Lab) -> Settings:
    return _target(lab, "env:CROSSLOAD_LAB_GCS_ENDPOINT")


def _target(lab: Lab, endpoint: str) -> Settings:
    connection = {
        "endpoint": endpoint, "project": "env:CROSSLOAD_LAB_GCS_PROJECT", "issuer": "env:CROSSLOAD_LAB_OIDC_ISSUER",
        "audience": "env:CROSSLOAD_LAB_OIDC_AUDIENCE", "versioning": "off",
    }  # fmt: skip
    for suffix, name in (("", "mover"), ("@app", "app"), ("@audit", "auditor"), ("@stranger", "stranger")):
        connection[f"client_id{suffix}"] = name
        connection[f"client_secret{suffix}"] = f"file:{lab.home}/secrets/oidc-{name}"
    place = Place("cloud-b", "gcp", "europe-west3", "DE", connection)
    return Settings(place, connection, read_env_file(lab.home / "env"))


@pytest.fixture(scope="module")
def source(lab: Lab) -> Settings:
    connection = {
        "config_file": "env:CROSSLOAD_LAB_AWS_CONFIG", "credentials_file": "env:CROSSLOAD_LAB_AWS_CREDENTIALS",
        "profile": "lab-a-seed", "profile@app": "lab-a-app", "profile@audit": "lab-a-auditor",
        "profile@stranger": "lab-a-stranger",
    }  # fmt: skip
    place = Place("cloud-a", "aws", "eu-central-1", "DE", connection)
    return Settings(place, connection, read_env_file(lab.home / "env"))


def _filled(store: Store) -> Iterator[None]:
    for bucket in (BUCKET, OTHER):
        store.ensure_bucket(bucket)
        store.write(bucket, KEY, b"hello", ObjectMeta())
    yield
    for bucket in (BUCKET, OTHER):
        for item in list(store.list(bucket)):
            store.delete(bucket, item.key)
        store.remove_bucket(bucket)


@pytest.fixture(scope="module")
def target_store(target: Settings) -> Iterator[Store]:
    store = open_gcp_store(target)
    yield from (store for _ in _filled(store))


@pytest.fixture(scope="module")
def source_store(source: Settings) -> Iterator[Store]:
    store = open_aws_store(source)
    yield from (store for _ in _filled(store))


def keys(store: Store) -> set[tuple[str, str]]:
    return {(bucket, item.key) for bucket in (BUCKET, OTHER) for item in store.list(bucket)}


def test_every_attack_on_cloud_b_is_run_and_blocked(target: Settings, target_store: Store) -> None:
    before = keys(target_store)
    results = run_attacks(attacks(), open_gcp_probe(target), Scene(BUCKET, KEY, OTHER, KEY))
    assert {item.id: (item.verdict, item.detail) for item in results if item.verdict != BLOCKED} == {}
    assert len(results) >= 8
    assert sum(item.requests for item in results) <= REQUESTS_MAX
    assert keys(target_store) == before, "controls and attacks left something"


def test_without_the_front_the_same_attacks_find_every_hole(lab: Lab, target: Settings, target_store: Store) -> None:
    """The store behind the front checks no token at all: an attack that is `blocked` there can find nothing."""
    port = next(server.ports["api"] for server in lab.status() if server.name == "fake-gcs")
    before = keys(target_store)
    results = run_attacks(
        attacks(), open_gcp_probe(_target(lab, f"http://127.0.0.1:{port}")), Scene(BUCKET, KEY, OTHER, KEY)
    )
    verdicts = {item.id: item.verdict for item in results}
    assert verdicts == {name: OPEN for name in verdicts}, verdicts
    assert keys(target_store) == before, "what the attacks wrote through the holes is gone again"
    assert not [item.left_behind for item in results if item.left_behind]


def test_an_attack_whose_control_fails_is_an_error(target: Settings, target_store: Store) -> None:
    from dataclasses import replace

    as_stranger = replace(target, identity="stranger")
    results = run_attacks(attacks(), open_gcp_probe(as_stranger), Scene(BUCKET, KEY, OTHER, KEY))
    assert {item.verdict for item in results} == {ERROR}


def test_who_may_on_cloud_b(target: Settings, target_store: Store) -> None:
    table = who_may(open_gcp_probe(target), BUCKET, KEY, ["app", "audit", "stranger"])
    assert [table[NONE, operation].allowed for operation in (LIST, READ, WRITE, DELETE)] == [False] * 4
    assert [table["stranger", operation].allowed for operation in (LIST, READ, WRITE, DELETE)] == [False] * 4
    assert [table[OWN, operation].allowed for operation in (LIST, READ, WRITE, DELETE)] == [True] * 4
    assert table["audit", WRITE].allowed is False
    assert table["app", READ].allowed is True


def test_who_may_on_cloud_a_and_nothing_is_written(source: Settings, source_store: Store) -> None:
    before = keys(source_store)
    table = who_may(open_aws_probe(source), BUCKET, KEY, ["app", "audit", "stranger"])
    assert [table[NONE, operation].allowed for operation in (LIST, READ, WRITE, DELETE)] == [False] * 4
    assert [table[OWN, operation].allowed for operation in (LIST, READ, WRITE, DELETE)] == [True] * 4
    # The lab's app has rights on the helpdesk's buckets only.
    assert [table["app", operation].allowed for operation in (LIST, READ, WRITE, DELETE)] == [False] * 4
    assert keys(source_store) == before
    assert not [item for item in source_store.versions(BUCKET) if item.key.startswith(".crossload")]


def test_comparison_of_both_clouds_is_honest(
    source: Settings, target: Settings, source_store: Store, target_store: Store
) -> None:
    asset = Asset(
        "dataset:x", Kind.DATASET, "x", "cloud-a", BUCKET, {"bucket": BUCKET}, {}, {"sensitivity": "internal"}
    )
    names = {"app", "audit", "stranger"}
    left = look(source.place, open_aws_policy(source), open_aws_probe(source), BUCKET, KEY, names)
    right = look(target.place, open_gcp_policy(target), open_gcp_probe(target), BUCKET, KEY, names)
    lines = {line.subject: line for line in compare(Pair(asset, left, right, frozenset({"DE"})), comparisons())}
    assert lines["public access"].verdict == "equal"
    assert lines["stranger may read"].verdict == "equal"
    # The app has no right on this bucket at A and reads everything at B: really weaker, and said so.
    assert lines["app may read"].verdict == "weaker"
    # The store of cloud B does not model encryption: nobody may read that as "encrypted".
    assert lines["encryption at rest"].verdict == "unknown"
    assert lines["dataset:x lies in"].verdict == "equal"


def test_attack_keys_are_recognisable(target_store: Store) -> None:
    assert not [key for _, key in keys(target_store) if key.startswith(PREFIX)]


def test_secrets_stay_out_of_results(lab: Lab, target: Settings, target_store: Store) -> None:
    secrets = [path.read_text().strip() for path in (lab.home / "secrets").glob("oidc-*")]
    results = run_attacks(attacks(), open_gcp_probe(target), Scene(BUCKET, KEY, OTHER, KEY))
    shown: Any = str([item.to_json() for item in results])
    assert not [secret for secret in secrets if secret in shown]
    assert "eyJ" not in shown, "a token was shown"


TABLE = "assurance chunks"


@pytest.fixture(scope="module")
def database(lab: Lab) -> Iterator[Settings]:
    """A table of cloud A's database that its app may use, its mover may read, its stranger may not."""
    import psycopg

    values = read_env_file(lab.home / "env")
    connection = {
        "url": "env:CROSSLOAD_LAB_PG_A", "url@app": "env:CROSSLOAD_LAB_PG_A_APP",
        "url@stranger": "env:CROSSLOAD_LAB_PG_A_STRANGER",
    }  # fmt: skip
    with psycopg.connect(values["CROSSLOAD_LAB_PG_A_SEED"], autocommit=True) as db:
        db.execute(f'create table public."{TABLE}" (id int)')
        db.execute(f'insert into public."{TABLE}" values (1)')
        yield Settings(Place("cloud-a", "postgres", "eu-central-1", "DE", connection), connection, values)
        rows = db.execute(f'select count(*) from public."{TABLE}"').fetchone()
        db.execute(f'drop table public."{TABLE}"')
    assert rows == (1,), "a probe changed rows"


def test_who_may_on_a_table(database: Settings) -> None:
    from crossload.providers.postgres.probe import open_probe

    probe = open_probe(database)
    assert probe.identities() == ("app", "stranger")
    table = who_may(probe, TABLE, TABLE, ["app", "stranger", "forged"])
    answers = {name: [table[name, op].allowed for op in (LIST, READ, WRITE, DELETE)] for name, _ in table}
    assert answers == {
        NONE: [False] * 4, "forged": [False] * 4, "stranger": [False] * 4, OWN: [True, True, False, False],
        "app": [True] * 4,
    }  # fmt: skip
    assert who_may(probe, "no such table", "x", ["app"])["app", READ].allowed is None


def test_table_probe_sends_nothing_that_could_change_a_row(database: Settings) -> None:
    from crossload.ports.errors import Invalid
    from crossload.providers.postgres.probe import open_probe

    with pytest.raises(Invalid):
        open_probe(database).request(WRITE, TABLE, "", "app", body=b"x")
    able = open_probe(database).credentials()
    assert able["expired"], "a password cannot run out, and that is said"


def test_table_posture(database: Settings) -> None:
    from crossload.ports.errors import NotFound
    from crossload.providers.postgres.policy import open_policy

    facts = {name: fact.value for name, fact in open_policy(database).posture(TABLE).facts.items()}
    assert "app" in facts["grants"]["objects.write"]
    assert "mover" in facts["grants"]["objects.read"]
    assert "mover" not in facts["grants"]["objects.write"]
    assert facts["transport"] == "plain-possible"
    assert facts["access_logs"] in ("on", "off")
    assert facts["encryption"] is None
    with pytest.raises(NotFound):
        open_policy(database).posture("no such table")
