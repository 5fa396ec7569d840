"""The Changes port over Cloud Storage: notifications of a bucket to a Pub/Sub topic and subscription of our own."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

from crossload.ports.changes import CREATED, REMOVED, Batch, Change
from crossload.ports.errors import Invalid, NotFound, PreconditionFailed
from crossload.ports.provider import Settings
from crossload.providers.gcp.session import access_token, bucket_path, request, translate
from crossload.providers.keepalive import send

_PUBLIC = "https://pubsub.googleapis.com"
_EVENTS = ("OBJECT_FINALIZE", "OBJECT_DELETE", "OBJECT_ARCHIVE")
_PUBLISHER = "roles/pubsub.publisher"
_LOOK_SECONDS = 1.0
_PULL_MESSAGES = 500
_ACKNOWLEDGE_IDS = 500
_ACKNOWLEDGE_SECONDS = 120
_KEEP_SECONDS = 7 * 86_400


def open_changes(settings: Settings) -> GcsChanges:
    return GcsChanges(settings)


class GcsChanges:
    """The token is JSON: `bucket`, `topic` and `subscription` (whole resource names)."""

    def __init__(self, settings: Settings) -> None:
        self.place = settings.place.id
        self._settings = settings

    def ensure(self, bucket: str, prefix: str = "", owner: str = "") -> str:
        project = self._settings.require("project")
        name = _name_for(self.place, bucket, owner)
        topic, subscription = f"projects/{project}/topics/{name}", f"projects/{project}/subscriptions/{name}"
        self._make(topic, {})
        self._let_publish(topic, project)
        # The subscription before the notification: a topic keeps nothing for those who come later.
        wanted = {
            "topic": topic, "ackDeadlineSeconds": _ACKNOWLEDGE_SECONDS, "expirationPolicy": {},
            "messageRetentionDuration": f"{_KEEP_SECONDS}s",
        }  # fmt: skip
        self._make(subscription, wanted)
        if not self._notifications(bucket, topic):
            body = {
                "topic": f"//pubsub.googleapis.com/{topic}", "payload_format": "JSON_API_V1",
                "event_types": list(_EVENTS), **({"object_name_prefix": prefix} if prefix else {}),
            }  # fmt: skip
            self._storage("POST", f"{bucket_path(bucket)}/notificationConfigs", body)
        return json.dumps({"bucket": bucket, "topic": topic, "subscription": subscription}, sort_keys=True)

    def remove(self, token: str) -> None:
        held = _token(token)
        try:
            ours = self._notifications(held["bucket"], held["topic"])
        except NotFound:
            ours = []  # the bucket itself is gone
        for number in ours:
            self._quietly(
                lambda at=number: self._storage("DELETE", f"{bucket_path(held['bucket'])}/notificationConfigs/{at}")
            )
        for resource in (held["subscription"], held["topic"]):
            self._quietly(lambda at=resource: pubsub(self._settings, "DELETE", at))

    def follow(self, bucket: str, prefix: str = "", token: str = "", cursor: str = "") -> GcsSubscription:
        held = _token(token)
        if held["bucket"] != bucket:
            raise Invalid(f"this token is for bucket {held['bucket']}, not for {bucket}")
        return GcsSubscription(self._settings, held["subscription"], bucket, prefix)

    # -- inside

    def _make(self, resource: str, body: Mapping[str, Any]) -> None:
        try:
            pubsub(self._settings, "PUT", resource, body)
        except PreconditionFailed:  # ALREADY_EXISTS: by our own first try
            return

    def _let_publish(self, topic: str, project: str) -> None:
        """The project's own Cloud Storage agent is who publishes; roles that others hold on the topic stay."""
        agent = self._storage("GET", f"/storage/v1/projects/{quote(project, safe='')}/serviceAccount")["email_address"]
        member = f"serviceAccount:{agent}"
        policy = pubsub(self._settings, "GET", f"{topic}:getIamPolicy")
        bindings: list[dict[str, Any]] = policy.get("bindings", [])
        if any(item.get("role") == _PUBLISHER and member in item.get("members", ()) for item in bindings):
            return
        wanted = {**policy, "bindings": [*bindings, {"role": _PUBLISHER, "members": [member]}]}
        pubsub(self._settings, "POST", f"{topic}:setIamPolicy", {"policy": wanted})

    def _notifications(self, bucket: str, topic: str) -> list[str]:
        """Ids of the bucket's notifications to our topic."""
        found = self._storage("GET", f"{bucket_path(bucket)}/notificationConfigs").get("items", ())
        return [str(item["id"]) for item in found if str(item.get("topic", "")).endswith(f"/{topic}")]

    def _storage(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        content = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"content-type": "application/json"}
        answer = request(self._settings, method, path, headers=headers, content=content)
        return answer.json() if answer.content.strip() else {}

    def _quietly(self, call: Any) -> None:
        try:
            call()
        except NotFound:
            return


