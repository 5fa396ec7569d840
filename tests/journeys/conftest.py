"""Journeys: the product as a user has it (commands in a folder) on two clouds of real servers."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from crossload.lab import Lab


@dataclass(frozen=True, slots=True)
class Done:
    """What a command left: exit code, data (stdout), talk (stderr)."""

    code: int
    out: str
    talk: str

    def json(self) -> Any:
        return json.loads(self.out)


class Shell:
    """`crossload` in one project folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *arguments: str, expect: int | None = 0, timeout: float = 200) -> Done:
        done = subprocess.run(
            [sys.executable, "-m", "crossload", *arguments], cwd=self.folder, capture_output=True, text=True,
            timeout=timeout, check=False,
        )  # fmt: skip
        found = Done(done.returncode, done.stdout, done.stderr)
        if expect is not None:
            assert found.code == expect, (
                f"`crossload {' '.join(arguments)}` gave {found.code}\n{found.out}\n{found.talk}"
            )
        return found

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "crossload", *arguments], cwd=self.folder, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip

    @property
    def workspace(self) -> Path:
        return self.folder / ".crossload" / "journey"

    def journaled(self, asset: str) -> int:
        """Objects of a dataset that its journal calls done."""
        path = self.workspace / "transfer" / asset.replace(":", "-") / "journal.db"
        if not path.exists():
            return 0
        try:
            with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
                return int(database.execute("select count(*) from object where state='done'").fetchone()[0])
        except sqlite3.Error:
            return 0

    def wait_for(self, asset: str, objects: int, process: subprocess.Popen[bytes], seconds: float = 60) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and process.poll() is None and self.journaled(asset) < objects:
            time.sleep(0.01)


@pytest.fixture(scope="module")
def clouds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab of this journey alone, seeded small: journeys freeze, damage and stop things."""
    from crossload.lab import Lab
    from crossload.lab.seed import seed

    made = Lab(tmp_path_factory.mktemp("clouds"))
    states = made.up(only=("ministack", "seaweedfs", "postgres-a", "llm-a", "fake-gcs", "envoy", "issuer", "postgres-b",
                           "llm-b"))  # fmt: skip
    down = [f"{server.name}: {server.state} ({server.hint})" for server in states if server.state != "up"]
    try:
        assert not down, down
        seed(made.home, small=True)
        yield made
    finally:
        made.down(purge=True)


@pytest.fixture(scope="module")
def shell(clouds: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A project with a migration file drafted from cloud A, made quick for tests."""
    folder = tmp_path_factory.mktemp("project")
    made = Shell(folder)
    made("init", "--lab", str(clouds.home), "--name", "journey", "--owner", "tests")
    path = folder / "migration.yaml"
    text = path.read_text(encoding="utf-8")
    text = text.replace("  # residency: {pii: [EU], internal: [EU, US]}", "  residency: {internal: [EU]}")
    text = text.replace("overlays:\n", "overlays:\n  - {match: {name: '*'}, set: {sensitivity: internal}}\n")
    text = text.replace("limit: 2.0, unit: s, rollback_at: 5.0", "limit: 20.0, unit: s, rollback_at: 60.0")
    text = text.replace("canary_weights: [5, 25, 50, 100]", "canary_weights: [50, 100]\n  requests_per_weight: 8\n"
                        "  mirror_requests: 75")  # fmt: skip
    path.write_text(text, encoding="utf-8")
    yield made
    record = made.workspace / "gateway" / "gateway-process.json"
    if record.exists():
        from crossload.engines.gateway.control import stop

        stop(record.parent)


@pytest.fixture
def s3(clouds: Lab, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """boto3 for cloud A as one of its profiles, without any code of ours."""
    import boto3

    env = clouds.env()
    monkeypatch.setenv("AWS_CONFIG_FILE", env["CROSSLOAD_LAB_AWS_CONFIG"])
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", env["CROSSLOAD_LAB_AWS_CREDENTIALS"])
    return lambda profile: boto3.Session(profile_name=profile).client("s3")
