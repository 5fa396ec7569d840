"""A stub model host that speaks both wires (written without our codecs), and a gateway run in a thread."""

from __future__ import annotations

import json
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.config import Config

sys.path.insert(0, str(Path(__file__).resolve().parent))

from gateway_clients import ADMIN_TOKEN, CLIENT_KEY, MIRROR_KEY

from crossload.engines.gateway.config import parse_config
from crossload.engines.gateway.control import GatewayControl
from crossload.engines.gateway.keys import signing_pair
from crossload.engines.gateway.server import Gateway, serve


def frame(event_type: str, payload: dict[str, Any], message_type: str = "event") -> bytes:
    """A binary event-stream frame, built here independently of the code under test."""
    name = ":event-type" if message_type == "event" else ":exception-type"
    headers = b""
    for key, value in ((name, event_type), (":content-type", "application/json"), (":message-type", message_type)):
        headers += struct.pack(">B", len(key)) + key.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
    body = json.dumps(payload).encode()
    prelude = struct.pack(">II", 16 + len(headers) + len(body), len(headers))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + body
    return message + struct.pack(">I", zlib.crc32(message))


@dataclass
class Script:
    """What the stub answers. `cut_after` breaks the connection after so many pieces of a stream."""

    words: tuple[str, ...] = ("Hello", ",", " wörld", " 🙂")
    call: tuple[str, str] | None = None
    status: int = 200
    error: dict[str, Any] = field(default_factory=lambda: {"message": "no"})
    delay_seconds: float = 0.0
    word_delay_seconds: float = 0.0
    cut_after: int | None = None
    usage: bool = True
    stop: str = "stop"
    headers: dict[str, str] = field(default_factory=dict)
    whole_for_stream: bool = False


_CHAT_STOP = {"stop": "stop", "length": "length", "tool": "tool_calls"}
_CONVERSE_STOP = {"stop": "end_turn", "length": "max_tokens", "tool": "tool_use"}


