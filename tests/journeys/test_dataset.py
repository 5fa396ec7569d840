"""The journey of a dataset (docs/journeys/dataset.md): found, planned, moved through five kills, proven by other
people's tools, damaged, mended."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from crossload.lab.demo import target_client

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Shell
    from crossload.lab import Lab

DOCS = "helpdesk-docs"
DELTA = ("apply", "--only", "transfer/copy/dataset:docs", "--again", "-q")


def keys_of(client: Any) -> list[str]:
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=DOCS)
    return [item["Key"] for page in pages for item in page.get("Contents", ())]


def expected_root(client: Any) -> str:
    """The manifest's Merkle root, computed from cloud A by the RFC's own recursion and none of our code."""
    leaves: list[bytes] = []
    for key in sorted(keys_of(client), key=lambda key: key.encode()):
        body = client.get_object(Bucket=DOCS, Key=key)["Body"].read()
        line = {"key": key, "sha256": hashlib.sha256(body).hexdigest(), "size_bytes": len(body)}
        leaves.append(json.dumps(line, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())

    def root(part: list[bytes]) -> bytes:
        if len(part) == 1:
            return hashlib.sha256(b"\0" + part[0]).digest()
        split = 1 << (len(part) - 1).bit_length() - 1
        return hashlib.sha256(b"\1" + root(part[:split]) + root(part[split:])).digest()

    return root(leaves).hex()


def test_the_inventory_is_the_same_bytes_twice(shell: Shell) -> None:
    shell("inventory", "-q")
    lock = shell.workspace / "inventory.lock.json"
    first = lock.read_bytes()
    again = shell("inventory", "--json", "-q").json()
    assert lock.read_bytes() == first
    docs = next(asset for asset in again["assets"] if asset["id"] == "dataset:docs")
    assert docs["facts"]["object_count"] > 100 and docs["overlay"]["sensitivity"] == "internal"
    assert {kind["status"] for kind in again["kinds"]} <= {"found", "denied", "unsupported"}


def test_a_plan_is_refused_when_the_file_changed(shell: Shell) -> None:
    plan = shell("plan", "--json").json()
    assert {step["stage"] for step in plan["steps"]} >= {"goals", "inventory", "placement", "transfer", "cutover"}
    path = shell.folder / "migration.yaml"
    before = path.read_text(encoding="utf-8")
    path.write_text(before.replace("workers: 8", "workers: 4"), encoding="utf-8")
    refused = shell("apply", "-q", expect=3)
    assert "stale" in refused.talk and "crossload plan" in refused.talk
    path.write_text(before, encoding="utf-8")
    assert shell("plan", "--json").json()["digest"] == plan["digest"]


def test_wrong_credentials_are_one_clear_error(shell: Shell) -> None:
    path = shell.folder / "migration.yaml"
    before = path.read_text(encoding="utf-8")
    wrong = shell.folder / "wrong-secret"
    wrong.write_text("not-the-secret", encoding="utf-8")
    lines = [
        f"      client_secret: file:{wrong}" if line.strip().startswith("client_secret: ") else line
        for line in before.splitlines()
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    try:
        shell("plan")
        failed = shell("apply", "--stage", "foundations", "-q", expect=6)
        assert "OIDC client mover" in failed.talk and "Traceback" not in failed.talk
        story = shell("status", "--json").json()["steps"]
        claims = [s for s in story if s["stage"] == "foundations" and "cloud-b" in s["step"] and s["state"] == "good"]
        assert claims == []
        moved = [s for s in story if s["stage"] == "transfer" and s["state"] == "good"]
        assert moved == []
    finally:
        path.write_text(before, encoding="utf-8")
        wrong.unlink()
        shell("plan")


def test_five_kills_and_the_same_manifest(shell: Shell, clouds: Lab, s3: Callable[[str], Any]) -> None:
    for stage in ("goals", "inventory", "placement", "foundations"):
        shell("apply", "--stage", stage, "-q")
    chance = random.Random(20261124)
    killed = 0
    for round_ in range(5):
        process = shell.start("apply", "--stage", "transfer", "-q")
        shell.wait_for("dataset:docs", round_ * 28 + chance.randrange(2, 26), process)
        time.sleep(chance.random() * 0.05)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.wait()
    assert killed >= 4, "the copy was over before it could be killed"
    results = shell("apply", "--stage", "transfer", "--json", "-q").json()["results"]
    data = next(item for item in results if item["step"] == "transfer/copy/dataset:docs")["data"]
    assert data["manifest_root"] == expected_root(s3("lab-a-mover"))
    one_part_per_worker = 8 * 16 * 2**20
    assert data["resent_bytes"] <= 0.02 * data["size_bytes"] + one_part_per_worker
    assert data["objects_copied"] + data["objects_recognised"] < data["objects"], "it began from the start again"


def test_every_key_is_equal_by_the_clouds_own_sdks(shell: Shell, clouds: Lab, s3: Callable[[str], Any]) -> None:
    source, bucket = s3("lab-a-mover"), target_client(clouds, "auditor").bucket(DOCS)
    there = {blob.name: blob for blob in bucket.list_blobs() if not blob.name.startswith(".crossload/")}
    here = keys_of(source)
    assert set(there) == set(here) and len(here) > 100
    for key in here:
        answer = source.get_object(Bucket=DOCS, Key=key)
        body, blob = answer["Body"].read(), there[key]
        assert blob.size == len(body)
        assert blob.download_as_bytes(raw_download=True) == body, key
        assert (blob.content_type or "") == answer["ContentType"], key
        kept = blob.metadata or {}
        assert {name: kept.get(name) for name in answer["Metadata"]} == answer["Metadata"], key
        tags = source.get_object_tagging(Bucket=DOCS, Key=key)["TagSet"]
        mark = "crossload-tag-"
        found = {unquote(name.removeprefix(mark)): value for name, value in kept.items() if name.startswith(mark)}
        assert found == {tag["Key"]: tag["Value"] for tag in tags}, key


def test_sha256sum_agrees(shell: Shell, clouds: Lab, tmp_path: Path) -> None:
    """What a third party does: download, and run `sha256sum -c`."""
    bucket = target_client(clouds, "auditor").bucket(DOCS)
    sums = (shell.workspace / "transfer" / "dataset-docs" / "SHA256SUMS").read_text(encoding="utf-8")
    written = 0
    for blob in bucket.list_blobs():
        path = tmp_path / "copy" / blob.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(blob.download_as_bytes(raw_download=True))
        written += 1
    done = subprocess.run(["sha256sum", "-c", "--quiet", "--strict"], input=sums, cwd=tmp_path / "copy", text=True,
                          capture_output=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert sums.count("\n") == written > 100


def test_a_flipped_byte_is_named_and_mended(shell: Shell, clouds: Lab) -> None:
    blob = next(b for b in target_client(clouds, "app").bucket(DOCS).list_blobs() if 1000 < (b.size or 0) < 50_000)
    data = bytearray(blob.download_as_bytes(raw_download=True))
    data[len(data) // 3] ^= 0x10
    blob.upload_from_string(bytes(data), content_type=blob.content_type)
    found = shell("verify", "--only", "transfer/copy/dataset:docs", "-q", expect=4)
    assert blob.name in found.talk
    mended = shell("apply", "--only", "transfer/copy/dataset:docs", "--json", "-q").json()["results"]
    assert next(r for r in mended if r["step"] == "transfer/copy/dataset:docs")["data"]["objects_copied"] == 1
    shell("verify", "--only", "transfer/copy/dataset:docs", "-q")


def test_a_source_object_overwritten_meanwhile_is_never_a_mix(
    shell: Shell, clouds: Lab, s3: Callable[[str], Any]
) -> None:
    """The object is replaced all the time by 6 MiB of one letter: at the target it must be of one letter too."""
    source = s3("lab-a-app")
    size, stop = 6 * 2**20, threading.Event()

    def overwrite() -> None:
        for number in range(10_000):
            if stop.is_set():
                return
            letter = bytes([97 + number % 26])
            source.put_object(Bucket=DOCS, Key="hot/changing.bin", Body=letter * size)

    source.put_object(Bucket=DOCS, Key="hot/changing.bin", Body=b"A" * size)
    writer = threading.Thread(target=overwrite)
    writer.start()
    try:
        shell(*DELTA, expect=None)
        blob = target_client(clouds, "auditor").bucket(DOCS).get_blob("hot/changing.bin")
        if blob is not None:
            data = blob.download_as_bytes(raw_download=True)
            assert len(data) == size and len(set(data)) == 1
    finally:
        stop.set()
        writer.join()
    shell(*DELTA)
    data = target_client(clouds, "auditor").bucket(DOCS).get_blob("hot/changing.bin").download_as_bytes()
    assert data == source.get_object(Bucket=DOCS, Key="hot/changing.bin")["Body"].read()


def test_the_target_down_for_20_seconds_is_waited_for(shell: Shell, clouds: Lab) -> None:
    clouds.kill("fake-gcs")
    began = time.monotonic()
    process = shell.start(*DELTA)
    time.sleep(20)
    assert process.poll() is None, "it gave up while the target was down"
    clouds.start("fake-gcs")
    assert process.wait(timeout=60) == 0
    assert time.monotonic() - began > 20


def test_two_applies_do_not_meet(shell: Shell) -> None:
    first = shell.start("apply", "--again", "-q")
    lock = shell.workspace / "lock"
    until = time.monotonic() + 20
    while time.monotonic() < until and str(first.pid) not in (
        lock.read_text(encoding="utf-8") if lock.exists() else ""
    ):
        time.sleep(0.01)
    second = shell("apply", "-q", expect=5)
    assert str(first.pid) in second.talk and "holds the lock" in second.talk
    first.send_signal(signal.SIGINT)
    assert first.wait(timeout=30) in (0, 1, 3, 130)


def test_trace_tells_the_story_and_the_chain_is_whole(shell: Shell) -> None:
    story = shell("trace", "dataset:docs", "--json").json()
    assert story["chain"] == "whole"
    stages = [item["stage"] for item in story["evidence"]]
    assert {"inventory", "placement", "foundations", "transfer"} <= set(stages)
    assert all(item["id"].startswith("E") for item in story["evidence"])


def test_no_secret_is_written_anywhere(shell: Shell, clouds: Lab) -> None:
    shell("report")
    values = {
        path.read_text(encoding="utf-8").strip() for path in (clouds.home / "secrets").iterdir() if path.is_file()
    }
    credentials = Path(clouds.env()["CROSSLOAD_LAB_AWS_CREDENTIALS"]).read_text(encoding="utf-8")
    values |= {line.partition("=")[2].strip() for line in credentials.splitlines() if "secret" in line}
    values = {part for value in values for part in value.replace(":", "\n").split() if len(part) >= 16}
    assert len(values) > 10
    files = [path for path in shell.folder.rglob("*") if path.is_file()]
    assert any(path.name == "ledger.db" for path in files) and any(path.name == "report.html" for path in files)
    for path in files:
        data = path.read_bytes()
        leaked = [value[:4] for value in values if value.encode() in data]
        assert not leaked, f"{path.name} holds a secret that begins with {leaked}"
