"""However a lab ends, nothing of it stays: no process, no port. Two labs do not meet. A dead server comes back."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crossload.lab import Lab, LabError
from crossload.lab.launch import callers_environment, die_with_parent
from crossload.lab.ports import is_free
from crossload.lab.process import session_members, start_ticks
from crossload.lab.spec import Server, TcpProbe
from crossload.lab.state import read_state
from crossload.lab.supervise import Supervisor
from crossload.lab.table import all_servers

QUICK = ("issuer", "fake-gcs", "nats", "llm-b", "envoy")
ENDINGS = ("down", "SIGINT", "SIGTERM", "SIGHUP", "kill -9 of the supervisor", "kill -9 of the terminal's process")
ROUNDS = 20

pytestmark = pytest.mark.skipif(
    any(all_servers()[name].missing() for name in QUICK), reason="the quick servers of the lab are not installed"
)


def command(home: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "crossload.lab", *words, "--home", str(home)]


@contextlib.contextmanager
def foreground(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command(home, "up", "--only", ",".join(QUICK)),
        stderr=subprocess.DEVNULL,
        env=callers_environment(),
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def await_true(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_no_ending_leaves_a_process_or_a_port(tmp_path: Path, leftovers: Callable[[Path], list[int]]) -> None:
    """Rounds over all endings, each at another moment: some while servers start, some when all are up."""
    chance = random.Random(20260301)
    seen_all_up = seen_starting = 0
    for number in range(ROUNDS):
        ending = ENDINGS[number % len(ENDINGS)]
        home = tmp_path / f"lab{number}"
        with foreground(home) as process:
            assert await_true(lambda home=home: len(_sessions(home)) >= 2, 20), f"round {number}: no server started"
            if number % 3 == 0:
                assert await_true(lambda home=home: read_state(home).phase == "up", 30)
                seen_all_up += 1
            else:
                time.sleep(chance.uniform(0, 0.5))
                seen_starting += read_state(home).phase == "starting"
            sessions, ports = _sessions(home), _ports(home)
            _end(ending, home, process)
            assert await_true(lambda home=home: not leftovers(home), 10), (
                f"round {number}, {ending}: left {[_words(pid) for pid in leftovers(home)]}"
            )
        sessions |= _sessions(home)
        assert [session for session in sessions if session_members(session)] == [], f"round {number}, {ending}"
        assert await_true(lambda ports=ports: all(is_free(port) for port in ports), 5), f"round {number}, {ending}"
        assert len(ports) > 5
    assert seen_all_up >= 5
    assert seen_starting >= 5


def _end(ending: str, home: Path, process: subprocess.Popen[bytes]) -> None:
    match ending:
        case "down":
            Lab(home).down()
        case "kill -9 of the supervisor":
            supervisor = read_state(home).supervisor_pid
            assert supervisor is not None
            os.kill(supervisor, signal.SIGKILL)
        case "kill -9 of the terminal's process":
            process.kill()
        case _:
            process.send_signal(signal.Signals[ending])
    process.wait(timeout=20)


def _sessions(home: Path) -> set[int]:
    return {record.pid for record in read_state(home).servers.values() if record.pid is not None}


def _ports(home: Path) -> list[int]:
    return [port for name in QUICK for port in read_state(home).ports.get(name, {}).values()]


def _words(pid: int) -> str:
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:200]
    except OSError:
        return "gone meanwhile"


def test_two_homes_do_not_meet_and_a_killed_server_comes_back(
    tmp_path: Path, leftovers: Callable[[Path], list[int]]
) -> None:
    first, second = Lab(tmp_path / "first"), Lab(tmp_path / "second")
    try:
        assert {server.state for server in first.up(["issuer", "nats"], detach=True)} == {"up"}
        assert {server.state for server in second.up(["issuer", "nats"])} == {"up"}
        ports = [port for lab in (first, second) for name in all_servers() for port in lab.ports(name).values()]
        assert len(ports) == len(set(ports))
        assert first.secret("oidc-mover") != second.secret("oidc-mover")
        with pytest.raises(LabError, match="does not run"):
            first.pid("fake-gcs")

        before, secret, port = first.pid("issuer"), first.secret("oidc-mover"), first.port("issuer", "oidc")
        os.kill(before, signal.SIGKILL)
        assert await_true(lambda: _state_of(first, "issuer") == "failed", 5)
        assert {server.state for server in Lab(first.home).start("issuer")} == {"up"}
        assert (first.secret("oidc-mover"), first.port("issuer", "oidc")) == (secret, port)
        assert first.pid("issuer") != before
        again = first.pid("issuer")
        assert {server.state for server in Lab(first.home).restart("issuer")} == {"up"}
        assert first.pid("issuer") != again
        first.kill("nats")
        assert _state_of(first, "nats") == "down"
        assert is_free(first.port("nats", "client"))
        assert {server.state for server in first.up(["nats"])} == {"up"}, "up on a running lab starts what is missing"

        first.down()
        assert _state_of(second, "issuer") == "up"
        assert leftovers(first.home) == []
        assert {server.state for server in first.up(["issuer"], detach=True)} == {"up"}
        assert (first.secret("oidc-mover"), first.port("issuer", "oidc")) == (secret, port), "down and up keep both"
    finally:
        first.down(purge=True)
        second.down(purge=True)
    assert leftovers(first.home) == leftovers(second.home) == []
    assert not first.home.exists()


def _state_of(lab: Lab, name: str) -> str:
    return next(server.state for server in lab.status() if server.name == name)


def test_a_second_supervisor_of_one_home_gives_way(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "lab")
    try:
        lab.up(["nats"], detach=True)
        other = subprocess.run(
            command(lab.home, "supervise"), env=callers_environment(), capture_output=True, check=False
        )
        assert other.returncode == 3
        assert _state_of(lab, "nats") == "up"
    finally:
        lab.down(purge=True)


def test_a_home_that_vanishes_takes_its_lab_with_it(tmp_path: Path, leftovers: Callable[[Path], list[int]]) -> None:
    lab = Lab(tmp_path / "lab")
    lab.up(["nats"], detach=True)
    session = lab.pid("nats")
    lab.home.rename(tmp_path / "elsewhere")
    assert await_true(lambda: not session_members(session) and not leftovers(lab.home), 10)


def _spy(name: str, code: str, **more: object) -> Server:
    """A server that runs a few lines of Python with the port as {port}."""
    return Server(
        name,
        "between",
        "a spy",
        ("api",),
        lambda site: [sys.executable, "-c", code.replace("{port}", str(site.port("api")))],
        lambda site: TcpProbe((site.port("api"),)),
        "none",
        proves="nothing",
        **more,  # type: ignore[arg-type]
    )


LISTEN = (
    "import socket, time; s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); "
    "s.bind(('{host}', {port})); s.listen(); "
)


@pytest.fixture
def with_servers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def use(*rows: Server) -> None:
        table = {row.name: row for row in rows}
        for module in ("supervise", "envfile", "lab", "table"):
            monkeypatch.setattr(f"crossload.lab.{module}.all_servers", lambda: table)

    return use


def _run_supervisor(home: Path, until: Callable[[], bool]) -> None:
    """Run a supervisor in a child of this process (it takes over signals) until the condition holds, then end it."""
    pid = os.fork()
    if pid == 0:
        os._exit(Supervisor(home).run())
    try:
        assert await_true(until, 20)
    finally:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)


def test_a_server_that_listens_to_the_world_is_stopped_and_named(
    tmp_path: Path, with_servers: Callable[..., None]
) -> None:
    loud = LISTEN.replace("{host}", "0.0.0.0") + "time.sleep(60)"
    quiet = LISTEN.replace("{host}", "127.0.0.1") + "time.sleep(60)"
    # Its child is as guilty as itself: the listener need not belong to the first process.
    by_child = f'import subprocess, sys; subprocess.run([sys.executable, \'-c\', """{loud}"""])'
    with_servers(_spy("loud", loud), _spy("quiet", quiet), _spy("by-child", by_child))
    seen: dict[str, str | None] = {}

    def settled() -> bool:
        records = read_state(tmp_path).servers
        seen.update({name: record.error for name, record in records.items()})
        states = {name: record.state for name, record in records.items()}
        return states == {"loud": "failed", "quiet": "up", "by-child": "failed"}

    _run_supervisor(tmp_path, settled)
    for name in ("loud", "by-child"):
        assert "listens beyond this machine on 0.0.0.0:" in str(seen[name])


def test_a_server_that_dies_after_its_probe_fails_with_its_last_words_and_the_rest_goes_on(
    tmp_path: Path, with_servers: Callable[..., None]
) -> None:
    listen = LISTEN.replace("{host}", "127.0.0.1")
    with_servers(
        _spy("late", listen + "time.sleep(0.5); raise SystemExit('the side door is taken')"),
        _spy("never", "raise SystemExit('no such flag')"),
        _spy("needs-never", listen + "time.sleep(60)", after=("never",)),
        _spy("fine", listen + "time.sleep(60)"),
    )
    seen: dict[str, str | None] = {}

    def settled() -> bool:
        records = read_state(tmp_path).servers
        seen.update({name: record.error for name, record in records.items()})
        states = {name: record.state for name, record in records.items()}
        return states == {"late": "failed", "never": "failed", "needs-never": "failed", "fine": "up"}

    _run_supervisor(tmp_path, settled)
    assert "the side door is taken" in str(seen["late"])
    assert "no such flag" in str(seen["never"])
    assert seen["needs-never"] == "needs never, which is failed"


def test_a_child_whose_parent_is_gone_before_it_begins_does_not_begin() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], preexec_fn=die_with_parent(1))
    assert process.wait(timeout=10) == 1
    assert start_ticks(process.pid) is None


def test_a_folder_with_other_peoples_files_does_not_become_a_home(tmp_path: Path) -> None:
    """`down(purge=True)` deletes the whole home, so a project's folder must not turn into one."""
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(LabError, match="no lab wrote"):
        Lab(tmp_path).up(only=["issuer"])
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
