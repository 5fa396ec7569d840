"""GcsChanges against a stand-in that keeps to the documented REST shapes of Cloud Storage notifications and Pub/Sub.

There is no server of Pub/Sub among the lab's: what this shows is that we speak the written protocol, and what we make
of its answers, not that the real service agrees."""

from __future__ import annotations

import base64
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import pytest

from crossload.conformance.changes import CASES, Case, ChangesBench
from crossload.estate.place import Place
from crossload.ports.changes import CREATED, REMOVED
from crossload.ports.errors import AccessDenied, Invalid, NotFound, NotSignedIn, PreconditionFailed
from crossload.ports.provider import Settings
from crossload.ports.store import ObjectInfo, ObjectMeta
from crossload.providers.gcp.changes import change_in, open_changes, pubsub
from crossload.providers.gcp.session import forget_tokens
from crossload.providers.keepalive import close_idle

AGENT = "service-1@gs-project-accounts.example"
DEADLINE_SECONDS = 1.5


class Cloud:
    """Objects, notifications, topics and subscriptions of one project; every request needs the token."""

    def __init__(self) -> None:
        self.mutex = threading.RLock()
        self.token = secrets.token_hex(8)
        self.buckets: dict[str, dict[str, tuple[int, int]]] = {}  # key -> (generation, size)
        self.notifications: dict[str, dict[str, dict[str, Any]]] = {}
        self.topics: dict[str, dict[str, Any]] = {}
        self.subscriptions: dict[str, dict[str, Any]] = {}
        self.generation = int(time.time() * 1e6)
        self.cut_in = 0  # refuse the request that comes as this many'th

    # -- the store's side

    def publish(self, bucket: str, event: str, key: str, generation: int, size: int, **more: str) -> None:
        for held in self.notifications.get(bucket, {}).values():
            topic = held["topic"].removeprefix("//pubsub.googleapis.com/")
            if event not in held["event_types"] or not key.startswith(held.get("object_name_prefix", "")):
                continue
            attributes = {
                "notificationConfig": f"projects/_/buckets/{bucket}/notificationConfigs/{held['id']}",
                "eventType": event, "payloadFormat": "JSON_API_V1", "bucketId": bucket, "objectId": key,
                "objectGeneration": str(generation), "eventTime": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
                **more,
            }  # fmt: skip
            payload = {"kind": "storage#object", "name": key, "size": str(size), "generation": str(generation)}
            data = base64.b64encode(json.dumps(payload).encode()).decode()
            for subscription in self.subscriptions.values():
                if subscription["topic"] == topic:
                    message = {"attributes": attributes, "data": data, "messageId": secrets.token_hex(4)}
                    subscription["held"][secrets.token_hex(8)] = [message, 0.0]

    # -- the service's side

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        parts = [unquote(part) for part in path.split("/") if part]
        with self.mutex:
            self.cut_in -= 1
            if self.cut_in == 0:
                return 403, {"error": {"message": "cut"}}
            if parts[:2] == ["storage", "v1"]:
                return self.storage(method, parts[2:], body)
            name, _, verb = "/".join(parts[1:]).partition(":")
            return self.topic(method, name, verb, body) if "/topics/" in name else self.pulled(method, name, verb, body)

    def storage(self, method: str, parts: list[str], body: dict[str, Any]) -> tuple[int, Any]:
        if parts[0] == "projects":
            return 200, {"kind": "storage#serviceAccount", "email_address": AGENT}
        bucket = parts[1]
        if bucket not in self.buckets:
            return 404, {"error": {"message": "no such bucket"}}
        held = self.notifications.setdefault(bucket, {})
        if method == "GET":
            return 200, {"items": list(held.values())} if held else {"kind": "storage#notifications"}
        if method == "POST":
            bindings = self.topics[body["topic"].removeprefix("//pubsub.googleapis.com/")]["policy"].get("bindings", [])
            if not any(f"serviceAccount:{AGENT}" in item["members"] for item in bindings):
                return 403, {"error": {"message": "the agent may not publish to this topic"}}
            number = str(len(held) + 1)
            held[number] = {**body, "id": number, "kind": "storage#notification"}
            return 200, held[number]
        return (204, None) if held.pop(parts[3], None) else (404, {"error": {"message": "no such notification"}})

    def topic(self, method: str, name: str, verb: str, body: dict[str, Any]) -> tuple[int, Any]:
        if method == "PUT":
            if name in self.topics:
                return 409, {"error": {"message": "ALREADY_EXISTS", "status": "ALREADY_EXISTS"}}
            theirs = {"role": "roles/pubsub.viewer", "members": ["user:somebody@example"]}
            self.topics[name] = {"policy": {"etag": "e1", "bindings": [theirs]}}
            return 200, {"name": name}
        if name not in self.topics:
            return 404, {"error": {"message": "NOT_FOUND"}}
        if verb == "getIamPolicy":
            return 200, self.topics[name]["policy"]
        if verb == "setIamPolicy":
            if body["policy"].get("etag") != self.topics[name]["policy"]["etag"]:
                return 409, {"error": {"message": "the policy changed meanwhile"}}
            self.topics[name]["policy"] = {**body["policy"], "etag": secrets.token_hex(2)}
            return 200, self.topics[name]["policy"]
        del self.topics[name]
        return 200, {}

    def pulled(self, method: str, name: str, verb: str, body: dict[str, Any]) -> tuple[int, Any]:
        if method == "PUT":
            if name in self.subscriptions:
                return 409, {"error": {"message": "ALREADY_EXISTS"}}
            if body["topic"] not in self.topics:
                return 404, {"error": {"message": "no such topic"}}
            self.subscriptions[name] = {**body, "held": {}}
            return 200, body
        if name not in self.subscriptions:
            return 404, {"error": {"message": "NOT_FOUND"}}
        held = self.subscriptions[name]["held"]
        if verb == "pull":
            now = time.monotonic()
            free = [number for number, (_, until) in held.items() if until <= now][: body["maxMessages"]]
            for number in free:
                held[number][1] = now + DEADLINE_SECONDS
            found = [{"ackId": number, "message": held[number][0]} for number in free]
            return 200, {"receivedMessages": found} if found else {}
        if verb == "acknowledge":
            for number in body["ackIds"]:
                held.pop(number, None)
            return 200, {}
        del self.subscriptions[name]
        return 200, {}


