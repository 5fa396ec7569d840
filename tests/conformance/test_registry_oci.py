"""The registry provider against a strict server of our own in several manners, and against a real one where it is.

Real: Debian's docker-registry (Docker Distribution 2.8), when it is on PATH. Ours: `oci_server.py`, in this process."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from oci_server import Manners, OciServer, serve

from crossload.conformance.registry import CASES, Case, RegistryBench
from crossload.estate.place import Place
from crossload.ports.provider import Settings
from crossload.ports.registry import Registry
from crossload.providers.registry.registry import open_registry

USERS = {"writer": ("write-password", True), "reader": ("read-password", False)}
POOR = Manners(
    referrers_api=False, digest_header=False, ranges=False, mounts=False, link=False, deletes=False, page=1000
)  # fmt: skip
MANNERS: dict[str, Manners] = {
    "bearer": Manners(auth="bearer", users=USERS, token_seconds=30, page=10),
    "basic": Manners(auth="basic", users=USERS, chunk_bytes_min=5000),
    "poor": POOR,
    "pages": Manners(page=5),
    "no-chunks": Manners(chunks=False),
}


def registry_at(url: str, user: str = "", password: str = "", **more: str) -> Registry:
    connection = {"endpoint": url, **more}
    if user:
        connection |= {"username": user, "password": "env:PASSWORD"}
    place = Place("images", "registry", "here", "DE", connection)
    return open_registry(Settings(place, connection, {"PASSWORD": password}))


@contextmanager
def docker_registry(folder: Path) -> Iterator[str]:
    """Debian's docker-registry on a free port, keeping its files in `folder`."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("docker-registry is not on PATH (apt-get install docker-registry)")
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
    config = folder / "config.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder}}}, delete: {{enabled: true}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}', secret: only-for-tests}}\n"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "serve", str(config)], stdout=log, stderr=log)
        try:
            until = time.monotonic() + 20
            while True:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                if process.poll() is not None or time.monotonic() > until:
                    pytest.fail((folder / "log").read_text())
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(10)


@pytest.fixture(scope="module", params=[*MANNERS, "elsewhere", "docker-registry"])
def bench(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, dead_port: int
) -> Iterator[RegistryBench]:
    kind: str = request.param
    with ExitStack() as stack:
        absent = f"http://127.0.0.1:{dead_port}"
        if kind == "docker-registry":
            url = stack.enter_context(docker_registry(tmp_path_factory.mktemp("registry")))
            yield RegistryBench(open=lambda: registry_at(url), absent=lambda: registry_at(absent))
            return
        if kind == "elsewhere":
            server = stack.enter_context(serve())
            store = stack.enter_context(serve(OciServer(repositories=server.repositories)))
            server.manners.blobs_elsewhere = store.url
            yield RegistryBench(open=lambda: registry_at(server.url))
            assert store.count("GET", "/blobs/") and not server.count("GET", "/token")
            return
        manners = MANNERS[kind]
        server = stack.enter_context(serve(OciServer(manners)))
        more = {} if manners.chunks else {"chunked": "off"}
        if not manners.auth:
            yield RegistryBench(open=lambda: registry_at(server.url, **more), absent=lambda: registry_at(absent))
            return
        yield RegistryBench(
            open=lambda: registry_at(server.url, "writer", "write-password"),
            reader=lambda: registry_at(server.url, "reader", "read-password"),
            unsigned=lambda: registry_at(server.url, "writer", "wrong-password"),
            absent=lambda: registry_at(absent, "writer", "write-password"),
        )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_registry(case: Case[RegistryBench], bench: RegistryBench, keeps: Callable[..., None]) -> None:
    keeps(case, bench, {})
