"""The Changes port over S3: event notifications into an SQS queue of our own, straight or through EventBridge.

Straight is the usual way. S3 allows only one destination for an event on a prefix: where the bucket's own notifications
have taken it, the setting `changes: bus` goes through the event bus, which takes nothing away from anybody."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from urllib.parse import unquote_plus

from crossload.ports.changes import CREATED, REMOVED, Batch, Change
from crossload.ports.errors import Invalid, NotFound
from crossload.ports.provider import Settings
from crossload.providers.aws.errors import translated
from crossload.providers.aws.session import client

_EVENTS = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*", "s3:LifecycleExpiration:*"]
_DETAILS = {"Object Created": CREATED, "Object Deleted": REMOVED}
_TURNED_ON = "crossload-turned-bus-on"  # a tag on our queue: who turned the bucket's bus on survives our own death
_PLAIN_PREFIX = re.compile(r"[A-Za-z0-9/_.-]+\Z")  # others would have to be encoded in a filter; we filter ourselves
_KEEP_SECONDS = 14 * 86_400
HIDE_SECONDS = 120
_BATCH_MESSAGES = 10
_POLL_MESSAGES = 200
_WAIT_SECONDS_MAX = 20
_QUEUE_GONE = ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist")


def open_changes(settings: Settings) -> S3Changes:
    return S3Changes(settings)


class S3Changes:
    """The token is JSON: `bucket`, `name` (of our queue, notification and rule), `by` (queue or bus)."""

    def __init__(self, settings: Settings) -> None:
        self.place = settings.place.id
        self._by = settings.get("changes", "queue")
        if self._by not in ("queue", "bus"):
            raise Invalid(f"place {self.place}: changes: {self._by!r}", hint="write `queue`, or `bus`")
        with translated():
            self._s3: Any = client(settings, "s3")
            self._sqs: Any = client(settings, "sqs")
            self._bus: Any = client(settings, "events")

    def ensure(self, bucket: str, prefix: str = "", owner: str = "") -> str:
        name = _name_for(self.place, bucket, owner, self._by)
        filtered = prefix if _PLAIN_PREFIX.match(prefix) else ""
        with _translated():
            queue = self._queue(name)
            held = self._sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])
            arn: str = held["Attributes"]["QueueArn"]
            if self._by == "bus":
                rule = self._ensure_rule(name, bucket, filtered, arn)
                self._allow(queue, arn, "events.amazonaws.com", rule)
                self._ensure_bus(bucket, queue)
            else:
                partition = arn.split(":")[1]
                self._allow(queue, arn, "s3.amazonaws.com", f"arn:{partition}:s3:::{bucket}")
                self._ensure_notification(bucket, name, arn, filtered)
        return json.dumps({"bucket": bucket, "name": name, "by": self._by}, sort_keys=True)

    def remove(self, token: str) -> None:
        held = _token(token)
        bucket, name = held["bucket"], held["name"]
        with _translated():
            url = self._url(name)
            if held["by"] == "bus":
                self._remove_rule(name)
                if url and _TURNED_ON in self._sqs.list_queue_tags(QueueUrl=url).get("Tags", {}):
                    self._turn_bus_off(bucket)
            else:
                self._remove_notification(bucket, name)
            if url:
                self._sqs.delete_queue(QueueUrl=url)

    def follow(self, bucket: str, prefix: str = "", token: str = "", cursor: str = "") -> S3Subscription:
        held = _token(token)
        if held["bucket"] != bucket:
            raise Invalid(f"this token is for bucket {held['bucket']}, not for {bucket}")
        with _translated():
            url = self._url(held["name"])
        if not url:
            raise NotFound(f"the queue {held['name']} is gone", hint="run `ensure` again; a listing finds what it lost")
        return S3Subscription(self._sqs, url, bucket, prefix)

    # -- the queue

    def _queue(self, name: str) -> str:
        wanted = {
            "MessageRetentionPeriod": str(_KEEP_SECONDS), "VisibilityTimeout": str(HIDE_SECONDS),
            "ReceiveMessageWaitTimeSeconds": "0",
        }  # fmt: skip
        url = self._url(name)
        if not url:
            return self._sqs.create_queue(QueueName=name, Attributes=wanted)["QueueUrl"]
        self._sqs.set_queue_attributes(QueueUrl=url, Attributes=wanted)
        return url

    def _url(self, name: str) -> str:
        try:
            return self._sqs.get_queue_url(QueueName=name)["QueueUrl"]
        except self._sqs.exceptions.ClientError as error:
            if error.response["Error"]["Code"] in _QUEUE_GONE:
                return ""
            raise

    def _allow(self, queue: str, arn: str, service: str, source: str) -> None:
        """The queue is ours alone, and so is its policy: one service may send, for one source, in our account."""
        account = arn.split(":")[4]
        statement = {
            "Sid": "CrossloadChanges", "Effect": "Allow", "Principal": {"Service": service},
            "Action": "sqs:SendMessage", "Resource": arn,
            "Condition": {"ArnEquals": {"aws:SourceArn": source}, "StringEquals": {"aws:SourceAccount": account}},
        }  # fmt: skip
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        self._sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": policy})

    # -- the bucket's notifications: read, changed and written whole, for there is no other way

    def _notifications(self, bucket: str) -> dict[str, Any]:
        held: dict[str, Any] = self._s3.get_bucket_notification_configuration(Bucket=bucket)
        return {name: value for name, value in held.items() if name != "ResponseMetadata"}

    def _put_notifications(self, bucket: str, held: Mapping[str, Any], *, undo: bool = False) -> None:
        # An undo must not fail because somebody else's destination has vanished meanwhile.
        more = {"SkipDestinationValidation": True} if undo else {}
        self._s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=dict(held), **more)

    def _ensure_notification(self, bucket: str, name: str, arn: str, prefix: str) -> None:
        ours: dict[str, Any] = {"Id": name, "QueueArn": arn, "Events": list(_EVENTS)}
        if prefix:
            ours["Filter"] = {"Key": {"FilterRules": [{"Name": "prefix", "Value": prefix}]}}
        held = self._notifications(bucket)
        others = [item for item in held.get("QueueConfigurations", ()) if item.get("Id") != name]
        try:
            self._put_notifications(bucket, {**held, "QueueConfigurations": [*others, ours]})
        except self._s3.exceptions.ClientError as error:
            if error.response["Error"]["Code"] != "InvalidArgument":
                raise
            raise Invalid(
                f"{bucket}: {error.response['Error'].get('Message', error)}",
                hint="if another notification has these events already, set `changes: bus` for this place",
            ) from error

    def _remove_notification(self, bucket: str, name: str) -> None:
        try:
            held = self._notifications(bucket)
        except self._s3.exceptions.ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchBucket", "404"):
                return
            raise
        before = held.get("QueueConfigurations", [])
        others = [item for item in before if item.get("Id") != name]
        if len(others) < len(before):
            rest = {key: value for key, value in held.items() if key != "QueueConfigurations"}
            self._put_notifications(bucket, {**rest, **({"QueueConfigurations": others} if others else {})}, undo=True)

    # -- the bus

    def _ensure_rule(self, name: str, bucket: str, prefix: str, queue_arn: str) -> str:
        detail: dict[str, Any] = {"bucket": {"name": [bucket]}}
        if prefix:
            detail["object"] = {"key": [{"prefix": prefix}]}
        pattern = {"source": ["aws.s3"], "detail-type": sorted(_DETAILS), "detail": detail}
        rule: str = self._bus.put_rule(Name=name, EventPattern=json.dumps(pattern), State="ENABLED")["RuleArn"]
        answer = self._bus.put_targets(Rule=name, Targets=[{"Id": name[:64], "Arn": queue_arn}])
        if answer.get("FailedEntryCount"):
            raise Invalid(f"the rule {name} did not take its queue: {answer.get('FailedEntries')}")
        return rule

    def _remove_rule(self, name: str) -> None:
        for call in (
            lambda: self._bus.remove_targets(Rule=name, Ids=[name[:64]]),
            lambda: self._bus.delete_rule(Name=name),
        ):
            try:
                call()
            except self._bus.exceptions.ClientError as error:
                if error.response["Error"]["Code"] != "ResourceNotFoundException":
                    raise

    def _ensure_bus(self, bucket: str, queue: str) -> None:
        held = self._notifications(bucket)
        if "EventBridgeConfiguration" not in held:
            self._sqs.tag_queue(QueueUrl=queue, Tags={_TURNED_ON: bucket})
            self._put_notifications(bucket, {**held, "EventBridgeConfiguration": {}})

    def _turn_bus_off(self, bucket: str) -> None:
        """Unless somebody else listens by now: it costs nothing, and turning it off would deafen them."""
        for page in self._bus.get_paginator("list_rules").paginate():
            if any(_hears(rule.get("EventPattern") or "", bucket) for rule in page["Rules"]):
                return
        try:
            held = self._notifications(bucket)
        except self._s3.exceptions.ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchBucket", "404"):
                return
            raise
        if "EventBridgeConfiguration" in held:
            rest = {key: value for key, value in held.items() if key != "EventBridgeConfiguration"}
            self._put_notifications(bucket, rest, undo=True)


class S3Subscription:
    """Messages not acknowledged within two minutes come again."""

    def __init__(self, sqs: Any, url: str, bucket: str, prefix: str) -> None:
        self._sqs, self._url, self._bucket, self._prefix = sqs, url, bucket, prefix

    def poll(self, wait_seconds: float) -> Batch:
        messages: list[dict[str, Any]] = []
        wait = min(_WAIT_SECONDS_MAX, max(0, round(wait_seconds)))
        with _translated():
            while len(messages) < _POLL_MESSAGES:
                found = self._sqs.receive_message(
                    QueueUrl=self._url, MaxNumberOfMessages=_BATCH_MESSAGES, WaitTimeSeconds=wait
                ).get("Messages", ())
                messages += found
                if not found:
                    break
                wait = 0
        changes: list[Change] = []
        unread = 0
        for message in messages:
            try:
                changes += changes_in(str(message.get("Body", "")), self._bucket)
            except (ValueError, KeyError, TypeError, AttributeError):
                unread += 1
        return Batch(
            tuple(change for change in changes if change.key.startswith(self._prefix)),
            tuple(message["ReceiptHandle"] for message in messages), unread=unread,
        )  # fmt: skip

    def acknowledge(self, batch: Batch) -> None:
        for start in range(0, len(batch.receipts), _BATCH_MESSAGES):
            some = batch.receipts[start : start + _BATCH_MESSAGES]
            entries = [{"Id": str(number), "ReceiptHandle": receipt} for number, receipt in enumerate(some)]
            with _translated():  # single messages that fail come again, which does no harm
                self._sqs.delete_message_batch(QueueUrl=self._url, Entries=entries)


def changes_in(body: str, bucket: str) -> Iterator[Change]:
    """The changes in one message: records of S3, an event of the bus, or S3's first message, which tests the way."""
    held = json.loads(body)
    if held.get("Event") == "s3:TestEvent":
        return
    if "detail-type" in held:
        kind, detail = _DETAILS[held["detail-type"]], held["detail"]
        if detail["bucket"]["name"] == bucket:
            # The bus gives the key as it is; only notifications encode it.
            yield _change(detail["object"], detail["object"]["key"], kind, held.get("time", ""))
        return
    for record in held["Records"]:
        if record["s3"]["bucket"]["name"] == bucket:
            name = record["eventName"].removeprefix("s3:")
            kind = REMOVED if name.startswith(("ObjectRemoved:", "LifecycleExpiration:")) else CREATED
            item = record["s3"]["object"]
            yield _change(item, unquote_plus(item["key"]), kind, record.get("eventTime", ""))