class CloudStore:
    """As much of a store as the suite asks for; it tells the stand-in of every change, as the service does."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    def ensure_bucket(self, bucket: str) -> bool:
        return self.cloud.buckets.setdefault(bucket, {}) == {}

    def remove_bucket(self, bucket: str) -> bool:
        self.cloud.notifications.pop(bucket, None)
        return self.cloud.buckets.pop(bucket, None) is not None

    def list(self, bucket: str, prefix: str = "") -> Iterator[ObjectInfo]:
        held = self.cloud.buckets.get(bucket)
        if held is None:
            raise NotFound(f"no bucket {bucket}")
        return iter([ObjectInfo(key, size, str(generation)) for key, (generation, size) in held.items()])

    def head(self, bucket: str, key: str) -> tuple[ObjectInfo, ObjectMeta]:
        return next(info for info in self.list(bucket) if info.key == key), ObjectMeta()

    def write(self, bucket: str, key: str, data: bytes, meta: ObjectMeta) -> ObjectInfo:
        with self.cloud.mutex:
            before = self.cloud.buckets[bucket].get(key)
            self.cloud.generation += 1
            now = self.cloud.generation
            self.cloud.buckets[bucket][key] = (now, len(data))
            if before is not None:  # the order of the two is nobody's promise: the worse one
                self.cloud.publish(bucket, "OBJECT_FINALIZE", key, now, len(data), overwroteGeneration=str(before[0]))
                replaced = {"overwrittenByGeneration": str(now)}
                self.cloud.publish(bucket, "OBJECT_DELETE", key, before[0], before[1], **replaced)
            else:
                self.cloud.publish(bucket, "OBJECT_FINALIZE", key, now, len(data))
            return ObjectInfo(key, len(data), str(now))

    def delete(self, bucket: str, key: str) -> None:
        with self.cloud.mutex:
            generation, size = self.cloud.buckets[bucket].pop(key)
            self.cloud.publish(bucket, "OBJECT_DELETE", key, generation, size)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cloud: Cloud

    def log_message(self, format: str, *args: Any) -> None:
        return

    def _serve(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.path == "/token":
            status, found = 200, {"access_token": self.cloud.token, "expires_in": 3600}
        elif self.headers.get("authorization") != f"Bearer {self.cloud.token}":
            status, found = 401, {"error": {"message": "who are you"}}
        else:
            status, found = self.cloud.answer(self.command, self.path, json.loads(raw) if raw else {})
        body = b"" if found is None else json.dumps(found).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_DELETE = _serve


@pytest.fixture(scope="module")
def cloud() -> Cloud:
    return Cloud()


@pytest.fixture(scope="module")
def settings(cloud: Cloud) -> Iterator[Settings]:
    handler = type("Bound", (Handler,), {"cloud": cloud})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    connection = {
        "endpoint": address, "pubsub_endpoint": address, "issuer": address, "client_id": "mover",
        "client_secret": "env:STAND_IN", "project": "p1",
    }  # fmt: skip
    yield Settings(Place("changes-b", "gcp", "europe-west3", "DE", connection), connection, {"STAND_IN": "x"})
    close_idle()
    forget_tokens()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def bench(cloud: Cloud, settings: Settings) -> Iterator[ChangesBench]:
    made = ChangesBench(
        open=lambda: open_changes(settings), again_seconds=DEADLINE_SECONDS + 0.2,
        store=lambda: CloudStore(cloud),  # pyright: ignore[reportArgumentType]
    )  # fmt: skip
    yield made
    made.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_gcs_changes(case: Case[ChangesBench], bench: ChangesBench, keeps: Callable[..., None]) -> None:
    keeps(case, bench, {})


def test_roles_of_others_on_the_topic_stay_and_the_undo_leaves_nothing(cloud: Cloud, settings: Settings) -> None:
    CloudStore(cloud).ensure_bucket("tidy")
    cloud.notifications["tidy"] = {
        "9": {"id": "9", "topic": "//pubsub.googleapis.com/projects/p1/topics/theirs", "event_types": []}
    }
    changes = open_changes(settings)
    before = (set(cloud.topics), set(cloud.subscriptions))
    token = changes.ensure("tidy", owner="m")
    held = json.loads(token)
    roles = {item["role"] for item in cloud.topics[held["topic"]]["policy"]["bindings"]}
    assert roles == {"roles/pubsub.viewer", "roles/pubsub.publisher"}
    assert cloud.subscriptions[held["subscription"]]["expirationPolicy"] == {}, "a pause must not end the stream"
    changes.remove(token)
    assert (set(cloud.topics), set(cloud.subscriptions)) == before
    assert set(cloud.notifications["tidy"]) == {"9"}


def test_ensure_is_killed_at_every_request_and_repeated(cloud: Cloud, settings: Settings) -> None:
    """Whatever was made before the kill is taken up, and the stream works."""
    changes = open_changes(settings)
    for point in range(1, 8):
        bucket = f"killed-{point}"
        CloudStore(cloud).ensure_bucket(bucket)
        cloud.cut_in = point
        with pytest.raises(AccessDenied):
            changes.ensure(bucket, owner="m")
        token = changes.ensure(bucket, owner="m")
        CloudStore(cloud).write(bucket, "doc", b"x", ObjectMeta())
        assert [change.key for change in changes.follow(bucket, token=token).poll(2).changes] == ["doc"]
        changes.remove(token)


MESSAGE = {
    "attributes": {
        "eventType": "OBJECT_ARCHIVE", "bucketId": "b", "objectId": "a b/ü", "objectGeneration": "1556835845511018",
        "eventTime": "2026-03-01T10:00:00.123456Z", "payloadFormat": "NONE",
    }
}  # fmt: skip


def test_an_archived_object_is_removed_unless_it_was_replaced() -> None:
    gone = change_in(MESSAGE, "b")
    assert gone is not None
    assert (gone.key, gone.kind, gone.size_bytes, gone.etag) == ("a b/ü", REMOVED, 0, "")
    told = {**MESSAGE["attributes"], "overwrittenByGeneration": "1556835845511019"}
    replaced = change_in({"attributes": told}, "b")
    assert replaced is not None
    assert (replaced.kind, replaced.etag, replaced.size_bytes) == (CREATED, "1556835845511019", None)
    assert gone.sequence < replaced.sequence
    assert change_in(MESSAGE, "another") is None


def test_errors_are_ours(cloud: Cloud, settings: Settings) -> None:
    changes = open_changes(settings)
    with pytest.raises(NotFound):
        changes.ensure("never-made", owner="m")
    with pytest.raises(Invalid):
        changes.follow("b", token="{}")
    held, cloud.token = cloud.token, "another"
    try:
        with pytest.raises(NotSignedIn):
            changes.ensure("tidy", owner="m")
    finally:
        cloud.token = held
    with pytest.raises(PreconditionFailed):
        policy = {"policy": {"etag": "old"}}
        topic = next(iter(cloud.topics), "") or json.loads(changes.ensure("tidy", owner="m"))["topic"]
        pubsub(settings, "POST", f"{topic}:setIamPolicy", policy)
