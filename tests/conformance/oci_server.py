"""A small strict registry for tests: OCI Distribution 1.1 in memory, on 127.0.0.1, in this process.

It is not a registry that anybody runs. It is written from the specification, refuses what the specification lets a
registry refuse, and can be made to be old, poor or broken: see Manners."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

NAME = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
DIGEST = re.compile(r"(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})")
TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
ROUTES = (
    ("blob", re.compile(rf"/v2/({NAME})/blobs/([^/]+)")),
    ("upload", re.compile(rf"/v2/({NAME})/blobs/uploads/([^/]*)")),
    ("manifest", re.compile(rf"/v2/({NAME})/manifests/([^/]+)")),
    ("tags", re.compile(rf"/v2/({NAME})/tags/list")),
    ("referrers", re.compile(rf"/v2/({NAME})/referrers/([^/]+)")),
)
STEP = 64 * 1024


@dataclass(slots=True)
class Manners:
    """How this server behaves. `auth` is "", basic or bearer; `users` maps names to (password, may push)."""

    auth: str = ""
    users: dict[str, tuple[str, bool]] = field(default_factory=dict)
    anonymous_pull: bool = False
    token_seconds: int = 300
    refresh_tokens: dict[str, str] = field(default_factory=dict)  # refresh token -> user
    referrers_api: bool = True
    digest_header: bool = True
    ranges: bool = True
    chunks: bool = True
    chunk_bytes_min: int = 0
    page: int = 0  # tags and referrers per page, 0 for all
    link: bool = True
    mounts: bool = True
    deletes: bool = True
    blobs_elsewhere: str = ""  # address that blobs are fetched from, behind a redirect
    forgets_uploads: bool = False


@dataclass(slots=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    sent_bytes: int = 0


@dataclass(slots=True)
class Repository:
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class OciServer:
    """`faults` are asked before each request; one that returns a status answers with it. `cut_blob_at` and
    `cut_patch_at` end the connection once after so many bytes of a blob's body."""

    manners: Manners = field(default_factory=Manners)
    repositories: dict[str, Repository] = field(default_factory=dict)
    uploads: dict[str, tuple[str, bytearray]] = field(default_factory=dict)
    log: list[Request] = field(default_factory=list)
    faults: list[Callable[[Request], int]] = field(default_factory=list)
    cut_blob_at: int = 0
    cut_patch_at: int = 0
    slow_seconds: float = 0.0  # per 64 KiB of an upload
    tokens: dict[str, tuple[str, str, float]] = field(default_factory=dict)  # token -> (user, scope, ends at)
    mutex: threading.RLock = field(default_factory=threading.RLock)
    port: int = 0
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def of(self, name: str) -> Repository:
        with self.mutex:
            return self.repositories.setdefault(name, Repository())

    def count(self, method: str, path: str = "") -> int:
        with self.mutex:
            return sum(one.method == method and path in one.path for one in self.log)

    def put_blob(self, name: str, data: bytes, algorithm: str = "sha256") -> dict[str, Any]:
        """Behind the API's back. Returns a descriptor without media type."""
        digest = f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
        self.of(name).blobs[digest] = data
        return {"digest": digest, "size": len(data)}

    def put_manifest(self, name: str, document: dict[str, Any], *tags: str, indent: int | None = 2) -> dict[str, Any]:
        """Behind the API's back, with white space as tools write it. Returns its descriptor."""
        data = json.dumps(document, indent=indent).encode()
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        held = self.of(name)
        held.manifests[digest] = (document["mediaType"], data)
        for tag in tags:
            held.tags[tag] = digest
        return {"mediaType": document["mediaType"], "digest": digest, "size": len(data)}


