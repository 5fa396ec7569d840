"""What every test gets: no way to any address but loopback, and the lab for those who ask for it."""

from __future__ import annotations

import base64
import gzip
import html
import ipaddress
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from crossload.lab import Lab


# The same examples on every machine, and no deadlines: a busy neighbour is no failure. `CROSSLOAD_FUZZ=5000 pytest ...`
# looks further, at random.
settings.register_profile("house", deadline=None, derandomize=True, database=None)
settings.register_profile(
    "fuzz", deadline=None, database=None, max_examples=int(os.environ.get("CROSSLOAD_FUZZ") or 100)
)
settings.load_profile("fuzz" if os.environ.get("CROSSLOAD_FUZZ") else "house")


class OutsideWorld(AssertionError):
    """A test tried to reach a machine other than this one."""


def _loopback(family: int, address: Any) -> bool:
    if family == socket.AF_UNIX:
        return True
    if family not in (socket.AF_INET, socket.AF_INET6):
        return False
    host = str(address[0]).partition("%")[0]
    if host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name: whoever resolves it has left the machine already


@pytest.fixture(autouse=True, scope="session")
def loopback_only() -> Iterator[None]:
    """Connections of this process go to loopback only; anything else is a failed test, not a slow one."""
    patch = pytest.MonkeyPatch()

    def guarded(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: socket.socket, address: Any, *more: Any) -> Any:
            if not _loopback(self.family, address):
                raise OutsideWorld(f"tests may connect to loopback only, not to {address!r}")
            return original(self, address, *more)

        return call

    for name in ("connect", "connect_ex"):
        patch.setattr(socket.socket, name, guarded(getattr(socket.socket, name)))
    yield
    patch.undo()


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Two clouds on this machine, up for the whole session. Skips when none of their servers is installed."""
    from crossload.lab import Lab

    made = Lab(tmp_path_factory.mktemp("lab"))
    states = made.up()
    missing = [server for server in states if server.state == "not-installed"]
    failed = [server for server in states if server.state not in ("up", "not-installed")]
    try:
        if failed:
            server = failed[0]
            pytest.fail(f"{server.name} is {server.state}: {server.hint}\n" + "\n".join(made.logs(server.name)))
        if len(missing) == len(states):
            pytest.skip(f"the lab is not installed: {missing[0].hint}")
        yield made
    finally:
        made.down(purge=True)


@pytest.fixture(scope="session")
def helpdesk(lab: Lab) -> Lab:
    """The lab with the sample workload in cloud A, in its small form."""
    from crossload.lab.seed import seed

    seed(lab.home, small=True)
    return lab


@pytest.fixture(scope="session")
def dead_port() -> Iterator[int]:
    """A port of 127.0.0.1 that is bound and does not listen: whoever connects is refused, and nobody can take it."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout these tests belong to."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def secrets_in() -> Callable[[Path, Mapping[str, str]], list[str]]:
    """secrets_in(folder, {name: value}): where a secret's value stands in any file below, in whatever dress.

    The test that runs a migration calls it over workspace, logs and report with the values it handed in."""
    return _secrets_in


def _secrets_in(folder: Path, secrets: Mapping[str, str]) -> list[str]:
    forms: dict[bytes, str] = {}
    for name, value in secrets.items():
        if len(value) < 6:
            raise ValueError(f"{name} is too short to be told from other words")
        shapes = {value, quote(value), quote(value, safe=""), json.dumps(value)[1:-1], html.escape(value), value[::-1]}
        for shape in shapes:
            forms[shape.encode()] = name
            forms[shape.encode("utf-16-le")] = name
        for offset in range(3):  # base64 of a text that holds the value, wherever it begins
            inner = base64.b64encode(b"\0" * offset + value.encode())
            forms[inner[4 if offset else 0 : -4]] = name
    found: list[str] = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            if data[:2] == b"\x1f\x8b":
                data += gzip.decompress(data)
            found += [f"{path.relative_to(folder)}: {name}" for form, name in forms.items() if form and form in data]
    return sorted(set(found))
