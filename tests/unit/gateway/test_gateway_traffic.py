"""Routing, failover, limits, cancel, and the admin door, on a live gateway with stub hosts."""

from __future__ import annotations

import datetime
import ipaddress
import json
import random
import re
import socket
import ssl
import threading
import time
from typing import Any

import httpx
import pytest
from gateway_clients import CLIENT_KEY, MIRROR_KEY, http

from crossload.engines.gateway.control import GatewayControl
from crossload.ports.errors import Invalid, NotSignedIn, PreconditionFailed

BODY = {"model": "answer", "messages": [{"role": "user", "content": "secret-prompt-text"}]}
PATH = "/v1/chat/completions"


@pytest.fixture
def dead_host(dead_port: int) -> str:
    return f"http://127.0.0.1:{dead_port}"


def test_weights_split_traffic_and_sessions_stick(stub: Any, gateway: Any) -> None:
    source, target = stub(), stub()
    running = gateway(source.url, "chat", target.url, "chat", weights={"source": 70, "target": 30})
    with http(running.url) as client:
        arms = [client.post(PATH, json=BODY).headers["x-crossload-arm"] for _ in range(300)]
        assert 50 <= arms.count("target") <= 130
        assert len(target.requests) == arms.count("target")
        before = {
            n: client.post(PATH, json=BODY, headers={"x-session-id": f"s{n}"}).headers["x-crossload-arm"]
            for n in range(60)
        }
        again = {
            n: client.post(PATH, json=BODY, headers={"x-session-id": f"s{n}"}).headers["x-crossload-arm"]
            for n in range(60)
        }
        assert before == again
        assert {"source", "target"} == set(before.values())
        running.control.set_target_percent(60)
        after = {
            n: client.post(PATH, json=BODY, headers={"x-session-id": f"s{n}"}).headers["x-crossload-arm"]
            for n in range(60)
        }
    # Raising the weight moves sessions one way only.
    assert all(after[n] == "target" for n in before if before[n] == "target")
    assert sum(arm == "target" for arm in after.values()) > sum(arm == "target" for arm in before.values())


def test_weights_change_at_once_and_are_checked(stub: Any, gateway: Any) -> None:
    source, target = stub(), stub()
    running = gateway(source.url, "chat", target.url, "chat")
    control = running.control
    assert control.routes()["weights"] == {"source": 100, "target": 0}
    assert control.set_weights({"source": 0, "target": 100})["epoch"] == 1
    with http(running.url) as client:
        assert {client.post(PATH, json=BODY).headers["x-crossload-arm"] for _ in range(20)} == {"target"}
    for wrong in ({"source": 50, "target": 49}, {"target": 100}, {"source": -5, "target": 105}, {"a": 1}):
        with pytest.raises(Invalid):
            control.set_weights(wrong)
    with pytest.raises(PreconditionFailed):
        control.set_weights({"source": 100, "target": 0}, if_epoch=0)
    assert control.set_weights({"source": 50, "target": 50}, if_epoch=1)["epoch"] == 2
    state = json.loads((running.home / "gateway-state.json").read_text())
    assert state["weights"] == {"source": 50, "target": 50}


def test_admin_needs_its_own_token(stub: Any, gateway: Any) -> None:
    host = stub()
    running = gateway(host.url, "chat", host.url, "chat")
    for token in ("", CLIENT_KEY, "x" * 30):
        with pytest.raises(NotSignedIn):
            GatewayControl(running.url, token).set_target_percent(100)
    with http(running.url) as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.get("/v1/models").json()["data"][0]["id"] == "model:source"
        assert client.get("/nowhere").status_code == 404
        assert client.get(PATH).status_code == 405
    assert httpx.get(f"{running.url}/v1/models", trust_env=False).status_code == 401


def test_only_a_trusted_key_may_choose_the_arm(stub: Any, gateway: Any) -> None:
    source, target = stub(), stub()
    running = gateway(source.url, "chat", target.url, "chat")
    wants = {"x-crossload-arm": "target"}
    with http(running.url) as client:
        assert client.post(PATH, json=BODY, headers=wants).status_code == 403
    with http(running.url, MIRROR_KEY) as client:
        assert client.post(PATH, json=BODY, headers=wants).headers["x-crossload-arm"] == "target"
    assert running.control.metrics()["arms"]["target"]["pinned"] == 1


