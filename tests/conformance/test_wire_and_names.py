"""Small pieces the stores stand on: S3 signatures, kept connections, Azure's metadata names, payload columns."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from time import gmtime, strftime
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from crossload.ports.errors import Invalid, Unavailable
from crossload.providers import keepalive
from crossload.providers.aws import wire
from crossload.providers.azure.names import MARK, decode, encode
from crossload.providers.postgres.payload import Columns

KEYS = ["plain.txt", "with space +%/ü/🚀", "a//b/../c/./d", "quotes'\"!*()~-._", "?#&=;:@,$"]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:8333", "https://s3.eu-central-1.amazonaws.com"])
def test_our_signature_is_botocores(key: str, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.now(UTC)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: now)
    monkeypatch.setattr(wire, "time", SimpleNamespace(time=now.timestamp, gmtime=gmtime, strftime=strftime))
    sent: dict[str, str] = {}

    def capture(
        host: tuple[str, str], method: str, target: str, headers: dict[str, str], content: bytes, into: None
    ) -> keepalive.Answer:
        sent.update(headers, url=f"{host[0]}://{host[1]}{target}")
        return keepalive.Answer(200, {}, b"", "")

    monkeypatch.setattr(wire, "send_to", capture)
    keys = Credentials("AKIDEXAMPLE", "secret/key+", "session-token")
    headers = {"x-amz-meta-note": "two  spaces", "x-amz-checksum-crc64nvme": "AAAAAAAAAAA="}
    query = {"partNumber": "7", "uploadId": "a+/= "}
    wire.Wire(endpoint, "eu-central-1", keys).ask("PUT", "bucket", key, headers, query, b"data")

    request: Any = AWSRequest("PUT", sent["url"].partition("?")[0], headers, b"data", query)
    request.context["checksum"] = {"request_algorithm": {"in": "header", "name": "x-amz-checksum-crc64nvme"}}
    request.context["has_streaming_input"] = True
    request.context["client_config"] = Config(s3={"payload_signing_enabled": False})
    S3SigV4Auth(keys, "s3", "eu-central-1").add_auth(request)
    assert sent["authorization"] == request.headers["Authorization"]
    assert sent["x-amz-content-sha256"] == request.headers["X-Amz-Content-SHA256"]
    assert sent["url"] == request.prepare().url.replace("+", "%20")


class _Brief(http.server.BaseHTTPRequestHandler):
    """Answers one request on each connection, then hangs up without a word."""

    protocol_version = "HTTP/1.1"
    connections = 0

    def do_GET(self) -> None:
        type(self).connections += 1
        body = self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def brief_server() -> Iterator[str]:
    _Brief.connections = 0
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Brief) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
    keepalive.close_idle()


def test_a_connection_closed_while_idle_is_opened_again(brief_server: str) -> None:
    for number in range(5):
        assert keepalive.send("GET", f"{brief_server}/{number}", {}).text == f"/{number}"
    assert _Brief.connections == 5


def test_nobody_answering_is_unavailable(dead_port: int) -> None:
    with pytest.raises(Unavailable):
        keepalive.send("GET", f"http://127.0.0.1:{dead_port}/", {})


def test_a_line_break_in_a_header_is_invalid(brief_server: str) -> None:
    with pytest.raises(Invalid):
        keepalive.send("GET", f"{brief_server}/", {"x-note": "a\r\nx-other: b"})


_NAMES = st.text(min_size=1, max_size=20).map(str.lower).filter(lambda name: name == name.lower())
_VALUES = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(st.dictionaries(_NAMES.filter(lambda name: name.isprintable()), _VALUES, max_size=5))
def test_azure_metadata_come_back(user: dict[str, str]) -> None:
    held = encode(user)
    assert decode(held) == user
    assert decode({name.upper(): value for name, value in held.items()}) == user
    for name, value in held.items():
        assert name.isascii() and name.isidentifier(), name
        assert value.isascii() and value.isprintable() and value.strip() == value, value


def test_plain_azure_metadata_are_left_alone() -> None:
    plain = {"owner": "helpdesk", "source_key": "a=b; c%20d"}
    assert encode(plain) == plain
    assert decode({"my_2dname": "somebody else's"}) == {"my_2dname": "somebody else's"}
    assert MARK in encode({"with-dash": "x"})


def test_columns_widen_and_never_narrow() -> None:
    columns = Columns()
    assert len(list(columns.widen({"n": 1, "t": "x"}))) == 2
    assert (columns.names, columns.types) == (["n", "t"], ["int8", "text"])
    assert not columns.fit({"n": 1.5})
    assert len(list(columns.widen({"n": 1.5}))) == 1
    assert columns.fit({"n": 7}) and columns.types == ["numeric", "text"]
    assert list(columns.widen({"n": "word"})) and columns.types == ["jsonb", "text"]
    assert columns.fit({"n": 1, "t": None})


@pytest.mark.parametrize("payload", [{"id": 1}, {"embedding": 1}, {"": 1}, {"x" * 64: 1}, {"n": float("nan")}])
def test_payloads_no_table_can_hold_are_refused(payload: dict[str, object]) -> None:
    with pytest.raises(Invalid):
        list(Columns().widen(payload))
