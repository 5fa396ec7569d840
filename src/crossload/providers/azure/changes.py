"""The Changes port over Azure Blob Storage: the account's change feed, or a queue that Event Grid fills.

The feed is complete and ordered per blob, and tells minutes to an hour late; it is read as plain blobs. A queue
(setting `queue`) tells within seconds. Both are switched on by whoever manages the account, not by us."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

from crossload.ports.changes import CREATED, REMOVED, Batch, Change
from crossload.ports.errors import Invalid, NotFound, Unsupported
from crossload.ports.provider import Settings
from crossload.providers.azure import avro
from crossload.providers.azure.errors import translated
from crossload.providers.azure.queue import Queue
from crossload.providers.azure.session import service

FEED = "$blobchangefeed"
_FEED_LOOK_SECONDS = 30.0
_QUEUE_LOOK_SECONDS = 1.0
_QUEUE_TAKES = 16
PIECE_BYTES = 4 * 2**20
HEADER_BYTES = 64 * 2**10
POLL_CHANGES = 10_000
# A segment's hour is right within 15 minutes: whoever wants all since a moment begins one segment earlier.
_EARLIER = timedelta(hours=1, minutes=15)
_KINDS = {
    "BlobCreated": CREATED, "BlobPropertiesUpdated": CREATED, "BlobRenamed": CREATED, "BlobDeleted": REMOVED,
}  # fmt: skip
_SUBJECT = re.compile(r"/blobServices/default/containers/([^/]+)/blobs/(.+)", re.DOTALL)


def open_changes(settings: Settings) -> AzureChanges:
    return AzureChanges(settings)


class AzureChanges:
    """The token is JSON: `from`, the moment at which the stream begins."""

    def __init__(self, settings: Settings, feed: str = FEED) -> None:
        self.place = settings.place.id
        address = settings.get("queue")
        self._queue = Queue(settings, address) if address else None
        with translated():
            self._feed: Any = service(settings).get_container_client(feed)

    def ensure(self, bucket: str, prefix: str = "", owner: str = "") -> str:
        if self._queue is not None:
            try:
                self._queue.expect()
            except NotFound as error:
                raise Unsupported(
                    f"there is no queue {self._queue.address}",
                    hint="make it, and an Event Grid subscription that fills it: docs/changes.md says how",
                ) from error
        else:
            with translated():
                there = self._feed.exists()
            if not there:
                raise Unsupported(
                    "the account's change feed is off",
                    hint="az storage account blob-service-properties update --enable-change-feed true",
                )
        return json.dumps({"from": datetime.now(UTC).isoformat(timespec="seconds")})

    def remove(self, token: str) -> None:
        return  # nothing was set up: the feed and the queue belong to the account's owner

    def follow(
        self, bucket: str, prefix: str = "", token: str = "", cursor: str = ""
    ) -> FeedSubscription | QueueSubscription:
        if self._queue is not None:
            return QueueSubscription(self._queue, bucket, prefix)
        try:
            began = datetime.fromisoformat(json.loads(token)["from"]) if token else datetime.now(UTC)
        except (ValueError, KeyError, TypeError) as error:
            raise Invalid(f"not a token of `ensure`: {token[:80]!r}") from error
        return FeedSubscription(self._feed, bucket, prefix, Cursor.parse(cursor, began))


@dataclass(slots=True)
class Cursor:
    """`segment` is the oldest that may still grow, by its path; `read` is how far each of its and later log files was
    read, in bytes."""

    segment: str
    read: dict[str, int] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str, began: datetime) -> Cursor:
        """The cursor that was written down; without one, the beginning for a stream that begins at that moment."""
        if not text:
            return cls(f"idx/segments/{(began - _EARLIER).astimezone(UTC):%Y/%m/%d/%H%M}/meta.json")
        try:
            held = json.loads(text)
            return cls(str(held["segment"]), {str(name): int(size) for name, size in held["read"].items()})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Invalid(f"not a cursor of a change feed: {text[:80]!r}") from error

    def text(self) -> str:
        return json.dumps({"segment": self.segment, "read": self.read}, sort_keys=True)


class FeedSubscription:
    """Reads what the feed calls consumable. What is acknowledged is the cursor; nothing is kept at the service."""

    def __init__(self, feed: Any, bucket: str, prefix: str, cursor: Cursor) -> None:
        self._feed, self._bucket, self._prefix = feed, bucket, prefix
        self._acknowledged = cursor
        self._headers: dict[str, avro.Header] = {}

    def poll(self, wait_seconds: float) -> Batch:
        until = time.monotonic() + wait_seconds
        while True:
            cursor = Cursor(self._acknowledged.segment, dict(self._acknowledged.read))
            with translated():
                changes, unread = self._read_on(cursor)
            if changes or unread or time.monotonic() >= until:
                return Batch(tuple(changes), cursor=cursor.text(), unread=unread)
            self._acknowledged = cursor  # nothing of ours was in it: no need to read it again
            time.sleep(max(0.0, min(_FEED_LOOK_SECONDS, until - time.monotonic())))

    def acknowledge(self, batch: Batch) -> None:
        self._acknowledged = Cursor.parse(batch.cursor, datetime.now(UTC))

    def _read_on(self, cursor: Cursor) -> tuple[list[Change], int]:
        changes: list[Change] = []
        unread = 0
        for segment in self._segments(cursor.segment):
            held = self._json(segment)
            # The path of a chunk names the container, too.
            paths = [str(path).partition("/")[2] for path in held.get("chunkFilePaths", ())]
            files = {item.name: int(item.size) for path in paths for item in self._feed.list_blobs(path)}
            for name in sorted(files):
                for records in self._pieces(name, files[name], cursor):
                    for record in records:
                        try:
                            changes += changes_of(record, self._bucket, self._prefix)
                        except (ValueError, KeyError, TypeError, AttributeError):
                            unread += 1
                    if len(changes) >= POLL_CHANGES:
                        return changes, unread
            if held.get("status") == "Finalized":
                cursor.segment = segment + "~"  # behind this one, before every later one
                for name in files:
                    cursor.read.pop(name, None)
                    self._headers.pop(name, None)
        return changes, unread

    def _segments(self, start: str) -> list[str]:
        """Paths of the segments from `start` on that may be read, oldest first."""
        try:
            last = datetime.fromisoformat(self._json("meta/segments.json")["lastConsumable"])
        except NotFound:
            return []  # switched on a moment ago: the feed shows itself after some minutes
        limit = f"idx/segments/{last.astimezone(UTC):%Y/%m/%d/%H%M}/meta.json"
        names = [item.name for item in self._feed.list_blobs("idx/segments/")]
        return sorted(name for name in names if start <= name <= limit)

    def _json(self, name: str) -> Any:
        with translated():
            return json.loads(self._feed.download_blob(name).readall())

    def _pieces(self, name: str, size: int, cursor: Cursor) -> Iterator[list[Any]]:
        """What was appended to one log file since it was last read, whole blocks at a time; each moves the cursor."""
        start = cursor.read.get(name, 0)
        header = self._header(name, size) if start < size else None
        if header is None:
            return
        start = max(start, header.size_bytes)
        length = PIECE_BYTES
        while start < size:
            length = min(length, size - start)
            records, taken = avro.read_blocks(header, self._feed.download_blob(name, start, length).readall())
            if not taken and start + length >= size:
                return  # the last block is still being written
            length = PIECE_BYTES if taken else length * 2  # a block larger than the piece
            start += taken
            cursor.read[name] = start
            yield records

    def _header(self, name: str, size: int) -> avro.Header | None:
        """None when the header itself is still being written."""
        length = HEADER_BYTES
        while name not in self._headers:
            data = self._feed.download_blob(name, 0, min(length, size)).readall()
            try:
                self._headers[name] = avro.read_header(data)
            except avro.Short:
                if length >= size:
                    return None
                length *= 4
        return self._headers[name]


class QueueSubscription:
    """Messages not acknowledged within two minutes come again. One queue may serve several buckets only if all of them
    are followed here: what is another bucket's is acknowledged, too."""

    def __init__(self, queue: Queue, bucket: str, prefix: str) -> None:
        self._queue, self._bucket, self._prefix = queue, bucket, prefix

    def poll(self, wait_seconds: float) -> Batch:
        until = time.monotonic() + wait_seconds
        changes: list[Change] = []
        receipts: list[str] = []
        unread = 0
        for _ in range(_QUEUE_TAKES):
            found = self._queue.take()
            while not found and not receipts and time.monotonic() < until:
                time.sleep(max(0.0, min(_QUEUE_LOOK_SECONDS, until - time.monotonic())))
                found = self._queue.take()
            if not found:
                break
            receipts += [message.receipt for message in found]
            for message in found:
                try:
                    changes += [
                        change for event in _events(message.text)
                        for change in changes_of(event, self._bucket, self._prefix)
                    ]  # fmt: skip
                except (ValueError, KeyError, TypeError, AttributeError):
                    unread += 1
        return Batch(tuple(changes), tuple(receipts), unread=unread)

    def acknowledge(self, batch: Batch) -> None:
        for receipt in batch.receipts:
            self._queue.forget(receipt)


