"""The Models port over the Converse wire, and its sign-in used by a second gateway in front of the first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gateway_clients import CLIENT_KEY

from crossload.engines.gateway.client import GatewayClient
from crossload.engines.gateway.control import backend_settings, new_key, write_config
from crossload.engines.gateway.keys import signing_pair
from crossload.estate.place import Place
from crossload.ports.errors import AccessDenied, CrossloadError, NotSignedIn, Unavailable, Unsupported
from crossload.ports.models import ChatRequest, Endpoint, Message, ToolCall, ToolSpec
from crossload.ports.provider import Settings
from crossload.providers.aws.models import open_models, signing_credentials

TOOL = ToolSpec("order_status", "d", {"type": "object"})


def settings(home: Path, url: str, key: str = CLIENT_KEY) -> Settings:
    """A place as people write it: config and credentials file with a profile, named by reference."""
    key_id, secret = signing_pair(key)
    home.mkdir(parents=True, exist_ok=True)
    (home / "config").write_text(
        f"[profile app]\nservices = here\n[services here]\nbedrock_runtime =\n  endpoint_url = {url}\n"
    )
    (home / "credentials").write_text(f"[app]\naws_access_key_id = {key_id}\naws_secret_access_key = {secret}\n")
    environment = {"HERE_CONFIG": str(home / "config"), "HERE_CREDENTIALS": str(home / "credentials")}
    connection = {
        "config_file": "env:HERE_CONFIG", "credentials_file": "env:HERE_CREDENTIALS", "profile": "app",
        "model": "vendor.model-v1:0",
    }  # fmt: skip
    return Settings(Place("a", "aws", "eu-west-1"), connection, environment)


def test_port_completes_streams_and_calls_tools(stub: Any, gateway: Any, tmp_path: Path) -> None:
    host = stub()
    running = gateway(host.url, "chat", host.url, "chat")
    models = open_models(settings(tmp_path / "one", running.url))
    host.script.call, host.script.stop = ("order_status", '{"order": "A-7"}'), "tool"
    conversation = (
        Message("user", "where is A-6 and A-7?"),
        Message(
            "assistant", "", (ToolCall("1", "order_status", '{"order":"A-6"}'), ToolCall("2", "order_status", "{}"))
        ),
        Message("tool", "late", tool_call_id="1"),
        Message("tool", "no such order", tool_call_id="2", failed=True),
    )
    reply = models.complete(
        ChatRequest(
            conversation,
            system="s",
            max_tokens=9,
            seed=3,
            cache=False,
            tools=(TOOL,),
            response_schema={"type": "object"},
        )
    )
    assert (reply.text, reply.finish) == ("Hello, wörld 🙂", "tool")
    assert (reply.input_tokens, reply.output_tokens) == (11, 4)
    assert json.loads(reply.tool_calls[0].arguments) == {"order": "A-7"}
    assert reply.losses == ("cache",)
    sent = host.requests[0].json
    assert [item["role"] for item in sent["messages"]] == ["system", "user", "assistant", "tool", "tool"]
    assert sent["messages"][-1]["content"] == "ERROR: no such order"
    assert (sent["seed"], sent["max_tokens"]) == (3, 9)
    host.script.call, host.script.stop = None, "stop"
    assert list(models.stream(ChatRequest.ask("hi"))) == ["Hello", ",", " wörld", " 🙂"]
    assert models.deployed("vendor.model-v1:0").state == "ready"
    assert models.deployed("other").state == "absent"
    with pytest.raises(Unsupported):
        models.deploy("m", "x://y", "sha256:0")


def test_errors_are_translated_at_the_door(stub: Any, gateway: Any, tmp_path: Path) -> None:
    host = stub()
    running = gateway(host.url, "chat", host.url, "chat", fallback="none")
    stranger = open_models(settings(tmp_path / "two", running.url, "cl_unknown-0123456789abcdef"))
    with pytest.raises(NotSignedIn):
        stranger.complete(ChatRequest.ask("hi"))
    host.script.status = 503
    with pytest.raises(Unavailable):
        open_models(settings(tmp_path / "three", running.url)).complete(ChatRequest.ask("hi"))
    assert issubclass(AccessDenied, CrossloadError)


def test_a_gateway_signs_upstream_with_the_providers_own_chain(stub: Any, gateway: Any, tmp_path: Path) -> None:
    host = stub()
    inner = gateway(host.url, "chat", host.url, "chat")
    place = settings(tmp_path / "four", inner.url)
    endpoint = open_models(place).endpoint()
    assert endpoint.credentials["credentials_file"] == "env:HERE_CREDENTIALS"  # a reference, not a value
    found = signing_credentials(endpoint.credentials, place.environment)
    assert found["access_key_id"] == signing_pair(CLIENT_KEY)[0]
    assert found["expires_at"] is None
    outer_home = tmp_path / "outer"
    value = {
        "backends": [
            backend_settings("source", endpoint),
            backend_settings("target", Endpoint("chat", f"{host.url}/v1", "m")),
        ],
        "clients": [{"name": "app", "key": new_key(outer_home / "key")}],
        "admin_token": "env:GW_ADMIN",
        "environment_file": "env",
    }
    assert write_config(outer_home / "gateway.json", value)
    assert not write_config(outer_home / "gateway.json", value)
    (outer_home / "env").write_text("".join(f"{name}={item}\n" for name, item in place.environment.items()))
    outer = type(inner)(json.loads((outer_home / "gateway.json").read_text()), outer_home)
    client = GatewayClient(outer.url, (outer_home / "key").read_text().strip(), "answer")
    reply = client.complete(ChatRequest.ask("hi", max_tokens=5))
    client.close()
    outer.close()
    assert (reply.text, reply.arm, reply.input_tokens) == ("Hello, wörld 🙂", "source", 11)
    assert host.requests[0].json["max_tokens"] == 5
    assert signing_pair(CLIENT_KEY)[1] not in (outer_home / "gateway.json").read_text()
