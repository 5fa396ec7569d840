"""The journey of a model endpoint and of the users behind it: the moved bytes serve, traffic shifts by weight, all of
it goes back with one command, goes forward again, and is committed."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from botocore.exceptions import ClientError

from crossload.lab.demo import target_client

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Shell
    from crossload.lab import Lab

DOCS = "helpdesk-docs"
WRITTEN = b"written at cloud B after the switch\n"


def ask(shell: Shell, arm: str) -> tuple[str, str]:
    """One question through the gateway's chat door by plain HTTP: (answer, arm that answered)."""
    folder = shell.workspace / "gateway"
    url = json.loads((folder / "gateway-process.json").read_text(encoding="utf-8"))["url"]
    headers = {"authorization": f"Bearer {(folder / 'client.key').read_text(encoding='utf-8').strip()}"}
    if arm:
        headers["x-crossload-arm"] = arm
    body = {"model": "app", "messages": [{"role": "user", "content": "Name a colour."}], "max_tokens": 8,
            "temperature": 0}  # fmt: skip
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=60)
    answer.raise_for_status()
    return answer.json()["choices"][0]["message"]["content"], answer.headers["x-crossload-arm"]


def test_the_moved_model_answers_like_the_source(shell: Shell, clouds: Lab) -> None:
    shell("inventory", "-q")
    shell("plan")
    shell("apply", "-q")
    lock = (shell.workspace / "models.lock").read_text(encoding="utf-8")
    blob = target_client(clouds, "auditor").bucket("helpdesk-models").get_blob("smollm2-135m-instruct/model.gguf")
    assert hashlib.sha256(blob.download_as_bytes()).hexdigest() in lock
    source, target = ask(shell, "source"), ask(shell, "target")
    assert source[0] == target[0] and source[0].strip()
    assert (source[1], target[1]) == ("source", "target")
    assert ask(shell, "")[1] == "source"  # no user is at the target yet


def test_the_cutover_freezes_and_switches(shell: Shell, clouds: Lab, s3: Callable[[str], Any]) -> None:
    app = s3("lab-a-app")
    app.put_object(Bucket=DOCS, Key="tickets/last-minute.txt", Body=b"written before the freeze")
    results = {item["step"]: item for item in shell("cutover", "--json", "-q").json()["results"]}
    mirror = results["cutover/mirror/endpoint:chat"]["data"]["decision"]
    assert mirror["verdict"] == "accept" and mirror["rows"] == 75
    assert results["cutover/drill/endpoint:chat"]["data"]["target_answers_after"] == 0
    assert results["cutover/freeze/dataset:docs"]["data"]["delta_objects"] == 1
    there = target_client(clouds, "auditor").bucket(DOCS).blob("tickets/last-minute.txt").download_as_bytes()
    assert there == b"written before the freeze"
    assert ask(shell, "")[1] == "target"
    with pytest.raises(ClientError, match="AccessDenied"):
        app.put_object(Bucket=DOCS, Key="tickets/too-late.txt", Body=b"x")


def test_rollback_brings_traffic_and_data_back(shell: Shell, clouds: Lab, s3: Callable[[str], Any]) -> None:
    bucket = target_client(clouds, "app").bucket(DOCS)
    blob = bucket.blob("tickets/after-the-switch.txt")
    blob.metadata = {"author": "someone"}
    blob.upload_from_string(WRITTEN, "text/plain")
    bucket.blob("tickets/last-minute.txt").delete()
    shell("rollback", "-q")
    app = s3("lab-a-app")
    answer = app.get_object(Bucket=DOCS, Key="tickets/after-the-switch.txt")
    assert answer["Body"].read() == WRITTEN
    assert (answer["ContentType"], answer["Metadata"]) == ("text/plain", {"author": "someone"})
    with pytest.raises(ClientError, match="NoSuchKey"):
        app.get_object(Bucket=DOCS, Key="tickets/last-minute.txt")
    assert ask(shell, "")[1] == "source"
    app.put_object(Bucket=DOCS, Key="tickets/at-home-again.txt", Body=b"the freeze is lifted")
    shell("rollback", "-q")  # safe to repeat


def test_forward_again_and_committed(shell: Shell, clouds: Lab) -> None:
    refused = shell("commit", "--yes", expect=3)
    assert "not complete" in refused.talk
    shell("cutover", "-q")
    assert ask(shell, "")[1] == "target"
    there = target_client(clouds, "auditor").bucket(DOCS).blob("tickets/at-home-again.txt").download_as_bytes()
    assert there == b"the freeze is lifted"
    assert shell("commit", expect=130).code == 130  # it asks, and nobody answered
    shell("commit", "--yes")
    late = shell("rollback", expect=3)
    assert "committed" in late.talk
    assert shell("status", "--json").json()["committed"]


def test_the_report_is_one_file_that_needs_nothing(shell: Shell) -> None:
    path = shell("report").out.strip()
    html = (shell.folder / path).read_text(encoding="utf-8")
    assert html.count("<h2 id=") == 10 and "<svg" in html
    for outside in ("http://", "https://", "src=", "<script", "<link"):
        body = html.replace("http://127.0.0.1", "")  # addresses of the lab in evidence are words, not links
        assert outside not in body, outside
    evidence = [item["evidence"] for item in shell("status", "--json").json()["steps"]]
    assert all(name in html for name in evidence if name)
