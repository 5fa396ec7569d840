"""The lab's verbs as programs on real servers: what is on which stream, what a pipe sees, how they end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from crossload.lab import Lab
from crossload.lab.launch import callers_environment
from crossload.lab.process import session_members
from crossload.lab.table import all_servers

QUICK = ("issuer", "nats")
PROGRAMS = {"crossload lab": ["-m", "crossload", "lab"], "python -m crossload.lab": ["-m", "crossload.lab"]}

pytestmark = pytest.mark.skipif(
    any(all_servers()[name].missing() for name in QUICK), reason="the quick servers of the lab are not installed"
)


@pytest.fixture
def home(tmp_path: Path, leftovers: Callable[[Path], list[int]]) -> Iterator[Path]:
    """A lab's home with a space in its name; nothing of it is left afterwards."""
    folder = tmp_path / "my lab"
    yield folder
    Lab(folder).down(purge=True)
    assert leftovers(folder) == []


@pytest.fixture(params=PROGRAMS)
def program(request: pytest.FixtureRequest) -> list[str]:
    return [sys.executable, *PROGRAMS[request.param]]


def run(program: list[str], home: Path, *words: str) -> tuple[int, Any, str]:
    """Exit code, the one document on stdout, stderr."""
    done = subprocess.run(
        [*program, *words, "--json", "--home", str(home)],
        capture_output=True, text=True, check=False, timeout=60, env=callers_environment(),
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout), done.stderr


def states(told: Any) -> dict[str, str]:
    return {server["name"]: server["state"] for server in told["servers"]}


def test_a_detached_lab_lets_its_pipe_end_and_every_verb_speaks_json(program: list[str], home: Path) -> None:
    words = 'exec 3>&1 4>&2; "$@" 2>&1 | cat'  # `cat` ends only when nobody holds the pipe; 3 and 4 are ours as well
    up = [*program, "up", "--only", ",".join(QUICK), "--detach", "--json", "--home", str(home)]
    done = subprocess.run(
        ["bash", "-c", words, "bash", *up],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=callers_environment(),
    )
    lines = done.stdout.splitlines()
    servers = [json.loads(line) for line in lines if line.startswith("{")]
    assert {server["name"]: server["state"] for server in servers} == dict.fromkeys(QUICK, "up")
    assert lines[-1].endswith(f"stop it with: crossload lab down --home '{home}'")

    code, told, err = run(program, home, "status")
    assert (code, told["phase"], err) == (0, "up", "")
    nats = next(server for server in told["servers"] if server["name"] == "nats")
    assert {held["port"] for held in nats["listeners"]} == set(nats["ports"].values())
    assert nats["pss_bytes"] > 0
    code, told, err = run(program, home, "env")
    assert (code, told, err) == (0, Lab(home).env(), "")
    assert told["CROSSLOAD_LAB_NATS"].endswith(f":{nats['ports']['client']}")
    code, told, err = run(program, home, "logs", "nats", "--lines", "1")
    assert (code, len(told["lines"]), err) == (0, 1, "")

    code, told, _ = run(program, home, "kill", "nats")
    assert (code, told["home"], states(told)) == (0, str(home), {"nats": "down"})
    code, told, err = run(program, home, "fault", "pause-nats", "on")
    assert (code, told["error"]["code"], err.splitlines()[0]) == (1, "lab", "error: nats does not run")
    code, told, _ = run(program, home, "start", "nats")
    assert (code, states(told)) == (0, {"nats": "up"})
    code, told, _ = run(program, home, "restart", "issuer")
    assert (code, states(told)) == (0, {"issuer": "up"})
    code, told, err = run(program, home, "fault", "pause-nats", "on")
    assert (code, told) == (0, {"fault": "pause-nats", "on": True, "effect": "nats is silent"})
    assert err == "nats is silent\n"
    assert run(program, home, "fault", "pause-nats", "off")[1]["on"] is False
    code, told, _ = run(program, home, "fault", "slow-a", "on")
    assert (code, told["error"]["code"]) == (1, "lab"), "Envoy was not started"

    # A second `up` joins, and its end is not the lab's.
    done = subprocess.run([*up[:-4], "--home", str(home)], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, "stop it with" in done.stderr.splitlines()[-1]) == (0, "", True)
    assert states(run(program, home, "status")[1])["nats"] == "up"
    code, told, err = run(program, home, "down")
    assert (code, told) == (0, {"home": str(home), "stopped": list(QUICK), "purged": False})
    code, told, _ = run(program, home, "status")
    assert (code, told["phase"], set(states(told).values()) - {"not-installed"}) == (0, "down", {"down"})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_lab_in_the_foreground_streams_its_servers_and_ends_with_130(
    program: list[str], home: Path, number: signal.Signals
) -> None:
    process = subprocess.Popen(
        [*program, "up", "--only", ",".join(QUICK), "--json", "--home", str(home)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=callers_environment(), start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        servers = [json.loads(process.stdout.readline()) for _ in QUICK]  # each while the verb goes on
        assert {server["name"]: server["state"] for server in servers} == dict.fromkeys(QUICK, "up")
        assert any("2 of 2 servers are up; Ctrl-C stops them" in line for line in process.stderr)
        assert process.poll() is None
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert json.loads(out)["error"]["code"] == "interrupted"
    assert err == "interrupted; the servers are stopped, their data stays, the same command starts them again\n"
    deadline = time.monotonic() + 5
    while any(session_members(server["pid"]) for server in servers):
        assert time.monotonic() < deadline, "a server outlived its lab"
        time.sleep(0.02)


def test_a_reader_that_leaves_stops_nothing(program: list[str], home: Path) -> None:
    words = 'set -o pipefail; "$@" 2>&1 | head -1'
    up = [*program, "up", "--only", ",".join(QUICK), "--detach", "--json", "--home", str(home)]
    done = subprocess.run(
        ["bash", "-c", words, "bash", *up],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=callers_environment(),
    )
    assert (done.returncode, len(done.stdout.splitlines()), done.stderr) == (0, 1, "")
    assert states(run(program, home, "status")[1])["nats"] == "up"


def test_a_lab_that_cannot_begin_says_so(program: list[str], tmp_path: Path) -> None:
    """The supervisor dies at once: its log is a folder that cannot be a file."""
    (tmp_path / "logs" / "supervisor.log").mkdir(parents=True)
    (tmp_path / "lab.lock").touch()  # a lab's home from before
    code, told, err = run(program, tmp_path, "up", "--detach")
    assert (code, told["error"]["code"]) == (1, "system")
    assert err.startswith("error: ")
    assert "stop it with" not in err, "nothing runs"