def _change(item: Mapping[str, Any], key: str, kind: str, when: str) -> Change:
    removed = kind == REMOVED
    size = item.get("size")
    return Change(
        key, kind, datetime.fromisoformat(when).timestamp() if when else None,
        "" if removed else str(item.get("eTag") or item.get("etag") or "").strip('"'),
        # Of two sequencers the shorter counts as if filled up with zeros on the right: without them, text order is it.
        str(item.get("sequencer", "")).upper().rstrip("0"),
        0 if removed else int(size) if size is not None else None,
    )  # fmt: skip


def _hears(pattern: str, bucket: str) -> bool:
    """Whether a rule of the bus may be about this bucket: its pattern names S3, and no other buckets instead."""
    if "aws.s3" not in pattern:
        return False
    try:
        names = json.loads(pattern)["detail"]["bucket"]["name"]
    except (ValueError, KeyError, TypeError):
        return True
    return bucket in names or not all(isinstance(name, str) for name in names)


def _name_for(*stream: str) -> str:
    """At most 64 letters of those that queues, rules and notifications all take; the same for the same stream."""
    bucket = stream[1]
    mark = hashlib.sha256(json.dumps(stream).encode()).hexdigest()[:16]
    return f"crossload-{re.sub(r'[^A-Za-z0-9]+', '-', bucket)[:30].strip('-')}-{mark}"


def _token(token: str) -> dict[str, str]:
    try:
        held = json.loads(token)
        return {name: str(held[name]) for name in ("bucket", "name", "by")}
    except (ValueError, KeyError, TypeError) as error:
        raise Invalid(f"not a token of `ensure`: {token[:80]!r}") from error


@contextmanager
def _translated() -> Iterator[None]:
    """`translated`, with the queue service's own word for a queue that is not there."""
    try:
        with translated():
            yield
    except Invalid as error:
        if any(code in str(error) for code in _QUEUE_GONE):
            raise NotFound("the queue is gone", hint="run `ensure` again; a listing finds what it lost") from error
        raise
