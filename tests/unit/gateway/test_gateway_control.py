"""The gateway as a process of its own: start, find again, kill -9, same port and weights; its configuration."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from gateway_clients import CLIENT_KEY

from crossload.engines.gateway.client import GatewayClient
from crossload.engines.gateway.config import ConfigInvalid, parse_config
from crossload.engines.gateway.control import GatewayControl, new_key, running, start_detached, stop
from crossload.ports.errors import Throttled, Unavailable
from crossload.ports.models import ChatRequest, ToolSpec


@pytest.fixture
def place(tmp_path: Path, stub: Any) -> Any:
    host = stub()
    config = tmp_path / "gateway.json"
    key = new_key(tmp_path / "keys" / "app")
    token = new_key(tmp_path / "keys" / "admin")
    backends = [
        {"arm": arm, "wire": "chat", "base_url": f"{host.url}/v1", "model": f"m-{arm}"} for arm in ("source", "target")
    ]
    value = {
        "backends": backends,
        "clients": [{"name": "app", "key": key}],
        "admin_token": token,
        "environment_file": "env",
    }
    (tmp_path / "env").write_text("A=b\n")
    config.write_text(json.dumps(value))
    yield tmp_path, config, host
    stop(tmp_path)


def read(reference: str) -> str:
    return Path(reference.removeprefix("file:")).read_text().strip()


def test_start_is_idempotent_and_survives_kill_9(place: Any) -> None:
    home, config, host = place
    first = start_detached(config, home)
    assert first.started_now
    token = read(f"file:{home}/keys/admin")
    control = GatewayControl(first.url, token)
    control.set_weights({"source": 35, "target": 65})
    same = start_detached(config, home)
    assert (same.pid, same.url, same.started_now) == (first.pid, first.url, False)
    os.kill(first.pid, signal.SIGKILL)
    until = time.monotonic() + 5
    while running(home) is not None and time.monotonic() < until:
        time.sleep(0.02)
    assert running(home) is None
    second = start_detached(config, home)
    assert second.pid != first.pid
    assert second.url == first.url
    assert control.routes()["weights"] == {"source": 35, "target": 65}
    assert control.routes()["epoch"] == 1
    client = GatewayClient(second.url, read(f"file:{home}/keys/app"), "answer")
    assert client.complete(ChatRequest.ask("hi"), session="s").text == "Hello, wörld 🙂"
    assert len(host.requests) == 1
    client.close()
    assert stop(home)
    assert not stop(home)
    assert running(home) is None
    assert not control.healthy()


def test_kill_9_while_weights_change_leaves_weights_somebody_asked_for(place: Any) -> None:
    home, config, _ = place
    token = read(f"file:{home}/keys/admin")
    for round_ in range(3):
        now = start_detached(config, home)
        control = GatewayControl(now.url, token)
        killer = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"import os,time,signal;time.sleep({0.05 + 0.03 * round_});os.kill({now.pid},signal.SIGKILL)",
            ]
        )
        answered = 0
        try:
            for percent in range(1, 100):
                control.set_target_percent(percent)
                answered = percent
        except Unavailable:
            pass
        killer.wait()
        again = start_detached(config, home)
        found = GatewayControl(again.url, token).routes()["weights"]["target"]
        assert found in (answered, answered + 1), (found, answered)


def test_another_configuration_replaces_the_process(place: Any) -> None:
    home, config, _ = place
    first = start_detached(config, home)
    value = json.loads(config.read_text())
    config.write_text(json.dumps({**value, "fallback": "none"}))
    second = start_detached(config, home)
    assert second.started_now
    assert second.pid != first.pid
    assert second.url == first.url
    assert GatewayControl(second.url, read(f"file:{home}/keys/admin")).routes()["fallback"] == "none"


def test_a_start_that_cannot_work_says_why(place: Any) -> None:
    home, config, _ = place
    value = json.loads(config.read_text())
    config.write_text(json.dumps({**value, "clients": [{"name": "app", "key": "env:NOT_SET_ANYWHERE"}]}))
    with pytest.raises(Unavailable, match="NOT_SET_ANYWHERE"):
        start_detached(config, home)
    (home / "gateway-state.json").write_text("{half")
    config.write_text(json.dumps(value))
    with pytest.raises(Unavailable, match="gateway-state"):
        start_detached(config, home)


def test_a_foreign_process_with_our_recorded_id_is_never_touched(place: Any) -> None:
    home, _, _ = place
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        record = {"pid": other.pid, "started_ticks": 1, "url": "http://127.0.0.1:1", "config_sha256": ""}
        (home / "gateway-process.json").write_text(json.dumps(record))
        assert not stop(home)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_the_key_pair_file_is_private_and_works(place: Any) -> None:
    home, config, _ = place
    out = home / "pair"
    command = [sys.executable, "-m", "crossload.engines.gateway", "--config", str(config)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "src")}
    subprocess.run([*command, "--pair", "app", "--out", str(out)], check=True, env=environment)
    assert out.stat().st_mode & 0o777 == 0o600
    assert "aws_secret_access_key" in out.read_text()
    bad = subprocess.run([*command, "--pair", "nobody", "--out", str(out)], env=environment, capture_output=True)
    assert bad.returncode == 2


def test_configuration_names_every_problem_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        parse_config(
            {
                "backends": [
                    {"arm": "source", "wire": "smoke", "base_url": "ftp://x", "model": "m",
                     "credentials": {"key": "sk-value-in-the-file"}},
                    {"arm": "source", "wire": "chat", "base_url": "http://x", "modl": "m"},
                ],
                "clients": [{"name": "app", "key": "plain"}],
                "weights": {"source": 10, "target": 10},
                "admin_token": "plain",
                "host": "0.0.0.0",
                "open": True,
                "falback": "none",
                "limits": {"body": 1},
                "timeouts": {"connect_seconds": 0},
            },
            tmp_path,
        )  # fmt: skip
    text = "\n".join(caught.value.problems)
    for word in ("wire", "base_url", "never a value", "modl", "exactly once", "sum to 100", "admin_token", "loopback",
                 "falback", "limits.body", "connect_seconds"):  # fmt: skip
        assert word in text, word


def test_client_speaks_all_of_a_request_and_translates_errors(stub: Any, gateway: Any) -> None:
    host = stub()
    running_gateway = gateway(host.url, "chat", host.url, "chat")
    client = GatewayClient(running_gateway.url, CLIENT_KEY, "answer")
    schema = {"type": "object"}
    request = ChatRequest.ask(
        "hi", system="s", max_tokens=3, temperature=0, seed=1, response_schema=schema, cache=False,
        tools=(ToolSpec("f", "d", schema),),
    )  # fmt: skip
    arm, reply = client.send(request)
    assert arm == "source"
    assert not isinstance(reply, Exception)
    assert (reply.input_tokens, reply.output_tokens, reply.finish) == (11, 4, "stop")
    sent = host.requests[0].json
    assert sent["cache_prompt"] is False
    assert sent["seed"] == 1
    assert sent["response_format"]["json_schema"]["schema"] == schema
    host.script.status = 429
    assert isinstance(client.send(request)[1], Throttled)
    with pytest.raises(Throttled):
        client.complete(request)
    client.close()
    running_gateway.close()
    assert client.__class__(running_gateway.url, "k", "m").send(request)[0] == ""


def test_parameters_of_an_arm_are_added_but_never_override(stub: Any, gateway: Any, tmp_path: Path) -> None:
    host = stub()
    running_gateway = gateway(host.url, "chat", host.url, "chat")
    running_gateway.close()
    settings = running_gateway.settings
    settings["backends"][0]["parameters"] = {"cache_prompt": False, "temperature": 0}
    again = type(running_gateway)(settings, tmp_path)
    body = {"model": "answer", "messages": [{"role": "user", "content": "hi"}], "temperature": 0.9}
    headers = {"authorization": f"Bearer {CLIENT_KEY}"}
    httpx.post(f"{again.url}/v1/chat/completions", json=body, headers=headers, trust_env=False)
    again.close()
    assert host.requests[0].json["cache_prompt"] is False
    assert host.requests[0].json["temperature"] == 0.9
