"""How the registry provider goes over the wire: TLS, proxies, redirects, and to whom it shows its credentials."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

sys.path.insert(0, str(Path(__file__).resolve().parent))

from oci_samples import image
from oci_server import Manners, OciServer, Refused, Request, serve
from test_registry_oci import USERS, registry_at

from crossload.ports import errors
from crossload.ports.registry import is_digest, is_tag, referrers_tag
from crossload.providers.registry.auth import challenges_of


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that is its own authority, with its key in one PEM file."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "registry of a test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "ca.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "both.pem").write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return folder


@pytest.fixture
def context(certificate: Path) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(certificate / "both.pem")
    return made


@pytest.fixture(autouse=True)
def no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


class Proxy:
    """A forward proxy on 127.0.0.1: CONNECT, and plain requests with a whole address. Notes first lines and headers."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(client,), daemon=True).start()

    def _one(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(65536)
        self.heads.append(head.decode("latin-1"))
        method, aim, _ = head.decode("latin-1").split(" ", 2)
        where = aim if method == "CONNECT" else aim.split("/")[2]
        host, _, port = where.partition(":")
        with socket.create_connection((host, int(port))) as onward, client:
            if method == "CONNECT":
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            else:
                onward.sendall(head)
            back = threading.Thread(target=self._pump, args=(onward, client), daemon=True)
            back.start()
            self._pump(client, onward)
            back.join(5)

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(65536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            return


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    made = Proxy()
    yield made
    made.server.close()


def test_tls_with_an_authority_of_ones_own(context: ssl.SSLContext, certificate: Path) -> None:
    with serve(OciServer(Manners(auth="basic", users=USERS)), context) as server:
        made = image(server, "team/app", 1, 100)
        registry = registry_at(server.url, "reader", "read-password", ca_file=str(certificate / "ca.pem"))
        assert registry.resolve("team/app", made["digest"]).digest == made["digest"]
        with pytest.raises(errors.NotSignedIn, match="not trusted") as caught:
            registry_at(server.url).resolve("team/app", made["digest"])
        assert "ca_file" in caught.value.hint
        with pytest.raises(errors.Invalid, match="authority file"):
            registry_at(server.url, ca_file=str(certificate / "absent.pem")).resolve("team/app", made["digest"])


def test_through_a_proxy(
    proxy: Proxy, context: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://user:pass%2Fword@127.0.0.1:{proxy.port}")
    monkeypatch.setenv("https_proxy", f"http://user:pass%2Fword@127.0.0.1:{proxy.port}")
    with serve() as plain, serve(None, context) as safe:
        for server in (plain, safe):
            made = image(server, "team/app", 1, 100)
            registry = registry_at(server.url, ca_file=str(certificate / "ca.pem"))
            assert registry.resolve("team/app", made["digest"]).digest == made["digest"]
        heads = [head.split("\r\n")[0].split(" ")[:2] for head in proxy.heads]
        assert heads[0] == ["HEAD", f"{plain.url}/v2/team/app/manifests/{made['digest']}"]
        assert heads[1] == ["CONNECT", f"127.0.0.1:{safe.port}"]
        assert all("dXNlcjpwYXNzL3dvcmQ=" in head for head in proxy.heads)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        registry_at(plain.url).resolve("team/app", made["digest"])
        assert len(proxy.heads) == 2


def test_credentials_stay_where_they_belong() -> None:
    """A blob behind a redirect is fetched without our token; so is whatever an upload's address leads to."""
    with serve(OciServer(Manners(auth="bearer", users=USERS))) as server:
        with serve(OciServer(repositories=server.repositories)) as storage:
            server.manners.blobs_elsewhere = storage.url
            held = server.put_blob("team/app", b"content")
            registry = registry_at(server.url, "reader", "read-password")
            assert b"".join(registry.read_blob("team/app", held["digest"])) == b"content"
            assert registry.head_blob("team/app", held["digest"]) == 7
            assert [one.headers.get("authorization") for one in storage.log] == [None, None]
            assert any("authorization" in one.headers for one in server.log)
            upload = registry_at(server.url, "writer", "write-password").open_upload("team/app")
            elsewhere = type(upload)(f"team/app {storage.url}/v2/team/app/blobs/uploads/x")
            with pytest.raises(errors.NotFound):
                registry.upload_state(elsewhere)
            assert "authorization" not in storage.log[-1].headers


def test_nobody_is_sent_from_tls_to_clear_text(context: ssl.SSLContext, certificate: Path) -> None:
    with serve(None, context) as server, serve() as clear:
        server.manners.blobs_elsewhere = clear.url
        held = server.put_blob("team/app", b"content")
        registry = registry_at(server.url, ca_file=str(certificate / "ca.pem"))
        with pytest.raises(errors.Refused, match="from https to http"):
            b"".join(registry.read_blob("team/app", held["digest"]))
        assert clear.log == []


def test_redirects_end() -> None:
    with serve() as server:
        server.manners.blobs_elsewhere = server.url
        held = server.put_blob("team/app", b"content")
        with pytest.raises(errors.Invalid, match="more than 5 times"):
            registry_at(server.url).head_blob("team/app", held["digest"])


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_credentials_do_not_travel_in_clear_text(auth: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server looks like one on another machine; what it asks for is refused before anything is sent."""
    with serve(OciServer(Manners(auth=auth, users=USERS))) as server:
        original = socket.getaddrinfo

        def here(host: Any, port: Any, *more: Any, **also: Any) -> Any:
            return original("127.0.0.1" if host == "registry.example" else host, port, *more, **also)

        monkeypatch.setattr(socket, "getaddrinfo", here)
        monkeypatch.setattr(OciServer, "url", property(lambda self: f"http://registry.example:{self.port}"))
        with pytest.raises(errors.Refused, match="clear text"):
            registry_at(server.url, "reader", "read-password").resolve("team/app", "v1")
        assert not any("authorization" in one.headers for one in server.log)
        with pytest.raises(errors.NotFound):
            registry_at(server.url, "reader", "read-password", plain_http="allowed").resolve("team/app", "v1")


def test_an_identity_token_is_exchanged() -> None:
    with serve(OciServer(Manners(auth="bearer", users=USERS, refresh_tokens={"refresh-me": "writer"}))) as server:
        registry = registry_at(server.url, "", "refresh-me", identity_token="env:PASSWORD")
        registry.abort_upload(registry.open_upload("team/app"))
        assert server.count("POST", "/token") == 1
        with pytest.raises(errors.NotSignedIn, match="token server refused"):
            registry_at(server.url, "", "wrong-token", identity_token="env:PASSWORD").open_upload("team/app")


def test_anybody_may_pull_where_that_is_allowed() -> None:
    with serve(OciServer(Manners(auth="bearer", users=USERS, anonymous_pull=True))) as server:
        made = image(server, "team/app", 1, 100)
        assert registry_at(server.url).resolve("team/app", made["digest"]).digest == made["digest"]
        with pytest.raises((errors.NotSignedIn, errors.AccessDenied)):
            registry_at(server.url).open_upload("team/app")


def test_a_token_is_asked_for_once() -> None:
    with serve(OciServer(Manners(auth="bearer", users=USERS))) as server:
        made = image(server, "team/app", 1, 100)
        registry = registry_at(server.url, "reader", "read-password")
        for _ in range(5):
            registry.manifest("team/app", made["digest"])
        assert server.count("GET", "/token") == 1
        server.tokens.clear()  # revoked
        registry.manifest("team/app", made["digest"])
        assert server.count("GET", "/token") == 2


def test_errors_say_when_to_come_back() -> None:
    with serve() as server:

        def busy(request: Request) -> int:
            raise Refused(429, "TOOMANYREQUESTS", "later", {"retry-after": "7"})

        server.faults.append(busy)
        with pytest.raises(errors.Throttled) as caught:
            registry_at(server.url).resolve("team/app", "v1")
        assert caught.value.retry_after_seconds == 7.0
        assert caught.value.retryable


@pytest.mark.parametrize("endpoint", ["registry.example", "ftp://x", "https://user:secret@host", "https://"])
def test_an_endpoint_is_an_address_without_a_password(endpoint: str) -> None:
    with pytest.raises(errors.Invalid) as caught:
        registry_at(endpoint)
    assert "secret" not in str(caught.value)


def test_challenges_are_read_as_they_are_written() -> None:
    header = 'Bearer realm="https://a/t?x=1,2",service="s \\"q\\"",scope="repository:a:pull,push" , Basic realm="b"'
    bearer, basic = challenges_of([header])
    assert (bearer.scheme, basic.scheme) == ("bearer", "basic")
    assert bearer.parameters == {
        "realm": "https://a/t?x=1,2", "service": 's "q"', "scope": "repository:a:pull,push",
    }  # fmt: skip
    assert basic.parameters == {"realm": "b"}
    assert [one.scheme for one in challenges_of(["Negotiate", 'BASIC realm=x, charset="UTF-8"'])] == [
        "negotiate", "basic",
    ]  # fmt: skip
    assert challenges_of([""]) == []


def test_names_of_the_specification() -> None:
    """Examples from OCI Distribution 1.1, referrers tag schema."""
    assert referrers_tag("sha256:" + "a" * 64) == "sha256-" + "a" * 64
    assert referrers_tag("sha512:" + "a" * 128) == "sha512-" + "a" * 64
    long = (
        "test+algorithm+using+algorithm+separators+and+lots+of+characters+to+excercise+overall+truncation:"
        "alsoSome=InTheEncodedSectionToShowHyphenReplacementAndLotsAndLotsOfCharactersToExcerciseEncodedTruncation"
    )
    wanted = "test-algorithm-using-algorithm-s-alsoSome-InTheEncodedSectionToShowHyphenReplacementAndLotsAndLot"
    assert referrers_tag(long) == wanted
    assert not is_digest("sha256:" + "A" * 64)
    assert not is_digest("sha256:" + "a" * 63)
    assert is_tag("v1.0_x-y") and not is_tag("-v1") and not is_tag("a" * 129)