@contextmanager
def serve(server: OciServer | None = None, context: Any = None) -> Iterator[OciServer]:
    """The server on a free port, until the block ends. `context` is an SSL context for https."""
    made = server or OciServer()

    class Handler(_Handler):
        registry = made

    http = _Quiet(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    if context is not None:
        http.socket = context.wrap_socket(http.socket, server_side=True)
        made.scheme = "https"
    made.port = http.server_address[1]
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield made
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


class _Quiet(ThreadingHTTPServer):
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients hang up in these tests; that is not news."""


class Refused(Exception):
    def __init__(self, status: int, code: str, message: str = "", headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers or {}


class _Handler(BaseHTTPRequestHandler):
    registry: OciServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None: ...

    def do_GET(self) -> None:
        self._handle()

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    # -- one request -------------------------------------------------------------------------------------------------

    def _handle(self) -> None:
        self.unread = int(self.headers.get("content-length") or 0)
        self.parts = urlsplit(self.path)
        self.query = {name: values[-1] for name, values in parse_qs(self.parts.query, keep_blank_values=True).items()}
        names = {name.lower(): value for name, value in self.headers.items()}
        self.noted = Request(self.command, self.path, names)
        with self.registry.mutex:
            self.registry.log.append(self.noted)
        try:
            for fault in list(self.registry.faults):
                status = fault(self.noted)
                if status:
                    raise Refused(status, "TOOMANYREQUESTS" if status == 429 else "UNKNOWN", "planted")
            if self.command in ("POST", "PUT", "PATCH") and "content-length" not in names:
                raise Refused(411, "SIZE_INVALID", "no length")
            if self.parts.path == "/token":
                self._token()
                return
            if self.parts.path == "/v2/":
                self._signed("", push=False)
                self._answer(200, b"{}")
                return
            for kind, route in ROUTES:
                found = route.fullmatch(self.parts.path)
                if found and not (kind == "blob" and found[2] == "uploads"):
                    getattr(self, f"_{kind}")(*found.groups())
                    return
            raise Refused(404, "NAME_INVALID", "no such address")
        except Refused as no:
            body = json.dumps({"errors": [{"code": no.code, "message": no.message}]}).encode()
            if self.unread:  # the rest of a body that nobody wants
                self.close_connection = True
            self._answer(no.status, body, {"content-type": "application/json", **no.headers})

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        merged = {"content-length": str(len(body)), **(headers or {})}
        for name, value in merged.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _body(self, into: bytearray | None = None) -> bytearray:
        """The request's body, as it comes: what arrives before a connection breaks is kept."""
        held = bytearray() if into is None else into
        while self.unread:
            piece = self.rfile.read(min(STEP, self.unread))
            if not piece:
                self.close_connection = True
                break
            self.unread -= len(piece)
            self.noted.sent_bytes += len(piece)
            held += piece
            if self.registry.slow_seconds:
                time.sleep(self.registry.slow_seconds)
            if self.command == "PATCH" and 0 < self.registry.cut_patch_at <= self.noted.sent_bytes:
                self.registry.cut_patch_at = 0
                self.close_connection = True
                raise ConnectionResetError
        return held

    # -- signing in --------------------------------------------------------------------------------------------------

    def _basic(self) -> str | None:
        """The user, "" for nobody, None for a wrong password."""
        header = self.headers.get("authorization", "")
        if not header.startswith("Basic "):
            return ""
        user, _, password = base64.b64decode(header[6:]).decode().partition(":")
        known = self.registry.manners.users.get(user)
        return user if known is not None and known[0] == password else None

    def _token(self) -> None:
        if self.command == "POST":
            form = dict(parse_qsl(self._body().decode()))
            user = self.registry.manners.refresh_tokens.get(form.get("refresh_token", ""))
            scopes = form.get("scope", "").split(" ")
            name = "access_token"
        else:
            user = self._basic()
            scopes = parse_qs(self.parts.query).get("scope", [])
            name = "token"
        if user is None:
            raise Refused(401, "UNAUTHORIZED", "wrong user")
        may_push = bool(user) and self.registry.manners.users[user][1]
        granted = [scope if may_push else scope.replace("pull,push", "pull") for scope in scopes]
        if not user and not self.registry.manners.anonymous_pull:
            granted = []
        token = uuid.uuid4().hex
        life = self.registry.manners.token_seconds
        self.registry.tokens[token] = (user, " ".join(granted), time.monotonic() + life)
        self._answer(200, json.dumps({name: token, "expires_in": life}).encode())

    def _signed(self, name: str, *, push: bool) -> None:
        manners = self.registry.manners
        if not manners.auth or (manners.anonymous_pull and not push and manners.auth == "basic"):
            return
        if manners.auth == "basic":
            user = self._basic()
            if not user:
                raise Refused(401, "UNAUTHORIZED", headers={"www-authenticate": 'Basic realm="test"'})
            if push and not manners.users[user][1]:
                raise Refused(403, "DENIED", "may not push")
            return
        action = "pull,push" if push else "pull"
        wanted = f"repository:{name}:{action}"
        realm = f'Bearer realm="{self.registry.url}/token",service="test registry",scope="{wanted}"'
        held = self.registry.tokens.get(self.headers.get("authorization", "").removeprefix("Bearer "))
        if held is None or held[2] < time.monotonic():
            raise Refused(401, "UNAUTHORIZED", headers={"www-authenticate": realm})
        rights = {(one.split(":")[1], action) for one in held[1].split() for action in one.split(":")[2].split(",")}
        if name and not {(name, one) for one in action.split(",")} <= rights:
            more = ',error="insufficient_scope"' if held[0] else ""
            raise Refused(401, "DENIED", headers={"www-authenticate": realm + more})

    # -- blobs -------------------------------------------------------------------------------------------------------

    def _blob(self, name: str, digest: str) -> None:
        self._signed(name, push=self.command == "DELETE")
        data = self._repository(name).blobs.get(self._good(digest))
        if data is None:
            raise Refused(404, "BLOB_UNKNOWN")
        if self.command not in ("GET", "HEAD"):
            raise Refused(405, "UNSUPPORTED")
        if self.registry.manners.blobs_elsewhere:
            self._answer(307, b"", {"location": self.registry.manners.blobs_elsewhere + self.path})
            return
        status, start, end = 200, 0, len(data)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        if asked and self.registry.manners.ranges:
            status, start, end = 206, int(asked[1]), min(end, int(asked[2]) + 1) if asked[2] else end
            if start >= len(data) or end <= start:
                raise Refused(416, "UNKNOWN", "beyond the end", {"content-range": f"bytes */{len(data)}"})
        headers = {"content-type": "application/octet-stream"}
        if self.registry.manners.digest_header:
            headers["docker-content-digest"] = digest
        if status == 206:
            headers["content-range"] = f"bytes {start}-{end - 1}/{len(data)}"
        cut = self.registry.cut_blob_at
        if self.command == "GET" and 0 < cut < end - start:
            self.registry.cut_blob_at = 0
            self.close_connection = True
            self._answer(status, data[start : start + cut], {**headers, "content-length": str(end - start)})
            return
        if self.command == "HEAD":
            self._answer(status, b"", {**headers, "content-length": str(end - start)})
            return
        self._answer(status, data[start:end], headers)

    def _upload(self, name: str, upload: str) -> None:
        self._signed(name, push=True)
        if self.command == "POST" and not upload:
            self._open(name)
            return
        with self.registry.mutex:
            held = self.registry.uploads.get(upload)
        if held is None or held[0] != name or self.registry.manners.forgets_uploads:
            raise Refused(404, "BLOB_UPLOAD_UNKNOWN")
        data = held[1]
        if self.command == "GET":
            self._answer(204, b"", self._where(name, upload, data))
        elif self.command == "DELETE":
            del self.registry.uploads[upload]
            self._answer(204)
        elif self.command == "PATCH":
            self._append(data)
            self._answer(202, b"", self._where(name, upload, data))
        elif self.command == "PUT":
            self._append(data)
            digest = self._good(self.query.get("digest", ""))
            algorithm = digest.partition(":")[0]
            if f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}" != digest:
                raise Refused(400, "DIGEST_INVALID", "the bytes have another digest")
            with self.registry.mutex:
                self.registry.of(name).blobs[digest] = bytes(data)
                self.registry.uploads.pop(upload, None)
            self._answer(201, b"", {"location": f"/v2/{name}/blobs/{digest}", "docker-content-digest": digest})
        else:
            raise Refused(405, "UNSUPPORTED")

    def _open(self, name: str) -> None:
        other, digest = self.query.get("from", ""), self.query.get("mount", "")
        if digest and other and self.registry.manners.mounts:
            data = self.registry.repositories.get(other, Repository()).blobs.get(self._good(digest))
            if data is not None:
                self.registry.of(name).blobs[digest] = data
                self._answer(201, b"", {"location": f"/v2/{name}/blobs/{digest}", "docker-content-digest": digest})
                return
        upload = uuid.uuid4().hex
        with self.registry.mutex:
            self.registry.uploads[upload] = (name, bytearray())
        headers = self._where(name, upload, bytearray())
        if self.registry.manners.chunk_bytes_min:
            headers["oci-chunk-min-length"] = str(self.registry.manners.chunk_bytes_min)
        self._answer(202, b"", headers)

    def _append(self, data: bytearray) -> None:
        length, asked = self.unread, self.headers.get("content-range", "")
        if not length:
            return
        if self.headers.get("content-type") != "application/octet-stream":
            raise Refused(400, "BLOB_UPLOAD_INVALID", "no octet stream")
        if asked:
            found = re.fullmatch(r"(\d+)-(\d+)", asked)
            if found is None or int(found[2]) - int(found[1]) + 1 != length:
                raise Refused(400, "SIZE_INVALID", "range and length differ")
            if not self.registry.manners.chunks:
                raise Refused(400, "UNSUPPORTED", "no chunks here")
            if int(found[1]) != len(data):
                raise Refused(416, "BLOB_UPLOAD_INVALID", "out of order", {"range": f"0-{max(0, len(data) - 1)}"})
        elif data:
            raise Refused(416, "BLOB_UPLOAD_INVALID", "there is something already")
        self._body(data)

    def _where(self, name: str, upload: str, data: bytearray) -> dict[str, str]:
        # Relative, and with a query that must be kept.
        location = f"/v2/{name}/blobs/uploads/{upload}?_state={len(data)}%2F"
        return {"location": location, "range": f"0-{max(0, len(data) - 1)}", "docker-upload-uuid": upload}

    # -- manifests ---------------------------------------------------------------------------------------------------

    def _manifest(self, name: str, reference: str) -> None:
        self._signed(name, push=self.command not in ("GET", "HEAD"))
        if not DIGEST.fullmatch(reference) and not TAG.fullmatch(reference):
            raise Refused(400, "MANIFEST_INVALID", "neither tag nor digest")
        if self.command == "PUT":
            self._put_manifest(name, reference)
            return
        held = self._repository(name)
        digest = held.tags.get(reference, reference)
        if digest not in held.manifests:
            raise Refused(404, "MANIFEST_UNKNOWN")
        if self.command == "DELETE":
            if not self.registry.manners.deletes:
                raise Refused(405, "UNSUPPORTED", "deletion is off")
            held.tags.pop(reference, None)
            if reference == digest:
                del held.manifests[digest]
                held.tags = {tag: one for tag, one in held.tags.items() if one != digest}
            self._answer(202)
            return
        media_type, data = held.manifests[digest]
        if media_type not in self.headers.get("accept", "") and "*/*" not in self.headers.get("accept", ""):
            raise Refused(404, "MANIFEST_UNKNOWN", "not in a form you accept")
        headers = {"content-type": media_type, "content-length": str(len(data))}
        if self.registry.manners.digest_header:
            headers["docker-content-digest"] = digest
        self._answer(200, data, headers)

    def _put_manifest(self, name: str, reference: str) -> None:
        data = bytes(self._body())
        algorithm = reference.partition(":")[0] if DIGEST.fullmatch(reference) else "sha256"
        digest = f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
        if DIGEST.fullmatch(reference) and digest != reference:
            raise Refused(400, "DIGEST_INVALID")
        try:
            document = json.loads(data)
        except ValueError:
            raise Refused(400, "MANIFEST_INVALID", "no JSON") from None
        media_type = self.headers.get("content-type", "")
        if document.get("mediaType", media_type) != media_type:
            raise Refused(400, "MANIFEST_INVALID", "its type is another")
        held = self.registry.of(name)
        listed = [document["config"]] if "config" in document else []
        for entry in [*listed, *document.get("layers", ()), *document.get("blobs", ())]:
            if entry["digest"] not in held.blobs and not entry.get("urls"):
                raise Refused(400, "MANIFEST_BLOB_UNKNOWN", entry["digest"])
        for entry in document.get("manifests", ()):
            if entry["digest"] not in held.manifests and entry["digest"] not in held.blobs:
                raise Refused(400, "MANIFEST_BLOB_UNKNOWN", entry["digest"])
        with self.registry.mutex:
            held.manifests[digest] = (media_type, data)
            if TAG.fullmatch(reference):
                held.tags[reference] = digest
        headers = {"location": f"/v2/{name}/manifests/{digest}"}
        if self.registry.manners.digest_header:
            headers["docker-content-digest"] = digest
        if "subject" in document and self.registry.manners.referrers_api:
            headers["oci-subject"] = document["subject"]["digest"]
        self._answer(201, b"", headers)

    def _tags(self, name: str) -> None:
        self._signed(name, push=False)
        names = sorted(self._repository(name).tags)
        names = [one for one in names if one > self.query.get("last", "")]
        page, rest = self._page(names)
        headers = {}
        if rest and self.registry.manners.link:
            headers["link"] = f'</v2/{name}/tags/list?n={len(page)}&last={page[-1]}>; rel="next"'
        self._answer(200, json.dumps({"name": name, "tags": page}).encode(), headers)

    def _page(self, items: list[Any]) -> tuple[list[Any], bool]:
        most = self.registry.manners.page or len(items)
        if self.query.get("n", "").isdigit():
            most = min(most, int(self.query["n"]))
        return items[:most], len(items) > most

    def _referrers(self, name: str, digest: str) -> None:
        self._signed(name, push=False)
        if not self.registry.manners.referrers_api:
            raise Refused(404, "UNSUPPORTED")
        found: list[dict[str, Any]] = []
        for one, (media_type, data) in sorted(self.registry.of(name).manifests.items()):
            document = json.loads(data)
            if (document.get("subject") or {}).get("digest") == self._good(digest):
                kind = document.get("artifactType") or document.get("config", {}).get("mediaType", "")
                found.append({"mediaType": media_type, "digest": one, "size": len(data), "artifactType": kind})
        at = int(self.query.get("at", "0"))
        page, rest = self._page(found[at:])
        headers = {"content-type": "application/vnd.oci.image.index.v1+json"}
        if rest:
            headers["link"] = f'<{self.parts.path}?at={at + len(page)}>; rel="next"'
        index = {"schemaVersion": 2, "mediaType": headers["content-type"], "manifests": page}
        self._answer(200, json.dumps(index).encode(), headers)

    def _repository(self, name: str) -> Repository:
        with self.registry.mutex:
            held = self.registry.repositories.get(name)
        if held is None:
            raise Refused(404, "NAME_UNKNOWN")
        return held

    def _good(self, digest: str) -> str:
        if not DIGEST.fullmatch(digest):
            raise Refused(400, "DIGEST_INVALID", "no digest")
        return digest