class Stub:
    def __init__(self) -> None:
        self.script = Script()
        self.requests: list[SimpleNamespace] = []
        self.broken_pipes = 0
        self.connections = 0
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 0
            disable_nagle_algorithm = True

            def setup(self) -> None:
                stub.connections += 1
                super().setup()

            def log_message(self, format: str, *args: Any) -> None: ...

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                stub.requests.append(
                    SimpleNamespace(path=self.path, headers=headers, body=body, json=json.loads(body or b"{}"))
                )
                try:
                    stub.answer(self, stub.requests[-1])
                except (BrokenPipeError, ConnectionResetError):
                    stub.broken_pipes += 1
                    self.close_connection = True

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None: ...

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, handler: BaseHTTPRequestHandler, request: SimpleNamespace) -> None:
        script = self.script
        time.sleep(script.delay_seconds)
        converse = request.path.startswith("/model/")
        stream = request.path.endswith("-stream") if converse else bool(request.json.get("stream"))
        if script.status != 200:
            body = script.error if converse else {"error": script.error}
            return self.whole(handler, script.status, json.dumps(body).encode())
        if not stream or script.whole_for_stream:
            value = self.converse_answer() if converse else self.chat_answer(request)
            return self.whole(handler, 200, json.dumps(value).encode())
        handler.send_response(200)
        kind = "application/vnd.amazon.eventstream" if converse else "text/event-stream; charset=utf-8"
        handler.send_header("content-type", kind)
        handler.send_header("transfer-encoding", "chunked")
        handler.end_headers()
        pieces = self.converse_pieces() if converse else self.chat_pieces(request)
        for number, piece in enumerate(pieces):
            if script.cut_after is not None and number >= script.cut_after:
                handler.connection.close()
                raise ConnectionResetError
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            time.sleep(script.word_delay_seconds)
        handler.wfile.write(b"0\r\n\r\n")
        return None

    def whole(self, handler: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
        handler.send_response(status)
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", str(len(body)))
        for name, value in self.script.headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    def chat_usage(self) -> dict[str, Any]:
        return {
            "prompt_tokens": 11,
            "completion_tokens": 4,
            "total_tokens": 15,
            "prompt_tokens_details": {"cached_tokens": 3},
        }

    def chat_answer(self, request: SimpleNamespace) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self.script.words)}
        if self.script.call:
            name, arguments = self.script.call
            message["tool_calls"] = [
                {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}
            ]
        choice = {"index": 0, "message": message, "finish_reason": _CHAT_STOP[self.script.stop]}
        value = {
            "id": "x",
            "object": "chat.completion",
            "created": 1,
            "model": request.json["model"],
            "choices": [choice],
        }
        return {**value, "usage": self.chat_usage()} if self.script.usage else value

    def chat_pieces(self, request: SimpleNamespace) -> Iterator[bytes]:
        def chunk(choices: list[Any], **more: Any) -> bytes:
            value = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": request.json["model"]}
            return b"data: " + json.dumps({**value, "choices": choices, **more}).encode() + b"\n\n"

        yield chunk([{"index": 0, "delta": {"role": "assistant", "content": None}, "finish_reason": None}])
        for word in self.script.words:
            yield chunk([{"index": 0, "delta": {"content": word}, "finish_reason": None}])
        if self.script.call:
            name, arguments = self.script.call
            head = {"index": 0, "id": "c1", "type": "function", "function": {"name": name, "arguments": ""}}
            yield chunk([{"index": 0, "delta": {"tool_calls": [head]}, "finish_reason": None}])
            for letter in arguments:
                piece = {"index": 0, "function": {"arguments": letter}}
                yield chunk([{"index": 0, "delta": {"tool_calls": [piece]}, "finish_reason": None}])
        yield chunk([{"index": 0, "delta": {}, "finish_reason": _CHAT_STOP[self.script.stop]}])
        if self.script.usage and request.json.get("stream_options", {}).get("include_usage"):
            yield chunk([], usage=self.chat_usage())
        yield b"data: [DONE]\n\n"

    def converse_usage(self) -> dict[str, Any]:
        return {"inputTokens": 8, "outputTokens": 4, "totalTokens": 15, "cacheReadInputTokens": 3}

    def converse_answer(self) -> dict[str, Any]:
        content: list[dict[str, Any]] = [{"text": "".join(self.script.words)}]
        if self.script.call:
            name, arguments = self.script.call
            content.append({"toolUse": {"toolUseId": "c1", "name": name, "input": json.loads(arguments)}})
        value = {
            "output": {"message": {"role": "assistant", "content": content}},
            "stopReason": _CONVERSE_STOP[self.script.stop],
            "metrics": {"latencyMs": 7},
        }
        return {**value, "usage": self.converse_usage()} if self.script.usage else value

    def converse_pieces(self) -> Iterator[bytes]:
        yield frame("messageStart", {"role": "assistant"})
        for word in self.script.words:
            yield frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": word}})
        yield frame("contentBlockStop", {"contentBlockIndex": 0})
        if self.script.call:
            name, arguments = self.script.call
            start = {"toolUse": {"toolUseId": "c1", "name": name}}
            yield frame("contentBlockStart", {"contentBlockIndex": 1, "start": start})
            for letter in arguments:
                yield frame("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"toolUse": {"input": letter}}})
            yield frame("contentBlockStop", {"contentBlockIndex": 1})
        yield frame("messageStop", {"stopReason": _CONVERSE_STOP[self.script.stop]})
        if self.script.usage:
            yield frame("metadata", {"usage": self.converse_usage(), "metrics": {"latencyMs": 7}})


@pytest.fixture
def stub() -> Iterator[Callable[[], Stub]]:
    """A factory of stub model hosts."""
    made: list[Stub] = []

    def make() -> Stub:
        made.append(Stub())
        return made[-1]

    yield make
    for one in made:
        one.close()


class Running:
    """A gateway in a thread of this process."""

    def __init__(self, settings: dict[str, Any], home: Path) -> None:
        self.settings = settings
        self.home = home
        self.gateway: Gateway
        self._stop = threading.Event()
        self._failed: list[BaseException] = []
        ready = threading.Event()

        def run() -> None:
            try:
                serve(
                    parse_config(settings, home),
                    lambda gateway: (setattr(self, "gateway", gateway), ready.set()),
                    self._stop,
                )
            except BaseException as error:  # noqa: BLE001
                self._failed.append(error)
                ready.set()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        assert ready.wait(10)
        if self._failed:
            raise self._failed[0]
        self.url = self.gateway.url
        self.control = GatewayControl(self.url, ADMIN_TOKEN)

    def close(self) -> None:
        self._stop.set()
        self._thread.join(15)
        assert not self._thread.is_alive()

    def log_rows(self, count: int) -> list[dict[str, Any]]:
        """The request log, once it has at least `count` rows."""
        path = self.home / "requests.jsonl"
        until = time.monotonic() + 5
        rows: list[str] = []
        while time.monotonic() < until and len(rows) < count:
            rows = path.read_text().splitlines() if path.exists() else []
            time.sleep(0.02)
        return [json.loads(row) for row in rows]


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Running]]:
    """A factory: `gateway(source_url, "chat", target_url, "converse", weights=..., ...)`."""
    monkeypatch.setenv("GW_CLIENT_KEY", CLIENT_KEY)
    monkeypatch.setenv("GW_MIRROR_KEY", MIRROR_KEY)
    monkeypatch.setenv("GW_ADMIN", ADMIN_TOKEN)
    monkeypatch.setenv("GW_UP_ID", "AKIDUPSTREAM")
    monkeypatch.setenv("GW_UP_SECRET", "upstream-secret")
    monkeypatch.setenv("GW_UP_KEY", "upstream-bearer")
    made: list[Running] = []

    def backend(arm: str, url: str, wire: str) -> dict[str, Any]:
        credentials = {"key": "env:GW_UP_KEY"}
        if wire == "converse":
            credentials = {
                "access_key_id": "env:GW_UP_ID",
                "secret_access_key": "env:GW_UP_SECRET",
                "region": "eu-west-1",
            }
        base = f"{url}/v1" if wire == "chat" else url
        return {"arm": arm, "wire": wire, "base_url": base, "model": f"model:{arm}", "credentials": credentials}

    def make(source: str, source_wire: str, target: str, target_wire: str, **settings: Any) -> Running:
        value = {
            "backends": [backend("source", source, source_wire), backend("target", target, target_wire)],
            "clients": [
                {"name": "app", "key": "env:GW_CLIENT_KEY"},
                {"name": "mirror", "key": "env:GW_MIRROR_KEY", "may_choose_arm": True},
            ],
            "admin_token": "env:GW_ADMIN",
            **settings,
        }
        made.append(Running(value, tmp_path))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(scope="session")
def bedrock_client() -> Any:
    """Building a client of this SDK takes long: one factory that reuses the loaded model."""
    session = boto3.Session()

    def make(url: str, key: str = CLIENT_KEY, timeout_seconds: float = 20) -> Any:
        key_id, secret = signing_pair(key)
        return session.client(
            "bedrock-runtime", endpoint_url=url, region_name="eu-west-1", aws_access_key_id=key_id,
            aws_secret_access_key=secret,
            config=Config(retries={"total_max_attempts": 1}, read_timeout=timeout_seconds),
        )  # fmt: skip

    return make
