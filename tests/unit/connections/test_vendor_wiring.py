"""A named or recognised vendor decides what the store promises and what goes over the wire; nobody else loses."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from crossload.estate.place import Place
from crossload.ports.errors import Invalid, NotFound, PreconditionFailed, Unsupported
from crossload.ports.provider import Settings
from crossload.ports.store import ObjectMeta, Part
from crossload.providers.aws import store as store_module
from crossload.providers.aws.store import UNRECOGNISED, S3Store
from crossload.providers.aws.vendors import Vendor, features, vendor_named

PLAIN = ObjectMeta("text/plain")


@dataclass
class Server:
    """An S3 server that keeps whole objects, and every request it got: (method, path, headers in lower case)."""

    name: str
    url: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def last(self, method: str) -> dict[str, str]:
        return next(headers for seen, _, headers in reversed(self.seen) if seen == method)

    def methods(self) -> list[str]:
        return [f"{method}{'?tagging' if path.endswith('?tagging') else ''}" for method, path, _ in self.seen]


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def version_string(self) -> str:
            return server.name

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            server.seen.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
            path = self.path.partition("?")[0]
            if self.command == "PUT":
                server.objects[path] = body
                self._send(200, b"", {"ETag": self._etag(body)})
            elif self.command == "DELETE":
                server.objects.pop(path, None)
                self._send(204, b"", {})
            elif self.path.endswith("?tagging"):
                self._send(200, b"<Tagging><TagSet></TagSet></Tagging>", {})
            elif path not in server.objects:
                self._send(404, b"<Error><Code>NoSuchKey</Code></Error>", {})
            else:
                data = server.objects[path]
                self._send(200, data, {"ETag": self._etag(data), "x-amz-storage-class": "GLACIER_IR"})

        def _etag(self, data: bytes) -> str:
            return f'"{hashlib.md5(data).hexdigest()}"'

        def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_HEAD = do_PUT = do_DELETE = _answer

        def log_message(self, format: str, *args: Any) -> None:
            return

    return Handler


@pytest.fixture
def serve() -> Iterator[Callable[[str], Server]]:
    opened: list[ThreadingHTTPServer] = []

    def start(name: str) -> Server:
        server = Server(name)
        http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
        http.daemon_threads = True
        threading.Thread(target=http.serve_forever, daemon=True).start()
        opened.append(http)
        server.url = f"http://127.0.0.1:{http.server_address[1]}"
        return server

    yield start
    for http in opened:
        http.shutdown()
        http.server_close()


@pytest.fixture
def near(tmp_path: Path) -> Callable[..., S3Store]:
    (tmp_path / "credentials").write_text("[p]\naws_access_key_id = AKIA\naws_secret_access_key = secret\n")
    (tmp_path / "config").write_text("[profile p]\nregion = auto\n")

    def made(region: str = "auto", **more: str) -> S3Store:
        connection = {
            "config_file": str(tmp_path / "config"), "credentials_file": str(tmp_path / "credentials"), "profile": "p",
            **more,
        }  # fmt: skip
        return S3Store(Settings(Place("x", "aws", region, "DE", connection), connection, {}))

    return made


Near = Callable[..., S3Store]
Serve = Callable[[str], Server]


# -- where ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({"vendor": "r2", "account": "0123abcd"}, "https://0123abcd.r2.cloudflarestorage.com"),
        ({"vendor": "hetzner", "region": "fsn1"}, "https://fsn1.your-objectstorage.com"),
        ({"vendor": "r2", "endpoint": "https://eu.example.com"}, "https://eu.example.com"),
        ({"endpoint": "http://127.0.0.1:9"}, "http://127.0.0.1:9"),
        ({"vendor": "aws", "region": "eu-central-1"}, "https://s3.eu-central-1.amazonaws.com"),
        ({"region": "eu-central-1"}, "https://s3.eu-central-1.amazonaws.com"),
    ],
)
def test_the_endpoint_is_the_one_that_was_meant(near: Near, settings: dict[str, str], url: str) -> None:
    assert near(**settings)._s3.meta.endpoint_url == url


def test_the_sdk_configuration_beats_the_vendors_template(near: Near, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("[profile p]\nregion = auto\nendpoint_url = http://127.0.0.1:9\n")
    assert near(vendor="r2", account="0123abcd", region="other")._s3.meta.endpoint_url == "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("settings", "said", "hint"),
    [
        ({"vendor": "wasaby"}, "no S3-compatible vendor is called `wasaby`", "did you mean `wasabi`?"),
        ({"vendor": "r2"}, "the account of Cloudflare R2's endpoint", ""),
        ({"vendor": "minio"}, "has no endpoint of its own", "endpoint:"),
        ({"endpoint": "no address"}, "Invalid endpoint", "https://host"),
    ],
)
def test_what_cannot_be_reached_is_told_at_once(near: Near, settings: dict[str, str], said: str, hint: str) -> None:
    with pytest.raises(Invalid, match=said) as caught:
        near(**settings)
    assert hint in caught.value.hint


# -- who --------------------------------------------------------------------------------------------------------------


def test_an_unrecognised_server_keeps_what_it_had(near: Near, serve: Serve) -> None:
    server = serve("Somebody")
    store = near(endpoint=server.url)
    store.write("bucket", "key", b"data", PLAIN, if_absent=True)
    assert store.features == UNRECOGNISED
    sent = server.last("PUT")
    assert sent["x-amz-checksum-crc64nvme"] and sent["if-none-match"] == "*"


def test_a_named_vendor_and_a_known_host_decide_before_any_answer(near: Near) -> None:
    assert near(vendor="r2", endpoint="http://127.0.0.1:9").features == features(vendor_named("r2"))
    assert near(region="eu-central-1").features == features(vendor_named("aws"))
    assert near(region="eu-central-1").features.sorted_list
    assert "archive" in near(region="eu-central-1").features.classes_offline
    assert near(region="eu-central-1", offline_classes="allowed").features.classes_offline == ()


@pytest.mark.parametrize("path", ["", "sdk"])
def test_the_first_answer_tells_who_it_is(near: Near, serve: Serve, path: str) -> None:
    server = serve("MinIO")
    store = near(endpoint=server.url, data_path=path)
    assert store.features == UNRECOGNISED
    with pytest.raises(NotFound):
        store.head("bucket", "key")
    store.write("bucket", "key", b"data", PLAIN)
    assert store.features == features(vendor_named("minio"))
    store.write("bucket", "other", b"data", PLAIN)
    assert "x-amz-checksum-crc64nvme" not in server.last("PUT"), "nobody is known to check it there"
    assert store.read("bucket", "other") == b"data"
    near(vendor="r2", endpoint=server.url)


# -- how --------------------------------------------------------------------------------------------------------------


def test_a_vendor_without_tags_is_neither_asked_nor_told_them(near: Near, serve: Serve) -> None:
    server = serve("cloudflare")
    for path in ("", "sdk"):
        store = near(vendor="r2", endpoint=server.url, data_path=path)
        server.seen.clear()
        store.write("bucket", "key", b"data", ObjectMeta("text/plain", tags={"a": "b"}))
        assert "x-amz-tagging" not in server.last("PUT")
        assert store.head("bucket", "key")[1] == ObjectMeta("", storage_class="cold")
        assert "GET?tagging" not in server.methods()
    with pytest.raises(Unsupported):
        list(store.versions("bucket"))
    with pytest.raises(Unsupported, match="no policy"):
        store.freeze("bucket")


def test_a_condition_that_the_vendor_refuses_is_looked_up_first(near: Near, serve: Serve) -> None:
    server = serve("b2")
    store = near(vendor="b2", endpoint=server.url)
    first = store.write("bucket", "key", b"one", PLAIN, if_absent=True)
    assert "if-none-match" not in server.last("PUT")
    with pytest.raises(PreconditionFailed):
        store.write("bucket", "key", b"two", PLAIN, if_absent=True)
    with pytest.raises(PreconditionFailed):
        store.write("bucket", "key", b"two", PLAIN, if_match="other")
    assert server.objects["/bucket/key"] == b"one"
    store.write("bucket", "key", b"two", PLAIN, if_match=first.etag)
    assert server.objects["/bucket/key"] == b"two"
    assert "if-match" not in server.last("PUT")


def test_etags_go_bare_where_the_vendor_wants_them_so(near: Near, serve: Serve) -> None:
    server = serve("ovh")
    store = near(vendor="ovh", endpoint=server.url)
    there = store.write("bucket", "key", b"one", PLAIN)
    store.read("bucket", "key", if_match=there.etag)
    assert server.last("GET")["if-match"] == there.etag
    store.write("bucket", "key", b"two", PLAIN, if_match=there.etag)
    assert server.last("PUT")["if-match"] == there.etag
    store.delete("bucket", "key", if_match=there.etag)
    assert server.last("DELETE")["if-match"] == there.etag


def test_virtual_addresses_go_through_the_sdk(near: Near) -> None:
    store = near(vendor="tigris")
    assert store._wire is None
    assert store._s3.meta.config.s3["addressing_style"] == "virtual"
    assert near(vendor="r2", account="team")._wire is not None


def test_an_address_of_the_sdk_configuration_is_recognised_too(near: Near, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("[profile p]\nregion = auto\nendpoint_url = https://t3.storage.dev\n")
    store = near(region="somewhere")
    assert store._s3.meta.config.s3["addressing_style"] == "virtual"
    assert store.features == features(vendor_named("tigris"))


def test_sizes_that_the_vendor_refuses_are_never_sent(
    near: Near, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve("cloudflare")
    r2 = vendor_named("r2")
    small = replace(r2, quirks=replace(r2.quirks, write_size_bytes_max=10, part_size_bytes_max=20))

    def always(settings: Settings, endpoint: str, server: str) -> Vendor:
        return small

    monkeypatch.setattr(store_module, "vendor_at", always)
    store = near(endpoint=server.url)
    with pytest.raises(Invalid, match="more than it takes"):
        store.write("bucket", "key", bytes(11), PLAIN)
    with pytest.raises(Invalid, match="more than it takes"):
        store.write_part("bucket", "key", "upload", Part(1, 0, 21, ""), bytes(21), last=True)
    uneven = [Part(1, 0, 9, "a"), Part(2, 9, 8, "b"), Part(3, 17, 1, "c")]
    with pytest.raises(Invalid, match="of one size"):
        store.complete("bucket", "key", "upload", uneven)
    assert server.seen == []


@pytest.mark.parametrize(
    ("name", "word"),
    [("STANDARD_IA", "infrequent"), ("ONEZONE_IA", "infrequent"), ("GLACIER_IR", "cold"), ("GLACIER", "archive"),
     ("DEEP_ARCHIVE", "archive"), ("INTELLIGENT_TIERING", "automatic"), ("STANDARD", ""), ("EXPRESS_ONEZONE", "")],
)  # fmt: skip
def test_classes_are_read_in_our_words(name: str, word: str) -> None:
    from crossload.providers.aws.answers import meta_of

    assert meta_of({"StorageClass": name}, {}).storage_class == word


def test_an_archived_source_object_says_what_to_do() -> None:
    from botocore.exceptions import ClientError

    from crossload.providers.aws.errors import translate

    answer: Any = {"Error": {"Code": "InvalidObjectState"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
    error = translate(ClientError(answer, "GetObject"))
    assert isinstance(error, Unsupported) and not error.retryable, "and not access-denied, which would stop the move"
    assert "restore" in error.hint


def test_versions_and_markers_stay_mixed_as_they_were_listed() -> None:
    """All within one second: times alone cannot tell, and the SDK gives two lists."""
    from datetime import UTC, datetime

    from crossload.providers.aws.versions import as_listed, keep_order

    body = b"<R><Version><VersionId>3</VersionId></Version><DeleteMarker><VersionId>2</VersionId></DeleteMarker>"
    kept: dict[str, Any] = {}
    keep_order({"body": body + b"<Version><VersionId>1</VersionId></Version></R>"}, kept)
    now = datetime(2026, 11, 24, tzinfo=UTC)

    def item(version: str) -> dict[str, Any]:
        return {"Key": "k", "VersionId": version, "LastModified": now, "IsLatest": version == "3"}

    page = {"Versions": [item("3"), item("1")], "DeleteMarkers": [item("2")]}
    assert [(one["VersionId"], mark) for one, mark in as_listed({**page, **kept})] == [
        ("3", False), ("2", True), ("1", False),
    ]  # fmt: skip
    assert [one["VersionId"] for one, _ in as_listed(page)] != ["3", "2", "1"], "without the order nobody could know"