def test_a_dead_target_falls_back_to_the_source_and_says_so(stub: Any, gateway: Any, dead_host: str) -> None:
    source = stub()
    running = gateway(source.url, "chat", dead_host, "converse", weights={"source": 0, "target": 100})
    with http(running.url) as client:
        answer = client.post(PATH, json=BODY)
        assert answer.status_code == 200
        assert answer.headers["x-crossload-arm"] == "source"
        assert answer.headers["x-crossload-failed-over"] == "target"
        stream = client.post(PATH, json={**BODY, "stream": True})
        assert stream.text.rstrip().endswith("[DONE]")
    arms = running.control.metrics()["arms"]
    assert arms["target"]["failovers_from"] == arms["source"]["failovers_to"] == 2
    assert [row["failed_over_from"] for row in running.log_rows(2)] == ["target", "target"]


def test_a_dead_source_does_not_fall_forward_by_default(stub: Any, gateway: Any, dead_host: str) -> None:
    target = stub()
    running = gateway(dead_host, "chat", target.url, "chat")
    with http(running.url) as client:
        answer = client.post(PATH, json=BODY)
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "unavailable"
    assert answer.headers["retry-after"] == "1"
    assert target.requests == []


def test_a_busy_target_is_left_and_a_named_arm_is_not(stub: Any, gateway: Any) -> None:
    source, target = stub(), stub()
    target.script.status = 503
    running = gateway(source.url, "chat", target.url, "chat", weights={"source": 0, "target": 100})
    with http(running.url) as client:
        assert client.post(PATH, json=BODY).headers["x-crossload-failed-over"] == "target"
    with http(running.url, MIRROR_KEY) as client:
        pinned = client.post(PATH, json=BODY, headers={"x-crossload-arm": "target"})
    assert pinned.status_code == 503
    assert "x-crossload-failed-over" not in pinned.headers


@pytest.mark.parametrize(
    ("status", "seen", "kind"),
    [(429, 429, "throttled"), (400, 400, "invalid"), (401, 502, "bad_upstream"), (500, 502, "bad_upstream")],
)
def test_upstream_errors_come_in_the_doors_shape(stub: Any, gateway: Any, status: int, seen: int, kind: str) -> None:
    host = stub()
    host.script.status, host.script.headers = status, {"retry-after": "7"}
    running = gateway(host.url, "converse", host.url, "chat")
    with http(running.url) as client:
        answer = client.post(PATH, json=BODY)
    assert answer.status_code == seen
    assert answer.json()["error"]["code"] == kind
    assert answer.headers["retry-after"] == "7"


def test_no_log_row_and_no_metric_holds_a_prompt_an_answer_or_a_key(stub: Any, gateway: Any) -> None:
    host = stub()
    running = gateway(host.url, "chat", host.url, "converse", weights={"source": 50, "target": 50})
    with http(running.url) as client:
        for _ in range(10):
            client.post(PATH, json=BODY, headers={"x-session-id": "session-of-a-person"})
            client.post(PATH, json={**BODY, "stream": True})
    assert len(running.log_rows(20)) == 20
    kept = (running.home / "requests.jsonl").read_text() + json.dumps(running.control.metrics())
    kept += (running.home / "gateway-state.json").read_text()
    for secret in (
        "secret-prompt-text",
        "rld",
        CLIENT_KEY,
        "upstream-bearer",
        "upstream-secret",
        "session-of-a-person",
    ):
        assert secret not in kept


def test_a_client_that_leaves_ends_the_upstream_call(stub: Any, gateway: Any) -> None:
    host = stub()
    host.script.words, host.script.word_delay_seconds = ("x",) * 400, 0.01
    running = gateway(host.url, "converse", host.url, "chat")
    with http(running.url) as client, client.stream("POST", PATH, json={**BODY, "stream": True}) as answer:
        next(answer.iter_raw())
    until = time.monotonic() + 3
    while not host.broken_pipes and time.monotonic() < until:
        time.sleep(0.01)
    assert host.broken_pipes == 1
    arm = running.control.metrics()["arms"]["source"]
    assert arm["aborted"] == 1
    assert running.control.metrics()["active"] == 0


