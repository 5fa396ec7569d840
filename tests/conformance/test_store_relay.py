"""RelayStore to an agent on this machine, in front of a folder and in front of SeaweedFS."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crossload.conformance.store import CASES, Case, StoreBench
from crossload.estate.place import Place
from crossload.lab import Lab
from crossload.ports.provider import Settings
from crossload.ports.store import Store
from crossload.providers.aws.session import client
from crossload.providers.aws.store import open_store as open_objects
from crossload.providers.keepalive import send
from crossload.providers.local.store import open_store as open_folder
from crossload.providers.relay import words
from crossload.providers.relay.agent import Agent, AgentOptions
from crossload.providers.relay.store import RelayStore, open_store

_TOKEN = "0123456789abcdef-for-tests"
# What SeaweedFS does behind the agent is what it does without (test_store_s3.py).
_KNOWN_BEHIND = {
    "key_double_slash": "`a//b` silently becomes `a/b`",
    "key_backslash": "`a\\b` silently becomes `a/b`",
    "key_trailing_slash": "the bytes of `folder/` are silently dropped",
    "absent_bucket_is_not_found": "an administrator's write makes the bucket",
}


def _near(url: str, token: str = _TOKEN) -> RelayStore:
    connection = {"url": url, "token": "env:RELAY_TOKEN"}
    return open_store(Settings(Place("b", "relay", "there", "DE", connection), connection, {"RELAY_TOKEN": token}))


def _bench(agent: Agent, dead_port: int) -> StoreBench:
    def write_damaged(bucket: str, key: str) -> None:
        told = base64.b64encode(json.dumps({"meta": {}, "size": 7, "sha256": "0" * 64}).encode()).decode()
        headers = {"authorization": f"Bearer {_TOKEN}", words.TOLD: told}
        answer = send("PUT", f"{agent.url}/v1/{bucket}/{key.replace('/', '%2F')}?do=write", headers, content=b"damaged")
        if answer.status_code != 200:
            raise words.error_from_answer(answer.status_code, answer.content, "PUT")

    return StoreBench(
        open=lambda: _near(agent.url),
        unsigned=lambda: _near(agent.url, "some other token of nobody"),
        absent=lambda: _near(f"http://127.0.0.1:{dead_port}"),
        write_damaged=write_damaged,
        many_keys=2_300,  # more than one page of the relay
    )


@pytest.fixture(scope="module")
def folder_bench(tmp_path_factory: pytest.TempPathFactory, dead_port: int) -> Iterator[StoreBench]:
    connection = {"root": str(tmp_path_factory.mktemp("relay"))}
    far = open_folder(Settings(Place("far", "local", "here", "DE", connection), connection, {}))
    with Agent(far, AgentOptions(_TOKEN, ("conf-*",))) as agent:
        made = _bench(agent, dead_port)
        yield made
        made.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_relay_to_a_folder(case: Case[StoreBench], folder_bench: StoreBench, keeps: Callable[..., None]) -> None:
    keeps(case, folder_bench, {})


@pytest.fixture(scope="module")
def objects_bench(
    conformance_lab: Lab, need: Callable[..., None], tmp_path_factory: pytest.TempPathFactory, dead_port: int
) -> Iterator[StoreBench]:
    need("seaweedfs")
    connection = {
        "config_file": "env:CROSSLOAD_LAB_AWS_CONFIG", "credentials_file": "env:CROSSLOAD_LAB_AWS_CREDENTIALS",
        "profile": "lab-a-seed",
    }  # fmt: skip
    settings = Settings(Place("a", "aws", "eu-central-1", "DE", connection), connection, conformance_lab.env())
    far, s3 = open_objects(settings), client(settings, "s3")

    def keep_versions(_: Store, bucket: str) -> None:
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})

    with Agent(far, AgentOptions(_TOKEN, ("conf-*",))) as agent:
        made = _bench(agent, dead_port)
        made.many_keys, made.keep_versions = 1_005, keep_versions
        yield made
        made.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_relay_to_objects(case: Case[StoreBench], objects_bench: StoreBench, keeps: Callable[..., None]) -> None:
    keeps(case, objects_bench, _KNOWN_BEHIND)


def test_the_answer_names_the_store_behind(folder_bench: StoreBench, tmp_path: Path) -> None:
    store = folder_bench.open()
    assert isinstance(store, RelayStore)
    assert store.agreed.place == "far"
    assert store.features.sorted_list
    assert store.features.part_size_bytes_min == 1
    assert store.features.user_metadata_bytes_max == words.USER_METADATA_BYTES_MAX < 64 * 1024
