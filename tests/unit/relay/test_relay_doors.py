"""Who comes in, and how much one may bring: tokens, buckets, sizes, packed bodies that are not what they say."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from relay_parts import MIB, PLAIN, TOKEN, agent, folder, relay

from crossload.ports.errors import (
    AccessDenied,
    CrossloadError,
    DigestMismatch,
    Invalid,
    NotFound,
    NotSignedIn,
    Refused,
    Throttled,
    Unavailable,
)
from crossload.ports.store import ObjectMeta, Part, Store
from crossload.providers import keepalive
from crossload.providers.keepalive import Answer, send
from crossload.providers.relay import agent as serving
from crossload.providers.relay import words
from crossload.providers.relay.agent import Agent, AgentOptions
from crossload.providers.relay.answering import Limits
from crossload.providers.relay.store import RelayStore

SMALL = Limits(body_bytes_max=4 * MIB, patch_bytes_max=4 * MIB, patched_bytes_max=16 * MIB)


@pytest.fixture
def far(tmp_path: Path) -> Store:
    made = folder(tmp_path / "far")
    for bucket in ("docs", "private"):
        made.ensure_bucket(bucket)
    return made


@pytest.fixture
def served(far: Store) -> Iterator[Agent]:
    with agent(far, buckets=("docs", "new-*"), limits=SMALL) as made:
        yield made


@pytest.fixture
def near(served: Agent) -> RelayStore:
    return relay(served.url)


def put(served: Agent, told: dict[str, Any], body: bytes, token: str = TOKEN, key: str = "planted") -> Answer:
    """A write as no client of ours would send it."""
    header = base64.b64encode(json.dumps({"meta": {}, **told}).encode()).decode()
    headers = {"authorization": f"Bearer {token}", words.TOLD: header}
    return send("PUT", f"{served.url}/v1/docs/{key}?do=write", headers, content=body)


def told_of(data: bytes, **more: Any) -> dict[str, Any]:
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), **more}


def refusal(answer: Answer) -> CrossloadError:
    assert answer.status_code >= 400
    return words.error_from_answer(answer.status_code, answer.content, "PUT")


# -- tokens ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["", "x", TOKEN + "x", TOKEN[:-1], TOKEN.upper(), "Grüße-Grüße-Grüße"])
def test_another_token_opens_nothing(served: Agent, far: Store, token: str) -> None:
    headers = {"authorization": f"Bearer {token}"}
    for method, what in (("GET", "do=features"), ("GET", "do=list"), ("PUT", "do=write"), ("DELETE", "do=delete")):
        answer = send(method, f"{served.url}/v1/docs?{what}", headers)
        assert answer.status_code == 401, what
    assert isinstance(refusal(put(served, told_of(b"x"), b"x", token)), NotSignedIn)
    assert list(far.list("docs")) == []
    assert send("GET", f"{served.url}/v1?do=features", {}).status_code == 401


def test_a_wrong_token_is_refused_before_its_body_is_read(served: Agent, far: Store) -> None:
    """64 MiB, sixteen times what the agent takes: it answers, and does not read them all."""
    store = relay(served.url, token="another token of 20 letters", compression="off")
    store._agreed = relay(served.url).agreed  # pyright: ignore[reportPrivateUsage]
    with pytest.raises((NotSignedIn, Unavailable)):
        store.write("docs", "large", bytes(64 * MIB), PLAIN)
    assert list(far.list("docs")) == []


def test_nothing_tells_the_token(served: Agent, near: RelayStore) -> None:
    said: list[str] = []
    served._server.say = said.append  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(NotSignedIn) as error:
        relay(served.url, token="wrong-wrong-wrong-wrong").buckets()
    assert said and "wrong-wrong" not in "".join(said) + str(error.value)
    assert TOKEN not in repr(AgentOptions(TOKEN, ("docs",)))


def test_a_server_open_to_strangers_does_not_start(far: Store, tmp_path: Path) -> None:
    for options, error in (
        (AgentOptions("short", ("docs",)), Invalid),
        (AgentOptions(TOKEN, ()), Invalid),
        (AgentOptions(TOKEN, ("docs",), host="192.0.2.1"), Refused),
        (AgentOptions(TOKEN, ("docs",), host="example.org"), Refused),
        (AgentOptions(TOKEN, ("docs",), certificate=tmp_path / "cert"), Invalid),
        (AgentOptions(TOKEN, ("docs",), memory_bytes_max=MIB), Invalid),
    ):
        with pytest.raises(error) as refused:
            Agent(far, options)
        assert TOKEN not in str(refused.value)


def test_a_taken_address_is_said(served: Agent, far: Store) -> None:
    with pytest.raises(Unavailable, match="cannot listen"):
        agent(far, port=int(served.url.rpartition(":")[2]))


@pytest.mark.parametrize("url", ["http://example.org", "ftp://127.0.0.1", "127.0.0.1:80", ""])
def test_a_token_is_not_sent_in_the_clear(url: str) -> None:
    with pytest.raises(Invalid):
        relay(url)


def test_tls(far: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(cert), "-days",
         "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    data = random.Random(1).randbytes(3 * MIB)
    with agent(far, certificate=cert, certificate_key=key) as made:
        assert made.url.startswith("https://")
        with pytest.raises(Unavailable, match=r"(?i)certificate"):
            relay(made.url).buckets()
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        keepalive._trust.cache_clear()  # pyright: ignore[reportPrivateUsage]
        try:
            store = relay(made.url)
            store.write("docs", "secret", data, PLAIN)
            assert store.read("docs", "secret") == data
        finally:
            keepalive._trust.cache_clear()  # pyright: ignore[reportPrivateUsage]
            keepalive.close_idle()


# -- buckets ---------------------------------------------------------------------------------------------------------


def test_only_the_named_buckets_are_served(near: RelayStore, far: Store) -> None:
    far.write("private", "salaries", b"secret", PLAIN)
    for call in (
        lambda: near.read("private", "salaries"), lambda: near.head("private", "salaries"),
        lambda: list(near.list("private")), lambda: near.delete("private", "salaries"),
        lambda: near.write("private", "x", b"x", PLAIN), lambda: near.ensure_bucket("other"),
        lambda: near.remove_bucket("private"), lambda: near.open_upload("private", "x", PLAIN, 1),
        lambda: near.read("docs/../private", "salaries"),
    ):  # fmt: skip
        with pytest.raises(AccessDenied):
            call()
    assert [item.name for item in near.buckets()] == ["docs"]
    assert near.ensure_bucket("new-one") is True
    assert far.read("private", "salaries") == b"secret"


def test_an_agent_that_only_reads(far: Store) -> None:
    far.write("docs", "a", b"bytes", PLAIN)
    with agent(far, read_only=True) as made:
        store = relay(made.url)
        assert store.read("docs", "a") == b"bytes"
        assert not store.agreed.patches
        for call in (
            lambda: store.write("docs", "b", b"x", PLAIN), lambda: store.delete("docs", "a"),
            lambda: store.open_upload("docs", "b", PLAIN, 1), lambda: store.ensure_bucket("new"),
            lambda: store.thaw("docs", "x"), lambda: store.abort("docs", "b", "x"),
        ):  # fmt: skip
            with pytest.raises(AccessDenied):
                call()
    assert [info.key for info in far.list("docs")] == ["a"]


# -- sizes and packed bodies -----------------------------------------------------------------------------------------


def test_a_body_that_is_too_large_is_refused_by_its_head(near: RelayStore, served: Agent, far: Store) -> None:
    with pytest.raises(Invalid, match="this agent takes"):
        near.write("docs", "large", random.Random(2).randbytes(5 * MIB), PLAIN)
    upload = near.open_upload("docs", "large", PLAIN, 5 * MIB)
    with pytest.raises(Invalid, match="this agent takes"):
        near.write_part("docs", "large", upload, Part(1, 0, 5 * MIB, ""), bytes(5 * MIB), last=True)
    near.abort("docs", "large", upload)
    assert list(far.list("docs")) == []


def test_a_large_object_is_read_in_several_answers(near: RelayStore, far: Store) -> None:
    """Four MiB are the most at once here; the object is nine, and changes for nobody in between."""
    data = random.Random(3).randbytes(9 * MIB + 17)
    etag = far.write("docs", "large", data, PLAIN).etag
    assert near.read("docs", "large") == data
    assert near.read("docs", "large", 5, 8 * MIB) == data[5 : 5 + 8 * MIB]
    buffer = bytearray(len(data))
    assert near.read_into("docs", "large", 0, memoryview(buffer), etag) == len(data)
    assert buffer == data
    buffer = bytearray(len(data) + 5)
    info, _ = near.fetch("docs", "large", memoryview(buffer), etag)
    assert (info.size_bytes, buffer[: len(data)]) == (len(data), data)


def test_a_zip_bomb_does_not_go_off(served: Agent, far: Store) -> None:
    bomb = zstandard.ZstdCompressor(level=19).compress(bytes(512 * MIB))
    assert len(bomb) < 64 * 1024
    for size in (512 * MIB, 2**62):
        told = {"size": size, "sha256": "0" * 64, "encoding": "zstd"}
        assert isinstance(refusal(put(served, told, bomb)), Invalid)
    # It says that it is small: the frame says otherwise, and nothing is unpacked.
    told = {"size": 3 * MIB, "sha256": "0" * 64, "encoding": "zstd"}
    error = refusal(put(served, told, bomb))
    assert isinstance(error, Invalid) and "another number of bytes" in str(error)
    # A frame that does not say its size is none of ours.
    silent = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(512 * MIB))
    assert isinstance(refusal(put(served, told, silent)), Invalid)
    assert list(far.list("docs")) == []


@pytest.mark.parametrize("cut", [1, 5, 100, -1])
def test_a_truncated_frame_writes_nothing(served: Agent, far: Store, cut: int) -> None:
    data = random.Random(8).randbytes(5000) * 2 + b"some text that packs well. " * 5000
    frame = zstandard.ZstdCompressor().compress(data)
    assert put(served, told_of(data, encoding="zstd"), frame, key="whole").status_code == 200
    assert isinstance(refusal(put(served, told_of(data, encoding="zstd"), frame[:cut])), Invalid)
    assert isinstance(refusal(put(served, told_of(data, encoding="zstd"), frame + b"more")), Invalid)
    assert [info.key for info in far.list("docs")] == ["whole"]
    assert far.read("docs", "whole") == data


def test_other_bytes_than_were_told_are_not_written(served: Agent, far: Store) -> None:
    frame = zstandard.ZstdCompressor().compress(b"x" * 1000)
    for told, body in (
        ({"size": 6, "sha256": "0" * 64}, b"intact"),
        ({"size": 1000, "sha256": hashlib.sha256(b"y" * 1000).hexdigest(), "encoding": "zstd"}, frame),
    ):
        assert isinstance(refusal(put(served, told, body)), DigestMismatch)
    assert list(far.list("docs")) == []


@pytest.mark.parametrize(
    "told",
    [
        {}, {"size": -1}, {"size": "1"}, {"size": True}, {"size": 2}, {"size": 1, "encoding": "gzip"},
        {"size": 1, "meta": 3}, {"size": 1, "meta": {"user": 7}}, {"size": 1, "digests": ["x"]},
        {"size": 1, "digests": 3},
    ],
)  # fmt: skip
def test_nonsense_is_invalid(served: Agent, far: Store, told: dict[str, Any]) -> None:
    sha256 = hashlib.sha256(b"x").hexdigest()
    assert isinstance(refusal(put(served, {"sha256": sha256, **told}, b"x")), Invalid)
    assert list(far.list("docs")) == []


@pytest.mark.parametrize(
    "target", ["/", "/v2?do=head", "/v1/docs/a/b?do=head", "/v1/docs/%ff?do=head", "/v1/docs?do=list&start=x",
               "/v1/docs/a?do=read&start=-1", "/v1/docs/a?do=read&start=1e3", "/v1/docs/a?do=dance",
               "/v1/docs/a?" + "&".join(f"x{n}=1" for n in range(50))],
)  # fmt: skip
def test_addresses_that_make_no_sense(served: Agent, target: str) -> None:
    answer = send("GET", served.url + target, {"authorization": f"Bearer {TOKEN}"})
    if target.endswith("list&start=x"):
        assert answer.status_code == 200  # nobody asks for it there
        return
    assert answer.status_code in (400, 501), answer.text


def test_metadata_beyond_a_header_are_refused_here(near: RelayStore) -> None:
    huge = ObjectMeta(user={"note": "x" * 60_000})
    with pytest.raises(Invalid, match="metadata"):
        near.write("docs", "huge", b"x", huge)


def test_memory_for_all_bodies_is_bounded(far: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_BUDGET_SECONDS", 0.2)
    with agent(far, limits=SMALL, memory_bytes_max=8 * MIB) as made:
        store = relay(made.url, compression="off")
        with made._server.budget.hold(7 * MIB):  # pyright: ignore[reportPrivateUsage]
            with pytest.raises(Throttled) as error:
                store.write("docs", "a", random.Random(4).randbytes(2 * MIB), PLAIN)
            assert error.value.retry_after_seconds
        store.write("docs", "a", random.Random(4).randbytes(2 * MIB), PLAIN)


def test_connections_are_counted(far: Store) -> None:
    keepalive.close_idle()
    with agent(far, connections_max=1) as made:
        one = keepalive.Connection(("http", made.url.removeprefix("http://")))
        one.request(f"GET /v1?do=features HTTP/1.1\r\nauthorization: Bearer {TOKEN}\r\n\r\n".encode(), None)
        assert one.answer()[0] == 200
        with pytest.raises(Unavailable):
            relay(made.url).buckets()
        one.close()


def test_an_absent_object_is_told_as_by_the_store_itself(near: RelayStore) -> None:
    with pytest.raises(NotFound, match="no object docs/absent"):
        near.head("docs", "absent")