def test_a_client_that_leaves_a_whole_answer_ends_it_too(stub: Any, gateway: Any) -> None:
    host = stub()
    host.script.delay_seconds = 1.0
    running = gateway(host.url, "chat", host.url, "chat")
    with pytest.raises(httpx.ReadTimeout), http(running.url) as client:
        client.post(PATH, json=BODY, timeout=0.2)
    until = time.monotonic() + 3
    while running.control.metrics()["arms"]["source"]["aborted"] == 0 and time.monotonic() < until:
        time.sleep(0.02)
    assert running.control.metrics()["arms"]["source"]["aborted"] == 1


@pytest.mark.parametrize("wire", ["chat", "converse"])
def test_a_stream_cut_in_the_middle_is_never_a_finished_one(stub: Any, gateway: Any, wire: str) -> None:
    host = stub()
    host.script.cut_after = 3
    running = gateway(host.url, wire, host.url, wire)
    with http(running.url) as client:
        try:
            text = client.post(PATH, json={**BODY, "stream": True}).text
        except httpx.RemoteProtocolError:
            assert wire == "chat"  # passed untouched: only a broken transfer can tell
        else:
            assert wire == "converse"
            assert "[DONE]" not in text
            assert "error" in text.splitlines()[-2]
    assert running.control.metrics()["arms"]["source"]["failures"] == 1


def test_a_silent_host_times_out_and_turns(stub: Any, gateway: Any) -> None:
    source, target = stub(), stub()
    target.script.delay_seconds = 3
    running = gateway(
        source.url,
        "chat",
        target.url,
        "chat",
        weights={"source": 0, "target": 100},
        timeouts={"first_byte_seconds": 0.3},
    )
    with http(running.url) as client:
        answer = client.post(PATH, json=BODY)
    assert answer.headers["x-crossload-failed-over"] == "target"


def raw(url: str, data: bytes, pause_seconds: float = 0.0, hang_up: bool = False) -> bytes:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as one:
        for at in range(0, len(data), 7) if pause_seconds else (0,):
            one.sendall(data[at : at + 7] if pause_seconds else data)
            time.sleep(pause_seconds)
        if hang_up:
            one.shutdown(socket.SHUT_WR)
        found = b""
        while piece := one.recv(65536):
            found += piece
        return found


def post(body: bytes, close: bool = True, path: str = PATH) -> bytes:
    end = b"connection: close\r\n" if close else b""
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {CLIENT_KEY}\r\ncontent-length: {len(body)}\r\n"
    return head.encode() + end + b"\r\n" + body


def test_pipelined_requests_are_answered_in_order(stub: Any, gateway: Any) -> None:
    host = stub()
    running = gateway(host.url, "chat", host.url, "chat")
    body = json.dumps(BODY).encode()
    data = (
        b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
        + post(body, close=False)
        + b"GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n"
    )
    data += post(body)
    found = raw(running.url, data)
    assert re.findall(rb"HTTP/1.1 (\d+) ", found) == [b"200", b"200", b"404", b"200"]


