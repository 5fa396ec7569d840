"""A real history carried between real servers: order, bytes, metadata, markers, again, and back out."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from crossload.engines.mover.bucket import move_bucket
from crossload.engines.mover.history import carry_history, check_history, undo_history
from crossload.engines.mover.options import CopyOptions
from crossload.estate.place import Place
from crossload.lab import Lab
from crossload.ledger.journal import Journal
from crossload.ports.provider import Settings
from crossload.ports.retrying import RetryingStore, RetryPolicy
from crossload.ports.store import ObjectMeta, versioned
from crossload.providers.aws.store import S3Store, open_store

_PART = 5 * 2**20
_OPTIONS = CopyOptions(part_size_bytes=_PART, workers=4)


def _settings(lab: Lab) -> Settings:
    connection = {
        "config_file": "env:CROSSLOAD_LAB_AWS_CONFIG", "credentials_file": "env:CROSSLOAD_LAB_AWS_CREDENTIALS",
        "profile": "lab-a-seed",
    }  # fmt: skip
    return Settings(Place("a", "aws", "eu-central-1", "DE", connection), connection, lab.env())


@pytest.fixture
def store(conformance_lab: Lab, need: Callable[..., None]) -> S3Store:
    need("seaweedfs")
    return open_store(_settings(conformance_lab))


@pytest.fixture
def buckets(store: S3Store) -> Iterator[tuple[str, str]]:
    names = [f"hist-{side}-{secrets.token_hex(4)}" for side in "ab"]
    for name in names:
        store.ensure_bucket(name)
        store.keep_versions(name)
    yield names[0], names[1]
    for name in names:
        for info in list(store.versions(name)):
            store.delete_version(name, info.key, info.version)
        store.remove_bucket(name)


def _live(store: S3Store, bucket: str, rounds: int) -> None:
    for number in range(rounds):
        for key in ("doc", "folder/ä b.txt", "other"):
            meta = ObjectMeta("text/plain", user={"number": str(number)}, tags={"round": f"{number}"})
            store.write(bucket, key, b"%s %d" % (key.encode(), number), meta)
        if number % 3 == 1:
            store.mark_deleted(bucket, "doc")
    store.mark_deleted(bucket, "other")


def _story(store: S3Store, bucket: str) -> dict[str, list[Any]]:
    told: dict[str, list[Any]] = {}
    for info in store.versions(bucket):
        if info.is_delete_marker:
            told.setdefault(info.key, []).append("deleted")
            continue
        buffer = bytearray(info.size_bytes)
        store.read_version_into(bucket, info.key, info.version, 0, memoryview(buffer))
        meta = store.head_version(bucket, info.key, info.version)[1]
        told.setdefault(info.key, []).append((bytes(buffer), dict(meta.user), dict(meta.tags)))
    return told


def test_the_history_of_a_bucket_arrives(store: S3Store, buckets: tuple[str, str], tmp_path: Path) -> None:
    old, new = buckets
    _live(store, old, 5)
    large = os.urandom(_PART + 12345)
    upload_free = [info.key for info in store.list(old)]
    store.write(old, "large", large, ObjectMeta("model/gguf"))
    store.write(old, "large", large[::-1], ObjectMeta("model/gguf"))
    wanted = _story(store, old)
    assert wanted["other"][0] == "deleted" and "other" not in upload_free
    patient = RetryingStore(store, RetryPolicy(give_up_seconds=5), lambda _: None)
    with Journal(tmp_path / "journal.db") as journal:
        report = carry_history(patient, old, patient, new, journal, tmp_path, _OPTIONS)
        assert (report.failures, report.late) == ([], 0)
        assert _story(store, new) == wanted
        again = carry_history(patient, old, patient, new, journal, tmp_path, _OPTIONS)
        assert (again.versions, again.markers, again.sent_bytes) == (0, 0, 0)
        assert move_bucket(patient, old, patient, new, journal, _OPTIONS).empty
        assert check_history(patient, new, tmp_path) == {}
        lines = [json.loads(line) for line in (tmp_path / "versions.jsonl").read_text(encoding="utf-8").splitlines()]
        assert len(lines) == report.versions + report.markers == sum(map(len, wanted.values()))
        assert undo_history(patient, new, journal, tmp_path) == len(lines)
        assert list(store.versions(new)) == []


_RUN = """
import sys
from pathlib import Path
from crossload.engines.mover.history import carry_history
from crossload.engines.mover.options import CopyOptions
from crossload.estate.place import Place
from crossload.ledger.journal import Journal
from crossload.ports.provider import Settings
from crossload.ports.retrying import RetryingStore, RetryPolicy
from crossload.providers.aws.store import open_store
config, credentials, old, new, folder = sys.argv[1:]
connection = {"config_file": config, "credentials_file": credentials, "profile": "lab-a-seed"}
store = open_store(Settings(Place("a", "aws", "eu-central-1", "DE", connection), connection, {}))
store = RetryingStore(store, RetryPolicy(give_up_seconds=5), lambda _: None)
print("begin", flush=True)
with Journal(Path(folder) / "journal.db") as journal:
    carry_history(store, old, store, new, journal, Path(folder), CopyOptions(workers=4))
"""


def test_killed_for_real_it_goes_on(
    store: S3Store, buckets: tuple[str, str], tmp_path: Path, conformance_lab: Lab
) -> None:
    """kill -9, three times, wherever it is; then a run to the end."""
    old, new = buckets
    _live(store, old, 25)
    env = conformance_lab.env()
    files = (env["CROSSLOAD_LAB_AWS_CONFIG"], env["CROSSLOAD_LAB_AWS_CREDENTIALS"])
    for seconds in (0.15, 0.3, 0.45):
        run = subprocess.Popen(
            [sys.executable, "-c", _RUN, *files, old, new, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert run.stdout is not None and run.stdout.readline() == "begin\n"
        try:
            run.wait(seconds)
        except subprocess.TimeoutExpired:
            run.send_signal(signal.SIGKILL)
        run.wait(10)
        run.stdout.close()
    with Journal(tmp_path / "journal.db") as journal:
        report = carry_history(store, old, store, new, journal, tmp_path, _OPTIONS)
    assert (report.failures, report.late) == ([], 0)
    assert _story(store, new) == _story(store, old)


def test_order_does_not_come_from_clocks(store: S3Store, buckets: tuple[str, str]) -> None:
    """A burst within one second, writes and deletes mixed: the SDK alone would have forgotten how."""
    bucket = buckets[0]
    made = [
        store.write(bucket, "k", b"%d" % number, ObjectMeta()).version
        if number % 2
        else store.mark_deleted(bucket, "k")
        for number in range(12)
    ]
    assert [info.version for info in versioned(store).versions(bucket)] == made[::-1]
