"""PgVectors against the lab's two servers: cloud A as its seed, cloud B as the mover."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crossload.conformance.vectors import CASES, Case, VectorsBench
from crossload.estate.place import Place
from crossload.lab import Lab
from crossload.ports.provider import Settings
from crossload.providers.postgres.vectors import PgVectors, open_vectors

_ROLES = {
    "a": ("CROSSLOAD_LAB_PG_A_SEED", "CROSSLOAD_LAB_PG_A"),
    "b": ("CROSSLOAD_LAB_PG_B", "CROSSLOAD_LAB_PG_B_AUDITOR"),
}


def vectors_at(url: str) -> PgVectors:
    connection = {"url": url}
    return open_vectors(Settings(Place("db", "postgres", "here", "DE", connection), connection, {}))


def wrong_password(url: str, folder: Path) -> str:
    passfile = folder / "pgpass"
    passfile.write_text("127.0.0.1:*:*:*:wrong\n")
    passfile.chmod(0o600)
    return url.partition("?")[0] + f"?passfile={passfile}"


@pytest.fixture(scope="module", params=["a", "b"])
def bench(
    request: pytest.FixtureRequest,
    conformance_lab: Lab,
    need: Callable[..., None],
    tmp_path_factory: pytest.TempPathFactory,
    dead_port: int,
) -> Iterator[VectorsBench]:
    need(f"postgres-{request.param}")
    env = conformance_lab.env()
    owner, reader = (env[name] for name in _ROLES[request.param])
    stranger = env[f"CROSSLOAD_LAB_PG_{request.param.upper()}_STRANGER"]
    intruder = wrong_password(owner, tmp_path_factory.mktemp("pg"))
    made = VectorsBench(
        open=lambda: vectors_at(owner),
        reader=lambda: vectors_at(reader),
        stranger=lambda: vectors_at(stranger),
        unsigned=lambda: vectors_at(intruder),
        absent=lambda: vectors_at(f"postgresql://nobody@127.0.0.1:{dead_port}/helpdesk"),
    )
    yield made
    made.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_pgvector(case: Case[VectorsBench], bench: VectorsBench, keeps: Callable[..., None]) -> None:
    keeps(case, bench, {})