class GcsSubscription:
    """Messages not acknowledged within two minutes come again."""

    def __init__(self, settings: Settings, subscription: str, bucket: str, prefix: str) -> None:
        self._settings, self._subscription = settings, subscription
        self._bucket, self._prefix = bucket, prefix

    def poll(self, wait_seconds: float) -> Batch:
        # A pull that waits decides by itself how long; asking anew keeps to our caller's time.
        until = time.monotonic() + wait_seconds
        body = {"maxMessages": _PULL_MESSAGES, "returnImmediately": True}
        while True:
            found = self._pull(body)
            if found or time.monotonic() >= until:
                break
            time.sleep(max(0.0, min(_LOOK_SECONDS, until - time.monotonic())))
        changes: list[Change] = []
        unread = 0
        for item in found:
            try:
                change = change_in(item["message"], self._bucket)
            except (ValueError, KeyError, TypeError):
                unread += 1
                continue
            if change is not None and change.key.startswith(self._prefix):
                changes.append(change)
        return Batch(tuple(changes), tuple(str(item["ackId"]) for item in found), unread=unread)

    def _pull(self, body: Mapping[str, Any]) -> list[dict[str, Any]]:
        try:
            return pubsub(self._settings, "POST", f"{self._subscription}:pull", body).get("receivedMessages", [])
        except NotFound as error:
            hint = "run `ensure` again; a listing finds what it lost"
            raise NotFound(f"{self._subscription} is gone", hint=hint) from error

    def acknowledge(self, batch: Batch) -> None:
        for start in range(0, len(batch.receipts), _ACKNOWLEDGE_IDS):
            some = list(batch.receipts[start : start + _ACKNOWLEDGE_IDS])
            pubsub(self._settings, "POST", f"{self._subscription}:acknowledge", {"ackIds": some})


def change_in(message: Mapping[str, Any], bucket: str) -> Change | None:
    """The change of one message; None when it is another bucket's, or no event that we asked for."""
    told: Mapping[str, str] = message["attributes"]
    event = told["eventType"]
    if told["bucketId"] != bucket or event not in _EVENTS:
        return None
    generation = told["objectGeneration"]
    # What was replaced is archived or deleted, too: the key then holds the generation that took its place.
    replaced_by = told.get("overwrittenByGeneration", "")
    removed = event != "OBJECT_FINALIZE" and not replaced_by
    size: int | None = 0 if removed else None
    if event == "OBJECT_FINALIZE" and message.get("data"):
        held = json.loads(base64.b64decode(message["data"]))
        size = int(held["size"]) if "size" in held else None
    at = told.get("eventTime", "")
    now = replaced_by or generation
    return Change(
        told["objectId"], REMOVED if removed else CREATED, datetime.fromisoformat(at).timestamp() if at else None,
        "" if removed else now, f"{int(now):020d}.{int(removed)}", size,
    )  # fmt: skip


def pubsub(settings: Settings, method: str, resource: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """One request to Pub/Sub's REST API (v1), with the place's own token."""
    endpoint = settings.get("pubsub_endpoint", _PUBLIC).rstrip("/")
    headers = {"authorization": f"Bearer {access_token(settings).value}", "content-type": "application/json"}
    content = None if body is None else json.dumps(body).encode()
    answer = send(method, f"{endpoint}/v1/{resource}", headers, None, content)
    if answer.status_code != 200:
        raise translate(method, answer)
    found: dict[str, Any] = answer.json() if answer.content.strip() else {}
    return found


def _name_for(*stream: str) -> str:
    """A name that topics and subscriptions both take; the same for the same stream."""
    mark = hashlib.sha256(json.dumps(stream).encode()).hexdigest()[:16]
    return f"crossload-{re.sub(r'[^a-z0-9]+', '-', stream[1].lower())[:40].strip('-')}-{mark}"


def _token(token: str) -> dict[str, str]:
    try:
        held = json.loads(token)
        return {name: str(held[name]) for name in ("bucket", "topic", "subscription")}
    except (ValueError, KeyError, TypeError) as error:
        raise Invalid(f"not a token of `ensure`: {token[:80]!r}") from error
