"""What the probes really send: raw paths byte for byte, signatures by the book, tokens wrong in exactly one way."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from crossload.estate.place import Place
from crossload.ports.errors import Invalid, NotSignedIn, Unavailable
from crossload.ports.probe import DELETE, EXPIRED, FORGED, LIST, NONE, OWN, READ, UNSIGNED, WRITE, WRONG_AUDIENCE
from crossload.ports.provider import Settings
from crossload.providers.aws.probe import Keys, Signing, sign
from crossload.providers.aws.probe import open_probe as open_aws
from crossload.providers.gcp.probe import open_probe as open_gcp
from crossload.providers.gcp.session import forget_tokens
from crossload.providers.raw import exchange, post_form


@dataclass
class Wire:
    """A socket that keeps what it was sent and answers from a list (the last answer for ever)."""

    port: int
    heard: list[bytes] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=lambda: [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def line(self) -> str:
        return self.heard[-1].split(b"\r\n")[0].decode()

    def header(self, name: str) -> str:
        for raw in self.heard[-1].split(b"\r\n\r\n")[0].decode().split("\r\n")[1:]:
            key, _, value = raw.partition(":")
            if key.lower() == name:
                return value.strip()
        return ""


def _whole(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.lower().startswith(b"content-length")), 0)
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


@pytest.fixture
def wire() -> Iterator[Wire]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        held = Wire(server.getsockname()[1])
        stop = threading.Event()
        server.settimeout(0.1)

        def serve() -> None:
            while not stop.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                with connection:
                    connection.settimeout(5)
                    held.heard.append(_whole(connection))
                    answer = held.answers.pop(0) if len(held.answers) > 1 else held.answers[0]
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield held
        stop.set()
        thread.join()


def _answer(body: bytes, status: str = "200 OK", extra: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\n{extra}Content-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize("path", ["/b/../../other/o", "/b/%2e%2e/x", "//x", "/a%2Fb?alt=media", "/./x", "/x/..%5cy"])
def test_paths_go_out_byte_for_byte(wire: Wire, path: str) -> None:
    answer = exchange(wire.url, "GET", path, {}, b"")
    assert wire.line() == f"GET {path} HTTP/1.1"
    assert answer.status == 200
    assert answer.line == f"GET {path}"


def test_a_path_that_would_break_the_request_line_is_refused(wire: Wire) -> None:
    with pytest.raises(Invalid):
        exchange(wire.url, "GET", "/a b\r\nX: y", {}, b"")
    assert not wire.heard


def test_silence_and_nonsense(wire: Wire, dead_port: int) -> None:
    wire.answers = [b"nonsense\r\n\r\n"]
    assert exchange(wire.url, "GET", "/", {}, b"").status is None
    with pytest.raises(Unavailable):
        exchange(f"http://127.0.0.1:{dead_port}", "GET", "/", {}, b"")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/docs?list-type=2&max-keys=1"), ("GET", "/docs?max-keys=1&versions="), ("PUT", "/docs/a/one.txt"),
     ("DELETE", "/docs/k%20%C3%BC?versionId=abc")],
)  # fmt: skip
def test_signature_is_the_one_the_official_sdk_makes(monkeypatch: pytest.MonkeyPatch, method: str, path: str) -> None:
    from botocore import auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    when = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
    monkeypatch.setattr(auth, "get_current_datetime", lambda *_, **__: when)
    body = b"data" if method == "PUT" else b""
    keys = Keys("AKIDEXAMPLE", "secret/EXAMPLE", "session-token")
    request = AWSRequest(method, f"http://127.0.0.1:9000{path}", data=body)
    request.context["payload_signing_enabled"] = True
    request.context["timestamp"] = when.strftime("%Y%m%dT%H%M%SZ")
    signer = auth.S3SigV4Auth(Credentials(keys.id, keys.secret, keys.token), "s3", "eu-central-1")
    signer.add_auth(request)
    theirs = str(request.headers["Authorization"])
    digest = str(request.headers["X-Amz-Content-SHA256"])
    ours = sign(method, path, "127.0.0.1:9000", digest, Signing(keys, "eu-central-1", at=when))["Authorization"]
    assert ours == theirs


def _aws(wire: Wire, tmp_path: Any) -> Any:
    config = tmp_path / "config"
    config.write_text(f"[profile own]\nservices = x\n[profile aud]\n[services x]\ns3 =\n  endpoint_url = {wire.url}\n")
    credentials = tmp_path / "credentials"
    credentials.write_text(
        "[own]\naws_access_key_id = AKIAOWN\naws_secret_access_key = s1\n"
        "[aud]\naws_access_key_id = AKIAAUD\naws_secret_access_key = s2\n"
    )
    connection = {
        "config_file": str(config), "credentials_file": str(credentials), "profile": "own", "profile@audit": "aud",
        "profile@return": "own", "profile@freeze": "own", "profile@app": "nobody-has-it",
    }  # fmt: skip
    return open_aws(Settings(Place("a", "aws", "eu-central-1"), connection, {}))


def test_object_store_probe_credentials(wire: Wire, tmp_path: Any) -> None:
    probe = _aws(wire, tmp_path)
    assert probe.identities() == ("app", "audit"), "the migration's own identities are not the workload's"
    able = probe.credentials()
    assert able["app"], "a profile that does not exist cannot be tried"
    assert not any(able[name] for name in (OWN, NONE, EXPIRED, FORGED, UNSIGNED, WRONG_AUDIENCE, "audit"))
    probe.request(LIST, "docs", "", NONE)
    assert wire.header("authorization") == ""
    probe.request(LIST, "docs", "", "audit")
    assert "Credential=AKIAAUD/" in wire.header("authorization")
    probe.request(LIST, "docs", "", UNSIGNED)
    assert wire.header("authorization").endswith("Signature=")
    probe.request(LIST, "docs", "", WRONG_AUDIENCE)
    assert "/sqs/aws4_request" in wire.header("authorization")
    probe.request(LIST, "docs", "", EXPIRED)
    stamp = datetime.strptime(wire.header("x-amz-date"), "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    assert (datetime.now(UTC) - stamp).total_seconds() > 16 * 60
    probe.request(LIST, "docs", "", OWN)
    own = wire.header("authorization")
    probe.request(LIST, "docs", "", FORGED)
    assert "Credential=AKIAOWN/" in wire.header("authorization")
    assert wire.header("authorization") != own


def test_object_store_probe_is_harmless_when_asked(wire: Wire, tmp_path: Any) -> None:
    probe = _aws(wire, tmp_path)
    probe.request(WRITE, "docs", "k", OWN, harmless=True, body=b"x")
    assert wire.header("if-match") == '"0"'
    with pytest.raises(Invalid):
        probe.request(DELETE, "docs", "k", OWN)
    wire.answers = [_answer(b"", extra="x-amz-version-id: v7\r\n")]
    assert probe.request(WRITE, "docs", "k", OWN, body=b"x").version == "v7"
    probe.remove("docs", "k", "v7")
    assert wire.line() == "DELETE /docs/k?versionId=v7 HTTP/1.1"


def _b64(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def _part(token: str, index: int) -> Any:
    raw = token.split(".")[index]
    return json.loads(base64.urlsafe_b64decode(raw + "=" * (-len(raw) % 4)))


def _token(**claims: object) -> str:
    return f"{_b64({'alg': 'RS256', 'kid': 'k1'})}.{_b64({'sub': 'mover', 'exp': time.time() + 900, **claims})}.c2ln"


def _gcp(wire: Wire, **more: str) -> Any:
    connection = {
        "endpoint": wire.url, "issuer": wire.url, "client_id": "mover", "client_secret": "s", "audience": "lab",
        "client_id@stranger": "stranger", "client_secret@stranger": "t", **more,
    }  # fmt: skip
    return open_gcp(Settings(Place(f"b{wire.port}", "gcp", "europe-west3"), connection, {}))


def _issue(wire: Wire, *tokens: str) -> None:
    wire.answers = [*(_answer(json.dumps({"access_token": token}).encode()) for token in tokens), _answer(b"{}")]


def test_bearer_probe_forges_by_the_book(wire: Wire) -> None:
    own = _token()
    _issue(wire, own)
    probe = _gcp(wire)
    assert probe.identities() == ("stranger",)
    probe.request(LIST, "docs", "", OWN)
    assert wire.header("authorization") == f"Bearer {own}"
    probe.request(READ, "docs", "a/b", FORGED)
    forged = wire.header("authorization").removeprefix("Bearer ")
    assert _part(forged, 0)["kid"] == "k1", "the key id is the issuer's, so that a sloppy server takes it for its own"
    assert _part(forged, 1)["sub"] == "mover"
    assert forged.split(".")[2] != own.split(".")[2]
    assert len(forged.split(".")[2]) > 300, "a real RSA signature, by a key that is not the issuer's"
    assert wire.line() == "GET /storage/v1/b/docs/o/a%2Fb?alt=media HTTP/1.1"
    probe.request(READ, "docs", "a", UNSIGNED)
    unsigned = wire.header("authorization").removeprefix("Bearer ")
    assert _part(unsigned, 0)["alg"] == "none"
    assert unsigned.endswith(".")
    assert _part(unsigned, 1) == _part(own, 1)
    probe.request(READ, "docs", "a", NONE)
    assert wire.header("authorization") == ""


def test_bearer_probe_asks_the_issuer_for_tokens_that_are_wrong(wire: Wire) -> None:
    ended, foreign = _token(exp=time.time() - 120), _token(aud="urn:crossload:another-service")
    _issue(wire, ended)
    probe = _gcp(wire)
    probe.request(LIST, "docs", "", EXPIRED)
    assert wire.header("authorization") == f"Bearer {ended}"
    assert b"expires_in=-120" in wire.heard[-2]
    _issue(wire, foreign)
    probe.request(LIST, "docs", "", WRONG_AUDIENCE)
    assert wire.header("authorization") == f"Bearer {foreign}"


def test_bearer_probe_says_why_a_token_cannot_be_made(wire: Wire) -> None:
    _issue(wire, _token(), _token(), _token())
    wire.answers = [_answer(json.dumps({"access_token": _token()}).encode())]
    able = _gcp(wire).credentials()
    assert "ends within seconds" in able[EXPIRED], "an issuer that ignores expires_in gives no expired token"
    assert "audience" in able[WRONG_AUDIENCE]
    wire.answers = [_answer(b"no", "401 Unauthorized")]
    forget_tokens()
    denied = _gcp(wire, **{"client_id": "other"}).credentials()
    assert all(denied[name] for name in (OWN, EXPIRED, FORGED, UNSIGNED, WRONG_AUDIENCE, "stranger"))
    assert denied[NONE] == ""


def test_bearer_probe_is_harmless_when_asked(wire: Wire) -> None:
    _issue(wire, _token())
    probe = _gcp(wire)
    probe.request(WRITE, "docs", "k", OWN, harmless=True)
    assert wire.line().startswith("POST /upload/storage/v1/b/docs/o?uploadType=media&name=k&ifGenerationMatch=1 ")
    probe.request(DELETE, "docs", "k", OWN, harmless=True)
    assert wire.line().startswith("DELETE /storage/v1/b/docs/o/k?ifGenerationMatch=1 ")
    with pytest.raises(Invalid):
        probe.request(DELETE, "docs", "k", OWN)
    wire.answers = [_answer(b'{"generation":"42"}')]
    assert probe.request(WRITE, "docs", "k", OWN, body=b"x").version == "42"
    wire.answers = [_answer(b"", "204 No Content")]
    assert probe.remove("docs", "k", "42") is True
    assert wire.line() == "DELETE /storage/v1/b/docs/o/k?generation=42 HTTP/1.1"
    wire.answers = [_answer(b"", "403 Forbidden")]
    assert probe.remove("docs", "k", "42") is False


def test_token_endpoint_never_shows_its_answer(wire: Wire) -> None:
    wire.answers = [_answer(b'{"access_token":"sesame"}', "400 Bad Request")]
    with pytest.raises(NotSignedIn) as caught:
        post_form(f"{wire.url}/token", {"client_secret": "hush"})
    assert "sesame" not in str(caught.value)
    assert "hush" not in str(caught.value)
