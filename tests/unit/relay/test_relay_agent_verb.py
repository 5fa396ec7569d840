"""The verb `agent`: a process of its own, from a migration file, with a token that is a reference."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from relay_parts import PLAIN, TOKEN, folder, relay
from test_relay_patches import checkpoints, patch_of, sha

from crossload.api.relay import AgentSettings, open_agent
from crossload.ports.errors import AccessDenied, Invalid, Refused

_FILE = """
apiVersion: crossload/v1
kind: Migration
metadata: {name: relayed, owner: support}
goals:
  metrics:
    - {name: latency, measure: latency_p95, direction: lower, limit: 2.5, unit: s}
    - {name: errors, measure: error_rate, direction: lower, limit: 0.01, unit: ratio}
    - {name: equality, measure: digest_mismatches, direction: lower, limit: 0, unit: count}
sources:
  - {id: a, provider: local, region: here, connection: {root: ROOT}}
targets:
  regions: {min: 1}
  allow:
    - {id: b, provider: relay, region: there, connection: {url: "https://far:8790", token: "env:AGENT_TOKEN"}}
"""
_VERB = "import sys; from crossload.cli.agent import agent_command; agent_command(sys.argv[1:])"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    folder(tmp_path / "far").ensure_bucket("docs")
    path = tmp_path / "migration.yaml"
    path.write_text(_FILE.replace("ROOT", str(tmp_path / "far")), encoding="utf-8")
    return path


@contextmanager
def started(file: Path, *more: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-c", _VERB, "-f", str(file), "--json", "--store", "a", "--listen", "127.0.0.1:0"]
    command += ["--token", "env:AGENT_TOKEN", *more]
    environment = {**os.environ, "AGENT_TOKEN": TOKEN}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as made:
        assert made.stdout is not None
        text = ""
        while not text.endswith("}\n"):
            line = made.stdout.readline()
            assert line, made.stderr.read() if made.stderr else ""
            text += line
        try:
            yield made, str(json.loads(text)["url"])
        finally:
            made.kill()


def test_a_process_serves_and_stops(file: Path, tmp_path: Path) -> None:
    """Objects, and a checkpoint as a patch, through what a person starts; then Ctrl-C."""
    old, new = checkpoints(2, 512)
    with started(file, "--bucket", "docs") as (process, url):
        store = relay(url)
        etag = store.write("docs", "model", old, PLAIN).etag
        store.write_patch(
            "docs", "model", patch_of(old, new), PLAIN, base_key="model", base_etag=etag, new_size_bytes=len(new),
            new_sha256=sha(new), if_match=etag,
        )  # fmt: skip
        assert (tmp_path / "far" / "docs" / "model").read_bytes() == new
        with pytest.raises(AccessDenied):
            store.ensure_bucket("others")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stderr is not None
        assert "stopped" in process.stderr.read()


def test_what_only_reads_writes_nothing(file: Path) -> None:
    with started(file, "--bucket", "d*", "--read-only") as (_, url):
        assert list(relay(url).list("docs")) == []
        with pytest.raises(AccessDenied, match="only reads"):
            relay(url).write("docs", "a", b"x", PLAIN)


@pytest.mark.parametrize(
    ("more", "error", "said"),
    [
        ({"token_reference": TOKEN}, Refused, "reference"),
        ({"token_reference": "env:NOBODY_SETS_THIS"}, Invalid, "NOBODY_SETS_THIS"),
        ({"listen": "8790"}, Invalid, "address"),
        ({"listen": "127.0.0.1:99999"}, Invalid, "address"),
        ({"listen": "192.0.2.7:0"}, Refused, "TLS"),
        ({"buckets": ()}, Invalid, "bucket"),
        ({"place": "c"}, Invalid, "no place"),
    ],
)
def test_settings_that_cannot_be(
    file: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, str], error: type[Exception], said: str
) -> None:
    monkeypatch.setenv("AGENT_TOKEN", TOKEN)
    place = more.pop("place", "a")
    values = {"listen": "127.0.0.1:0", "token_reference": "env:AGENT_TOKEN", "buckets": ("docs",)} | more
    with pytest.raises(error, match=said) as refused:
        open_agent(file, place, AgentSettings(**values))  # pyright: ignore[reportArgumentType]
    assert TOKEN not in str(refused.value)