def _events(text: str) -> list[Mapping[str, Any]]:
    """Event Grid's own schema or CloudEvents, one or a list of them, as JSON or as JSON in base64."""
    held = json.loads(text if text.lstrip().startswith(("{", "[")) else base64.b64decode(text, validate=True))
    return held if isinstance(held, list) else [held]


def changes_of(event: Mapping[str, Any], bucket: str, prefix: str) -> Iterator[Change]:
    """The hints in one event of the feed or of Event Grid; none for other events and other containers."""
    kind = _KINDS.get(str(event.get("eventType") or event.get("type")).removeprefix("Microsoft.Storage."))
    found = _SUBJECT.fullmatch(str(event["subject"]))
    if kind is None or found is None or found[1] != bucket:
        return
    data = event["data"]
    when = event.get("eventTime") or event.get("time")
    removed = kind == REMOVED
    size = data.get("contentLength")
    # Whether a name is given encoded is not written down anywhere: where it could be, both readings are looked at.
    for key in dict.fromkeys((found[2], unquote(found[2]))):
        if key.startswith(prefix):
            yield Change(
                key, kind, _moment(str(when)) if when else None,
                "" if removed else str(data.get("etag") or data.get("eTag") or "").strip('"'),
                str(data.get("sequencer") or ""), 0 if removed else int(size) if size is not None else None,
            )  # fmt: skip


def _moment(text: str) -> float:
    """Seconds since the epoch. The service writes seven digits of a second, of which six are read."""
    return datetime.fromisoformat(text).timestamp()
