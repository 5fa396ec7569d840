"""`crossload verify --provider` against SeaweedFS, as one would try an account of one's own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from crossload.estate.place import Place
from crossload.lab import Lab
from crossload.ports.provider import Settings
from crossload.ports.store import ObjectMeta
from crossload.providers.aws.store import open_store

# What this server is known not to keep: see docs/vendors.md.
FAILS = {"key_backslash", "key_double_slash", "key_trailing_slash", "absent_bucket_is_not_found"}
SETTINGS = {
    "config_file": "env:CROSSLOAD_LAB_AWS_CONFIG",
    "credentials_file": "env:CROSSLOAD_LAB_AWS_CREDENTIALS",
    "profile": "lab-a-seed",
    "profile@stranger": "lab-a-stranger",
}


@pytest.fixture
def account(conformance_lab: Lab, need: Callable[..., None]) -> tuple[list[str], dict[str, str], Any]:
    """(the command, its environment, the store to look with)."""
    need("seaweedfs")
    env = {**os.environ, **conformance_lab.env()}
    command = [
        sys.executable,
        "-m",
        "crossload",
        "verify",
        "--provider",
        "aws",
        "--region",
        "eu-central-1",
        "--yes",
        "-q",
    ]
    for name, value in SETTINGS.items():
        command += ["--set", f"{name}={value}"]
    place = Place("a", "aws", "eu-central-1", "DE", SETTINGS)
    return command, env, open_store(Settings(place, SETTINGS, conformance_lab.env()))


def _trials(store: Any) -> list[str]:
    return [bucket.name for bucket in store.buckets() if bucket.name.startswith("crossload-trial-")]


def test_the_known_deviations_fail_and_nothing_else(account: tuple[list[str], dict[str, str], Any]) -> None:
    command, env, store = account
    done = subprocess.run([*command, "--json"], env=env, capture_output=True, text=True, check=False, timeout=200)
    told = json.loads(done.stdout)
    assert done.returncode == 4, done.stderr
    assert {item["case"] for item in told["results"] if item["result"] == "failed"} == FAILS
    passed = {item["case"] for item in told["results"] if item["result"] == "passed"}
    assert {"strangers_are_refused", "freeze_and_thaw_may_happen_twice", "list_is_complete"} <= passed
    assert told["left"] == [] and _trials(store) == []


def test_a_given_bucket_keeps_what_it_had(account: tuple[list[str], dict[str, str], Any]) -> None:
    command, env, store = account
    store.ensure_bucket("my-scratch")
    try:
        store.write("my-scratch", "keep.txt", b"keep", ObjectMeta())
        more = ["--bucket", "my-scratch", "--json"]
        done = subprocess.run([*command, *more], env=env, capture_output=True, text=True, check=False, timeout=200)
        results = {item["case"]: item["result"] for item in json.loads(done.stdout)["results"]}
        assert {case for case, result in results.items() if result == "failed"} == FAILS - {
            "absent_bucket_is_not_found"
        }
        assert results["freeze_and_thaw_may_happen_twice"] == "skipped"
        assert [info.key for info in store.list("my-scratch")] == ["keep.txt"]
    finally:
        store.delete("my-scratch", "keep.txt")
        store.remove_bucket("my-scratch")


def test_ctrl_c_in_the_middle_leaves_no_bucket(account: tuple[list[str], dict[str, str], Any]) -> None:
    command, env, store = account
    running = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 100
    while not _trials(store) and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=100)
    assert running.returncode == 130, err
    assert _trials(store) == []


def test_somebody_without_rights_is_told_so(account: tuple[list[str], dict[str, str], Any]) -> None:
    command, env, _ = account
    more = ["--set", "profile=lab-a-stranger", "--bucket", "helpdesk-docs"]
    done = subprocess.run([*command, *more], env=env, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 6, done.stderr