def test_requests_in_drips_and_chunks(stub: Any, gateway: Any) -> None:
    host = stub()
    running = gateway(host.url, "chat", host.url, "chat")
    body = json.dumps(BODY).encode()
    assert raw(running.url, post(body), 0.001).startswith(b"HTTP/1.1 200")
    head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {CLIENT_KEY}\r\ntransfer-encoding: chunked\r\n"
    pieces = b"".join(b"%x\r\n%b\r\n" % (1, body[at : at + 1]) for at in range(len(body)))
    assert raw(running.url, head.encode() + b"connection: close\r\n\r\n" + pieces + b"0\r\n\r\n").startswith(
        b"HTTP/1.1 200"
    )


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"rubbish\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost x\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-long: " + b"a" * 40_000 + b"\r\n\r\n", 431),
        (b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999\r\n\r\n", 413),
        (b"POST /model/m/converse HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n", 404),
    ],
)
def test_what_cannot_be_read_is_answered_and_closed(stub: Any, gateway: Any, data: bytes, status: int) -> None:
    host = stub()
    running = gateway(host.url, "chat", host.url, "chat", limits={"body_bytes_max": 100_000})
    found = raw(running.url, data)
    head, _, body = found.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status}".encode()), found[:200]
    assert b"connection: close" in head
    assert json.loads(body)
    assert (b"x-amzn-errortype" in head) == (b"/model/" in data)
    assert running.control.healthy()


