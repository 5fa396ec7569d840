"""The helpdesk agent, from cloud A's definition to its own tool, on a real model: the calls repeat exactly."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from crossload.engines.agents import (
    AgentFile,
    Call,
    ToolServer,
    check_tools,
    compare,
    export,
    load,
    open_tools,
    run,
    server_in,
)
from crossload.estate.place import Place
from crossload.lab.seed_store import gguf_path
from crossload.ports.agents import AgentDefinition
from crossload.ports.models import ChatReply, ChatRequest, Message
from crossload.ports.provider import Settings
from crossload.providers.aws.agents import open_agents

if TYPE_CHECKING:
    from crossload.lab import Lab

WORKLOAD = Path(__file__).parents[2] / "examples" / "helpdesk"
TALKS = [json.loads(line) for line in (WORKLOAD / "conversations.jsonl").read_text(encoding="utf-8").splitlines()][:2]
Complete = Callable[[ChatRequest], ChatReply]


@pytest.fixture(scope="module")
def definition(helpdesk: Lab) -> AgentDefinition:
    env = helpdesk.env()
    connection = {
        "config_file": env["CROSSLOAD_LAB_AWS_CONFIG"],
        "credentials_file": env["CROSSLOAD_LAB_AWS_CREDENTIALS"],
        "profile": "lab-a-mover",
    }
    place = Place("cloud-a", "aws", "eu-central-1")
    return open_agents(Settings(place, connection, env)).definition("helpdesk")


@pytest.fixture(scope="module")
def agent(definition: AgentDefinition) -> AgentFile:
    return export(definition, {"orders": ToolServer("python", (str(WORKLOAD / "mcp_server.py"),))})[0]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Complete]:
    """A llama.cpp server of our own: one model file, one thread, a free port."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "key").write_text("k" * 24)
    with socket.socket() as claim:
        claim.bind(("127.0.0.1", 0))
        port = claim.getsockname()[1]
    argv = [sys.executable, "-m", "crossload.lab.programs.llm", "--port", str(port), "--model", str(gguf_path()),
            "--alias", "m", "--key-file", str(folder / "key")]  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            argv, stdout=log, stderr=log, env={"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin"}
        )
    try:
        deadline = time.monotonic() + 60
        while not _healthy(url):
            assert process.poll() is None, (folder / "log").read_text(errors="replace")
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield lambda request: _complete(url, "k" * 24, request)
    finally:
        process.terminate()
        process.wait(timeout=20)


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url + "/health", timeout=2) as reply:
            return reply.status == 200
    except (urllib.error.URLError, OSError):
        return False


def _complete(url: str, key: str, request: ChatRequest) -> ChatReply:
    schema = {"name": "decision", "schema": dict(request.response_schema or {})}
    body: dict[str, Any] = {
        "messages": [{"role": "system", "content": request.system}]
        + [{"role": message.role, "content": message.content} for message in request.messages],
        "max_tokens": request.max_tokens, "temperature": request.temperature, "cache_prompt": request.cache,
        "response_format": {"type": "json_schema", "json_schema": schema},
    }  # fmt: skip
    began = time.monotonic()
    asked = urllib.request.Request(
        url + "/v1/chat/completions", json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {key}"},
    )  # fmt: skip
    with urllib.request.urlopen(asked, timeout=120) as reply:
        found = json.load(reply)
    usage = found["usage"]
    text = found["choices"][0]["message"]["content"]
    return ChatReply(text, "stop", usage["prompt_tokens"], usage["completion_tokens"], time.monotonic() - began)


def talk_all(
    agent: AgentFile, model: Complete, environment: dict[str, str] | None = None
) -> dict[str, tuple[Call, ...]]:
    server = server_in(agent, "order_status")
    assert server is not None
    with open_tools(server, environment=environment) as tools:
        assert check_tools(agent, tools) == []
        talks = {talk["id"]: run(agent, model, tools, [Message("user", talk["say"])], first="tool") for talk in TALKS}
    assert {talk.finish for talk in talks.values()} == {"answer"}
    return {name: talk.calls for name, talk in talks.items()}


def test_the_definition_says_what_the_workload_says(definition: AgentDefinition) -> None:
    wanted = json.loads((WORKLOAD / "agent.json").read_text())
    assert definition.instructions == wanted["instruction"]
    assert definition.model == wanted["model"]
    assert definition.generation == wanted["generation"]
    (tool,) = definition.tools
    assert (tool.name, tool.executor, tool.group) == ("order_status", "caller", "orders")
    assert definition.knowledge[0]["index"] == "docs_index"
    assert definition.guardrail is not None
    assert definition.guardrail["name"] == "helpdesk"


def test_the_file_holds_the_agent_and_names_its_losses(definition: AgentDefinition, tmp_path: Path) -> None:
    file, losses = export(definition)
    file.save(tmp_path / "helpdesk.json")
    assert load(tmp_path / "helpdesk.json").digest == file.digest
    paths = {loss.path for loss in losses}
    assert {"model", "guardrail", "memory", "knowledge/helpdesk-manual", "identity", "tools/order_status"} <= paths
    assert not [loss for loss in losses if loss.severity == "blocker"]


def test_calls_are_right_and_equal_run_to_run(agent: AgentFile, model: Complete) -> None:
    first = talk_all(agent, model)
    for talk in TALKS:
        assert first[talk["id"]] == (Call("order_status", {"order_id": talk["order_id"]}),)
    found = compare(first, talk_all(agent, model))
    assert found.equal, found.summary()
    assert found.calls_source == len(TALKS)


def test_the_tool_reads_the_source_table_as_the_app_does(definition: AgentDefinition, helpdesk: Lab) -> None:
    env = helpdesk.env()
    settings = {
        "HELPDESK_ORDERS_TABLE": "orders",
        "AWS_CONFIG_FILE": "env:CROSSLOAD_LAB_AWS_CONFIG",
        "AWS_SHARED_CREDENTIALS_FILE": "env:CROSSLOAD_LAB_AWS_CREDENTIALS",
        "AWS_PROFILE": "lab-a-app",
    }
    agent, _ = export(definition, {"*": ToolServer("python", (str(WORKLOAD / "mcp_server.py"),), settings)})
    server = server_in(agent, "order_status")
    assert server is not None
    assert str(helpdesk.home) not in agent.to_text()  # references, not this machine's paths
    orders = {order["order_id"]: order for order in json.loads((WORKLOAD / "orders.json").read_text())}
    with open_tools(server, environment=env) as tools:
        for order_id in (1001, 1042):
            shown = json.loads(tools.call("order_status", {"order_id": order_id}).text)
            assert shown["status"] == orders[order_id]["status"]
            assert shown["item"] == orders[order_id]["item"]
        assert json.loads(tools.call("order_status", {"order_id": 9}).text)["status"] == "unknown"
