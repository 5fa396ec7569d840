"""A model host: the Open Inference Protocol's model repository in front of llama.cpp.

    GET  /v2/health/ready
    POST /v2/repository/index
    POST /v2/repository/models/NAME/load     {"parameters": {"uri": "gs://BUCKET/KEY", "sha256": "..."}}
    POST /v2/repository/models/NAME/unload

It fetches the artifact itself, with an identity of its own, and serves nothing whose sha256 is not the one asked for.
One model at a time; what was loaded is remembered and served again after a restart.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from crossload.lab.launch import die_with_parent
from crossload.lab.loopback import direct
from crossload.lab.programs.serving import JsonHandler, serve
from crossload.lab.site import write_private

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_CHUNK_BYTES = 1024 * 1024
_START_SECONDS_MAX = 60.0


class Refused(Exception):
    """A request that cannot be done; `status` is the HTTP answer."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Deployment:
    """A model that is, or should be, served: its name, where it came from, and the digest of the bytes on disk."""

    name: str
    uri: str
    sha256: str
    size_bytes: int


class Store:
    """Reads objects of cloud B's bucket with tokens of the host's own identity."""

    def __init__(self, endpoint: str, issuer: str, client: str, secret_file: Path) -> None:
        self._endpoint = endpoint
        self._issuer = issuer
        self._client = client
        self._secret_file = secret_file

    def fetch(self, uri: str, target: Path) -> tuple[str, int]:
        """Download to `target`; returns (sha256, size in bytes). Raises Refused."""
        parts = urllib.parse.urlsplit(uri)
        key = parts.path.removeprefix("/")
        if parts.scheme != "gs" or not parts.netloc or not key:
            raise Refused(HTTPStatus.BAD_REQUEST, f"not an object address of this cloud: {uri}")
        road = f"{self._endpoint}/storage/v1/b/{parts.netloc}/o/{urllib.parse.quote(key, safe='')}?alt=media"
        request = urllib.request.Request(road, headers={"Authorization": f"Bearer {self._token()}"})  # noqa: S310
        digest, size_bytes = hashlib.sha256(), 0
        try:
            with direct.open(request, timeout=60) as answer, target.open("wb") as out:
                while chunk := answer.read(_CHUNK_BYTES):
                    out.write(chunk)
                    digest.update(chunk)
                    size_bytes += len(chunk)
        except urllib.error.HTTPError as error:
            with error:
                raise Refused(HTTPStatus.FAILED_DEPENDENCY, f"the store answered {error.code} for {uri}") from None
        except OSError as error:
            raise Refused(HTTPStatus.FAILED_DEPENDENCY, f"the store did not answer for {uri}: {error}") from None
        return digest.hexdigest(), size_bytes

    def _token(self) -> str:
        form = urllib.parse.urlencode(
            {
                "grant_type": "client_credentials",
                "client_id": self._client,
                "client_secret": self._secret_file.read_text().strip(),
            }
        )
        try:
            with direct.open(self._issuer + "/token", data=form.encode(), timeout=10) as answer:
                token: str = json.load(answer)["access_token"]
                return token
        except (OSError, ValueError, KeyError) as error:
            raise Refused(HTTPStatus.FAILED_DEPENDENCY, f"no token for the model host: {error}") from None


