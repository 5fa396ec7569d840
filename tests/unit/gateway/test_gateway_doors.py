"""Both doors to both upstream wires, whole and streamed, with the official SDK and an OpenAI-shaped client."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from gateway_clients import MIRROR_KEY, http

WIRES = ("chat", "converse")
TOOL = {"type": "object", "properties": {"order": {"type": "string"}}, "required": ["order"]}
CALL = ("order_status", '{"order": "A-7"}')


def chat_body(**more: Any) -> dict[str, Any]:
    return {"model": "answer", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9, **more}


def sse_values(text: str) -> list[dict[str, Any]]:
    lines = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


@pytest.mark.parametrize("wire", WIRES)
def test_chat_door_gets_a_whole_answer(stub: Any, gateway: Any, wire: str) -> None:
    host = stub()
    running = gateway(host.url, wire, host.url, wire)
    with http(running.url) as client:
        answer = client.post("/v1/chat/completions", json=chat_body(temperature=0))
    value = answer.json()
    assert answer.status_code == 200, value
    assert value["choices"][0]["message"]["content"] == "Hello, wörld 🙂"
    assert value["choices"][0]["finish_reason"] == "stop"
    # Cached tokens are inside prompt_tokens on this wire, outside of inputTokens on the other: 8 + 3.
    assert value["usage"]["prompt_tokens"] == 11
    assert value["usage"]["completion_tokens"] == 4
    assert answer.headers["x-crossload-arm"] == "source"
    sent = host.requests[0]
    if wire == "converse":
        assert sent.path == "/model/model%3Asource/converse"
        assert sent.json["inferenceConfig"] == {"maxTokens": 9, "temperature": 0}
    else:
        assert sent.path == "/v1/chat/completions"
        assert sent.headers["authorization"] == "Bearer upstream-bearer"
        assert sent.json["model"] == "model:source"


@pytest.mark.parametrize("wire", WIRES)
def test_chat_door_streams_with_a_tool_call(stub: Any, gateway: Any, wire: str) -> None:
    host = stub()
    host.script.call, host.script.stop = CALL, "tool"
    running = gateway(host.url, wire, host.url, wire)
    tools = [{"type": "function", "function": {"name": "order_status", "description": "d", "parameters": TOOL}}]
    body = chat_body(stream=True, stream_options={"include_usage": True}, tools=tools)
    with http(running.url) as client:
        answer = client.post("/v1/chat/completions", json=body)
    values = sse_values(answer.text)
    deltas = [item["choices"][0]["delta"] for item in values if item["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == "Hello, wörld 🙂"
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    assert [call["function"]["name"] for call in calls if call["function"].get("name")] == ["order_status"]
    assert {call["index"] for call in calls} == {0}
    assert json.loads("".join(call["function"]["arguments"] for call in calls)) == {"order": "A-7"}
    finishes = [item["choices"][0]["finish_reason"] for item in values if item["choices"]]
    assert [finish for finish in finishes if finish] == ["tool_calls"]
    assert values[-1]["usage"]["prompt_tokens"] == 11


@pytest.mark.parametrize("wire", WIRES)
def test_converse_door_gets_a_whole_answer(stub: Any, gateway: Any, bedrock_client: Any, wire: str) -> None:
    host = stub()
    host.script.call, host.script.stop = CALL, "tool"
    running = gateway(host.url, wire, host.url, wire)
    answer = bedrock_client(running.url).converse(
        modelId="eu.vendor.model-v1:0",
        messages=[{"role": "user", "content": [{"text": "hi"}]}],
        system=[{"text": "be short"}],
        inferenceConfig={"maxTokens": 9, "temperature": 0.5, "stopSequences": ["END"]},
        toolConfig={"tools": [{"toolSpec": {"name": "order_status", "inputSchema": {"json": TOOL}}}]},
    )
    blocks = answer["output"]["message"]["content"]
    assert blocks[0] == {"text": "Hello, wörld 🙂"}
    assert blocks[1]["toolUse"] == {"toolUseId": "c1", "name": "order_status", "input": {"order": "A-7"}}
    assert answer["stopReason"] == "tool_use"
    assert answer["usage"]["inputTokens"] == 8
    assert answer["usage"]["cacheReadInputTokens"] == 3
    assert answer["ResponseMetadata"]["HTTPHeaders"]["x-crossload-arm"] == "source"
    if wire == "chat":
        sent = host.requests[0].json
        assert sent["messages"] == [{"role": "system", "content": "be short"}, {"role": "user", "content": "hi"}]
        assert (sent["max_tokens"], sent["temperature"], sent["stop"]) == (9, 0.5, ["END"])
        assert sent["tools"][0]["function"]["parameters"] == TOOL


@pytest.mark.parametrize("wire", WIRES)
def test_converse_door_streams(stub: Any, gateway: Any, bedrock_client: Any, wire: str) -> None:
    host = stub()
    host.script.call, host.script.stop = CALL, "tool"
    running = gateway(host.url, wire, host.url, wire)
    answer = bedrock_client(running.url).converse_stream(
        modelId="m", messages=[{"role": "user", "content": [{"text": "hi"}]}]
    )
    events = list(answer["stream"])
    assert next(iter(events[0])) == "messageStart"
    deltas = [event["contentBlockDelta"] for event in events if "contentBlockDelta" in event]
    assert "".join(item["delta"].get("text", "") for item in deltas) == "Hello, wörld 🙂"
    arguments = "".join(item["delta"]["toolUse"]["input"] for item in deltas if "toolUse" in item["delta"])
    assert json.loads(arguments) == {"order": "A-7"}
    starts = [event["contentBlockStart"] for event in events if "contentBlockStart" in event]
    assert [start["start"]["toolUse"]["name"] for start in starts] == ["order_status"]
    stops = [event["contentBlockStop"]["contentBlockIndex"] for event in events if "contentBlockStop" in event]
    assert stops == [0, 1]
    assert next(event["messageStop"]["stopReason"] for event in events if "messageStop" in event) == "tool_use"
    assert next(event["metadata"]["usage"]["inputTokens"] for event in events if "metadata" in event) == 8


def test_same_wire_passes_bytes_untouched_and_still_meters(stub: Any, gateway: Any) -> None:
    host = stub()
    running = gateway(host.url, "chat", host.url, "chat")
    body = (
        b'{ "model":"model:source",  "messages":[{"role":"user","content":"hi"}], "stream":true, "vendor_field": [1]}'
    )
    with http(running.url) as client:
        answer = client.post("/v1/chat/completions", content=body)
    assert host.requests[0].body == body
    assert answer.text.count('"id": "x"') == 6  # the host's own chunks, not re-rendered ones
    with http(running.url) as client:
        client.post("/v1/chat/completions", json=chat_body(stream=True, stream_options={"include_usage": True}))
    rows = running.log_rows(2)
    assert [row["input_tokens"] for row in rows] == [None, 11]  # unknown stays unknown
    assert [row["stop"] for row in rows] == ["stop", "stop"]


def test_same_wire_converse_stream_is_metered_from_its_tail(stub: Any, gateway: Any, bedrock_client: Any) -> None:
    host = stub()
    host.script.words = ("word ",) * 400  # far more than the tail that is looked at
    running = gateway(host.url, "converse", host.url, "converse")
    answer = bedrock_client(running.url).converse_stream(
        modelId="m", messages=[{"role": "user", "content": [{"text": "hi"}]}]
    )
    assert sum(1 for event in answer["stream"] if "contentBlockDelta" in event) == 400
    row = running.log_rows(1)[0]
    assert (row["input_tokens"], row["output_tokens"], row["stop"]) == (11, 4, "stop")


def test_upstream_signature_is_what_the_official_signer_makes(stub: Any, gateway: Any) -> None:
    host = stub()
    running = gateway(host.url, "converse", host.url, "converse")
    with http(running.url) as client:
        client.post("/v1/chat/completions", json=chat_body())
    sent = host.requests[0]
    stamp = sent.headers["x-amz-date"]
    request = AWSRequest("POST", host.url + sent.path, headers={"host": sent.headers["host"]}, data=sent.body)
    request.context["timestamp"] = stamp
    request.headers["X-Amz-Date"] = stamp
    signer = SigV4Auth(Credentials("AKIDUPSTREAM", "upstream-secret"), "bedrock", "eu-west-1")
    signature = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    assert sent.headers["authorization"].endswith(f"Signature={signature}")


def test_an_arm_that_answers_whole_to_a_stream_still_gives_a_stream(
    stub: Any, gateway: Any, bedrock_client: Any
) -> None:
    host = stub()
    host.script.whole_for_stream = True
    running = gateway(host.url, "chat", host.url, "chat")
    stream = bedrock_client(running.url).converse_stream(
        modelId="m", messages=[{"role": "user", "content": [{"text": "hi"}]}]
    )["stream"]
    events = list(stream)
    assert next(event["contentBlockDelta"]["delta"]["text"] for event in events if "contentBlockDelta" in event) == (
        "Hello, wörld 🙂"
    )
    assert "messageStop" in events[-2]


def test_json_schema_and_seed_cross_the_wires(stub: Any, gateway: Any, bedrock_client: Any) -> None:
    host = stub()
    running = gateway(host.url, "chat", host.url, "converse")
    bedrock_client(running.url).converse(
        modelId="m",
        messages=[{"role": "user", "content": [{"text": "hi"}]}],
        additionalModelRequestFields={"seed": 7, "cache_prompt": False},
        outputConfig={
            "textFormat": {
                "type": "json_schema",
                "structure": {"jsonSchema": {"name": "verdict", "schema": json.dumps(TOOL)}},
            }
        },
    )
    sent = host.requests[-1].json
    assert sent["seed"] == 7
    assert sent["cache_prompt"] is False
    assert sent["response_format"]["json_schema"] == {"name": "verdict", "schema": TOOL, "strict": True}
    with http(running.url, MIRROR_KEY) as client:
        answer = client.post(
            "/v1/chat/completions",
            json=chat_body(seed=7, response_format=sent["response_format"]),
            headers={"x-crossload-arm": "target"},
        )
    assert answer.status_code == 200, answer.text
    sent = host.requests[-1].json
    assert json.loads(sent["outputConfig"]["textFormat"]["structure"]["jsonSchema"]["schema"]) == TOOL
    assert sent["additionalModelRequestFields"] == {"seed": 7}


def test_loss_is_refused_or_named(stub: Any, gateway: Any) -> None:
    host = stub()
    running = gateway(host.url, "converse", host.url, "converse")
    with http(running.url) as client:
        refused = client.post("/v1/chat/completions", json=chat_body(n=3))
        named = client.post("/v1/chat/completions", json=chat_body(logprobs=True))
    assert refused.status_code == 400
    assert "n" in refused.json()["error"]["message"]
    assert len(host.requests) == 1
    assert named.headers["x-crossload-loss"] == "logprobs;warn"


def test_wrong_signature_and_wrong_key_are_refused_in_each_wires_shape(
    stub: Any, gateway: Any, bedrock_client: Any
) -> None:
    host = stub()
    running = gateway(host.url, "chat", host.url, "chat")
    ask = {"modelId": "m", "messages": [{"role": "user", "content": [{"text": "hi"}]}]}
    with pytest.raises(ClientError) as caught:
        bedrock_client(running.url, "cl_another-key-0123456789").converse(**ask)
    assert caught.value.response["Error"]["Code"] == "UnrecognizedClientException"
    client = bedrock_client(running.url)
    client.meta.events.register_last("before-send.bedrock-runtime.Converse", _change_body)
    with pytest.raises(ClientError) as caught:
        client.converse(**ask)
    assert caught.value.response["Error"]["Code"] == "AccessDeniedException"
    with http(running.url, "cl_wrong") as plain:
        answer = plain.post("/v1/chat/completions", json=chat_body())
    assert answer.status_code == 401
    assert answer.json()["error"]["type"] == "authentication_error"
    assert host.requests == []


def _change_body(request: Any, **_: Any) -> None:
    request.body = request.body.replace(b"hi", b"ho")