def test_random_bytes_never_stop_the_gateway(stub: Any, gateway: Any) -> None:
    host = stub()
    running = gateway(host.url, "chat", host.url, "chat")
    rng = random.Random(3)
    good = post(json.dumps(BODY).encode())
    for _ in range(60):
        data = bytearray(good)
        for _ in range(rng.randrange(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        found = raw(running.url, bytes(data), hang_up=True)
        assert not found or found.startswith(b"HTTP/1.1 ")
    assert running.control.metrics()["active"] == 0
    assert raw(running.url, good).startswith(b"HTTP/1.1 200")


def test_a_slow_request_is_told_so(stub: Any, gateway: Any) -> None:
    host = stub()
    running = gateway(host.url, "chat", host.url, "chat", timeouts={"request_seconds": 0.3})
    host_name, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((host_name, int(port)), timeout=10) as one:
        one.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-le")
        assert one.recv(65536).startswith(b"HTTP/1.1 408")


def answer_once(connection: socket.socket, name: str) -> None:
    connection.recv(65536)
    message = {"role": "assistant", "content": "x"}
    body = json.dumps({"id": name, "choices": [{"message": message, "finish_reason": "stop"}]}).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    connection.sendall(head + body)


@pytest.mark.parametrize("dies_again", [False, True])
def test_a_stale_connection_is_tried_again_once(gateway: Any, dead_host: str, dies_again: bool) -> None:
    """The host hangs up on a kept connection just as it is used: the next try is on a fresh one, and only once."""

    def host(listener: socket.socket) -> None:
        first, _ = listener.accept()
        with first:
            answer_once(first, "first")
            first.recv(65536)  # the second request arrives, and is never answered
        second, _ = listener.accept()
        with second:
            second.recv(65536) if dies_again else answer_once(second, "fresh")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=host, args=(listener,), daemon=True)
        thread.start()
        running = gateway(url, "chat", dead_host, "chat")
        with http(running.url) as client:
            assert client.post(PATH, json=BODY).json()["id"] == "first"
            answer = client.post(PATH, json=BODY)
        thread.join(5)
        assert not thread.is_alive()
    assert answer.status_code == (503 if dies_again else 200)
    if not dies_again:
        assert answer.json()["id"] == "fresh"


def test_weight_swap_under_many_streams_drops_none(stub: Any, gateway: Any) -> None:
    source, target = stub(), stub()
    for one in (source, target):
        one.script.words, one.script.word_delay_seconds = ("x",) * 20, 0.005
    running = gateway(source.url, "chat", target.url, "converse", weights={"source": 50, "target": 50})
    done: list[bool] = []

    def work() -> None:
        with http(running.url) as client:
            for _ in range(5):
                text = client.post(PATH, json={**BODY, "stream": True}).text
                done.append(
                    text.rstrip().endswith("[DONE]")
                    and text.count('"content":"x"') + text.count('"content": "x"') == 20
                )

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for percent in (0, 100, 30, 70, 100, 0) * 3:
        running.control.set_target_percent(percent)
        time.sleep(0.03)
    for thread in threads:
        thread.join(30)
    assert done == [True] * 60


def test_a_client_that_does_not_read_holds_the_host_back(stub: Any, gateway: Any) -> None:
    host = stub()
    host.script.words = ("x" * 50_000,) * 400  # 20 MB, were it let through
    running = gateway(host.url, "converse", host.url, "chat", timeouts={"between_bytes_seconds": 1.5})
    body = json.dumps({**BODY, "stream": True}).encode()
    name, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((name, int(port)), timeout=10) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        one.sendall(post(body))
        time.sleep(0.8)
        (client,) = running.gateway._clients
        held = client._transport.get_write_buffer_size()
        assert 0 < held < 2_000_000
        until = time.monotonic() + 5
        while running.control.metrics()["active"] and time.monotonic() < until:
            time.sleep(0.05)
    arm = running.control.metrics()["arms"]["source"]
    assert (arm["aborted"], arm["failures"]) == (1, 0)  # the client's fault, not the host's


def test_a_slow_reader_gets_every_byte(stub: Any, gateway: Any) -> None:
    host = stub()
    host.script.words = ("x" * 10_000,) * 200
    running = gateway(host.url, "converse", host.url, "chat")
    found = 0
    with http(running.url) as client, client.stream("POST", PATH, json={**BODY, "stream": True}) as answer:
        for piece in answer.iter_bytes():
            found += piece.count(b"x" * 10_000)
            time.sleep(0.002)
            tail = piece[-20:]
    assert b"[DONE]" in tail
    assert running.log_rows(1)[0]["output_tokens"] == 4


def test_head_has_no_body_and_the_connection_goes_on(stub: Any, gateway: Any) -> None:
    host = stub()
    running = gateway(host.url, "chat", host.url, "chat")
    found = raw(
        running.url,
        b"HEAD /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    )
    assert found.count(b'{"status":"ok"}') == 1
    assert found.count(b"HTTP/1.1 200") == 2


def test_upstream_over_tls_is_verified(stub: Any, gateway: Any, tmp_path: Any) -> None:
    host = stub()
    certificate = self_signed(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    host.server.socket = context.wrap_socket(host.server.socket, server_side=True)
    url = host.url.replace("http://", "https://")
    strict = gateway(url, "chat", url, "chat")
    with http(strict.url) as client:
        assert client.post(PATH, json=BODY).status_code == 503
    settings = strict.settings
    strict.close()
    for backend in settings["backends"]:
        backend["ca_file"] = str(certificate)
    trusting = type(strict)(settings, tmp_path)
    with http(trusting.url) as client:
        assert client.post(PATH, json=BODY).status_code == 200
    trusting.close()


def self_signed(folder: Any) -> Any:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


def test_a_bug_in_a_codec_is_still_an_answer(stub: Any, gateway: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from crossload.engines.gateway.wire import chat, converse

    host = stub()
    running = gateway(host.url, "converse", host.url, "chat")

    def broken(*_: Any) -> Any:
        raise ZeroDivisionError

    for module, name, stream in (
        (converse, "build_request", False),
        (chat, "render_response", False),
        (converse, "decoder", True),
    ):
        with monkeypatch.context() as patch, http(running.url) as client:
            patch.setattr(module, name, broken)
            answer = client.post(PATH, json={**BODY, "stream": stream})
            assert answer.status_code >= 500, name
            assert answer.json()["error"]["message"]
    assert running.control.metrics()["active"] == 0


@pytest.mark.parametrize("wire", ["chat", "converse"])
def test_connections_to_hosts_are_kept(stub: Any, gateway: Any, wire: str) -> None:
    host = stub()
    running = gateway(host.url, wire, host.url, wire)
    with http(running.url) as client:
        for number in range(20):
            assert client.post(PATH, json={**BODY, "stream": number % 2 == 0}).status_code == 200
    assert host.connections == 1


def test_no_more_connections_than_allowed_and_nobody_is_forgotten(stub: Any, gateway: Any) -> None:
    host = stub()
    host.script.delay_seconds = 0.05
    running = gateway(host.url, "chat", host.url, "chat", limits={"upstream_connections_max": 2})
    statuses: list[int] = []

    def work() -> None:
        with http(running.url) as client:
            statuses.append(client.post(PATH, json=BODY).status_code)

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert statuses == [200] * 20
    assert host.connections == 2