class ModelHost:
    """Holds at most one model. Loading is done by one thread at a time; the others wait."""

    def __init__(self, folder: Path, port: int, key_file: Path, store: Store) -> None:
        self._folder = folder
        self._port = port
        self._key_file = key_file
        self._store = store
        self._changing = threading.RLock()
        self._deployment: Deployment | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._reason = ""
        self._loading: str | None = None

    @property
    def _memory(self) -> Path:
        return self._folder / "deployment.json"

    def restore(self) -> None:
        """Serve again what was served before a restart, if its bytes are still what they were."""
        try:
            remembered = Deployment(**json.loads(self._memory.read_text()))
        except (OSError, ValueError, TypeError):
            return
        path = self._model_path(remembered.sha256)
        with self._changing:
            try:
                if not path.exists() or _sha256(path) != remembered.sha256:
                    raise Refused(HTTPStatus.CONFLICT, "the model file on disk is gone or changed")
                self._serve(remembered)
            except Refused as refused:
                self._deployment, self._reason = remembered, str(refused)

    def load(self, name: str, uri: str, sha256: str) -> dict[str, Any]:
        """Fetch, check and serve. A model that already is served from the same bytes is left alone."""
        with self._changing:
            held = self._deployment
            if held is not None and (held.name, held.uri, held.sha256) == (name, uri, sha256) and self._alive():
                return asdict(held)
            self._loading = name
            try:
                return asdict(self._load(name, uri, sha256))
            finally:
                self._loading = None

    def _load(self, name: str, uri: str, sha256: str) -> Deployment:
        (self._folder / "models").mkdir(parents=True, exist_ok=True)
        draft = self._folder / "models" / "incoming.part"
        try:
            found, size_bytes = self._store.fetch(uri, draft)
            if found != sha256:
                raise Refused(HTTPStatus.CONFLICT, f"sha256 of {uri} is {found}, not {sha256}")
            deployment = Deployment(name, uri, found, size_bytes)
            path = self._model_path(found)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
        before = self._deployment
        self._stop()
        try:
            self._serve(deployment)
        except Refused:
            if before is not None and before.sha256 != deployment.sha256:
                path.unlink(missing_ok=True)
                with contextlib.suppress(Refused):
                    self._serve(before)
            raise
        write_private(self._memory, json.dumps(asdict(deployment)))
        for other in (self._folder / "models").iterdir():
            if other != path:
                other.unlink()
        return deployment

    def unload(self, name: str) -> None:
        with self._changing:
            if self._deployment is None or self._deployment.name != name:
                raise Refused(HTTPStatus.NOT_FOUND, f"no model is named {name}")
            self._stop()
            self._memory.unlink(missing_ok=True)
            self._model_path(self._deployment.sha256).unlink(missing_ok=True)
            self._deployment, self._reason = None, ""

    def index(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        held = self._deployment
        if held is not None:
            state = "READY" if self._alive() else "UNAVAILABLE"
            rows.append({**asdict(held), "version": held.sha256[:12], "state": state, "reason": self._reason})
        loading = self._loading
        if loading is not None and (held is None or held.name != loading):
            rows.append({"name": loading, "state": "LOADING", "reason": ""})
        return rows

    def close(self) -> None:
        self._stop()

    def _model_path(self, sha256: str) -> Path:
        return self._folder / "models" / f"{sha256}.gguf"

    def _alive(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def _serve(self, deployment: Deployment) -> None:
        argv = [
            sys.executable, "-m", "crossload.lab.programs.llm", "--port", str(self._port),
            "--model", str(self._model_path(deployment.sha256)), "--alias", deployment.name,
            "--key-file", str(self._key_file),
        ]  # fmt: skip
        self._child = _in_main_thread(
            lambda: subprocess.Popen(argv, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent(os.getpid()))
        )
        deadline = time.monotonic() + _START_SECONDS_MAX
        while not _healthy(self._port):
            if not self._alive():
                raise Refused(
                    HTTPStatus.UNPROCESSABLE_ENTITY, "the model file cannot be served: llama.cpp ended while loading it"
                )
            if time.monotonic() > deadline:
                self._stop()
                raise Refused(HTTPStatus.GATEWAY_TIMEOUT, f"not healthy after {_START_SECONDS_MAX:.0f} s")
            time.sleep(0.05)
        self._deployment, self._reason = deployment, ""

    def _stop(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.terminate()
        try:
            child.wait(timeout=3)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


class _MainThread:
    """Runs calls in the main thread: the death signal of a child is tied to the thread that forked it."""

    def __init__(self) -> None:
        self._ready = threading.Condition()
        self._calls: list[tuple[Any, list[Any]]] = []

    def run(self, call: Any) -> Any:
        if threading.current_thread() is threading.main_thread():
            return call()
        answer: list[Any] = []
        with self._ready:
            self._calls.append((call, answer))
            self._ready.notify_all()
            while not answer:
                self._ready.wait()
        if isinstance(answer[0], BaseException):
            raise answer[0]
        return answer[0]

    def loop(self, ended: threading.Event) -> None:
        while not ended.is_set():
            with self._ready:
                if not self._calls:
                    self._ready.wait(timeout=0.5)
                calls, self._calls = self._calls, []
                for call, answer in calls:
                    try:
                        answer.append(call())
                    except Exception as error:  # noqa: BLE001  # handed to the thread that asked
                        answer.append(error)
                self._ready.notify_all()


_main_thread = _MainThread()
_in_main_thread = _main_thread.run


def _healthy(port: int) -> bool:
    try:
        with direct.open(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
            return answer.status == HTTPStatus.OK
    except (OSError, ValueError):
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


class _Handler(JsonHandler):
    host: ModelHost
    key: str

    def do_GET(self) -> None:
        if self.path == "/v2/health/ready":
            self.reply(HTTPStatus.OK, {"ready": True})
        else:
            self.reply(HTTPStatus.NOT_FOUND, {"error": "not found"})

    def do_POST(self) -> None:
        try:
            request = self.json_body()
            if not self.bears(self.key):
                raise Refused(HTTPStatus.UNAUTHORIZED, "a valid key is needed")
            self._act(request)
        except Refused as refused:
            self.reply(refused.status, {"error": str(refused)})
        except ValueError as error:
            self.reply(HTTPStatus.BAD_REQUEST, {"error": str(error)})

    def _act(self, request: dict[str, Any]) -> None:
        if self.path == "/v2/repository/index":
            self.reply(HTTPStatus.OK, self.host.index())
            return
        found = re.fullmatch(r"/v2/repository/models/([^/]+)/(load|unload)", self.path)
        name = urllib.parse.unquote(found[1]) if found else ""
        if found is None or not _NAME.fullmatch(name):
            raise Refused(HTTPStatus.NOT_FOUND, "not found")
        if found[2] == "unload":
            self.host.unload(name)
            self.reply(HTTPStatus.OK, {})
            return
        parameters: Any = request.get("parameters")
        if not isinstance(parameters, dict):
            raise Refused(HTTPStatus.BAD_REQUEST, "parameters.uri and parameters.sha256 are needed")
        uri, sha256 = str(parameters.get("uri", "")), str(parameters.get("sha256", "")).lower()
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise Refused(HTTPStatus.BAD_REQUEST, "parameters.sha256 must be 64 hexadecimal digits")
        self.reply(HTTPStatus.OK, self.host.load(name, uri, sha256))


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--admin-port", "--port"):
        parser.add_argument(name, type=int, required=True)
    for name in ("--folder", "--key-file", "--client-secret-file"):
        parser.add_argument(name, type=Path, required=True)
    for name in ("--issuer", "--client", "--store"):
        parser.add_argument(name, required=True)
    arguments = parser.parse_args()
    ended = threading.Event()
    store = Store(arguments.store, arguments.issuer, arguments.client, arguments.client_secret_file)
    host = ModelHost(arguments.folder, arguments.port, arguments.key_file, store)
    _Handler.host, _Handler.key = host, arguments.key_file.read_text().strip()
    signal.signal(signal.SIGTERM, lambda _number, _frame: ended.set())
    host.restore()
    threading.Thread(target=serve, args=(_Handler, arguments.admin_port), daemon=True).start()
    _main_thread.loop(ended)
    host.close()


if __name__ == "__main__":
    main()
