"""AzureChanges against Azurite: a change feed written as the service documents it, and a real storage queue.

Azurite keeps no change feed and has no Event Grid, so both are written here: Avro log files, segments and their index
into a container, Event Grid's messages into the queue. The blobs and the queue are real, the writers are ours."""

from __future__ import annotations

import base64
import json
import secrets
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from crossload.conformance.changes import CASES, Case, ChangesBench
from crossload.estate.place import Place
from crossload.lab import Lab
from crossload.ports.changes import CREATED, REMOVED, Change
from crossload.ports.errors import Invalid, NotFound, NotSignedIn, Unsupported
from crossload.ports.provider import Settings
from crossload.ports.store import ObjectInfo, ObjectMeta
from crossload.providers.azure import changes as module
from crossload.providers.azure.changes import AzureChanges, changes_of, open_changes
from crossload.providers.azure.queue import Queue
from crossload.providers.azure.session import close_services, service
from crossload.providers.azure.store import AzureStore
from crossload.providers.keepalive import close_idle

FEED = "blobchangefeed"  # Azurite takes no container name with a dollar sign
SCHEMA = {
    "type": "record", "name": "BlobChangeEvent", "namespace": "com.microsoft.azure.storage.blobChangeFeedEvent",
    "fields": [
        {"name": "schemaVersion", "type": "int"}, {"name": "topic", "type": "string"},
        {"name": "subject", "type": "string"}, {"name": "eventType", "type": "string"},
        {"name": "eventTime", "type": "string"}, {"name": "id", "type": "string"},
        {"name": "data", "type": {"type": "record", "name": "BlobChangeEventData", "fields": [
            {"name": "api", "type": "string"}, {"name": "etag", "type": "string"},
            {"name": "contentLength", "type": "long"}, {"name": "sequencer", "type": "string"},
            {"name": "previousInfo", "type": ["null", {"type": "map", "values": "string"}], "default": None},
        ]}},
    ],
}  # fmt: skip


def number(value: int) -> bytes:
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return number(len(data)) + data


def encoded(event: dict[str, Any]) -> bytes:
    data = event["data"]
    previous = data["previousInfo"]
    return b"".join([
        number(event["schemaVersion"]),
        *(text(event[name]) for name in ("topic", "subject", "eventType", "eventTime", "id")),
        text(data["api"]), text(data["etag"]), number(data["contentLength"]), text(data["sequencer"]),
        number(0) if previous is None else number(1) + number(len(previous))
        + b"".join(text(key) + text(value) for key, value in previous.items()) + number(0),
    ])  # fmt: skip


class Log:
    """One Avro log file, written a block at a time."""

    def __init__(self, codec: str = "deflate", schema: Any = SCHEMA) -> None:
        self.codec, self.sync = codec, secrets.token_bytes(16)
        held = number(2) + text("avro.schema") + text(json.dumps(schema)) + text("avro.codec") + text(codec) + number(0)
        self.header = b"Obj\x01" + held + self.sync

    def block(self, events: list[dict[str, Any]]) -> bytes:
        body = b"".join(encoded(event) for event in events)
        if self.codec == "deflate":
            packer = zlib.compressobj(wbits=-15)
            body = packer.compress(body) + packer.flush()
        return number(len(events)) + number(len(body)) + body + self.sync


def event(bucket: str, key: str, kind: str, etag: str = "", size: int = 0, sequence: int = 0) -> dict[str, Any]:
    return {
        "schemaVersion": 3, "topic": "/subscriptions/s/storageAccounts/a", "eventType": kind,
        "id": secrets.token_hex(4),
        "subject": f"/blobServices/default/containers/{bucket}/blobs/{key}",
        "eventTime": datetime.now(UTC).isoformat().replace("+00:00", "1Z"),  # seven digits, as the service writes
        "data": {
            "api": "PutBlob", "etag": etag, "contentLength": size, "sequencer": f"{sequence:048x}",
            "previousInfo": None if sequence % 2 else {"WasBlobSoftDeleted": "true"},
        },
    }  # fmt: skip


class Feed:
    """What the service keeps in `$blobchangefeed`: an index, segments by the hour, two shards of log files."""

    def __init__(self, container: Any) -> None:
        self.container = container
        self.hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        self.logs: dict[str, Log] = {}
        container.upload_blob(
            "idx/segments/1601/01/01/0000/meta.json", b'{"status": "Finalized", "chunkFilePaths": []}'
        )
        self.publish(self.hour, "Publishing")

    def paths(self, hour: datetime) -> list[str]:
        return [f"log/{shard:02d}/{hour:%Y/%m/%d/%H%M}/" for shard in (0, 1)]

    def publish(self, hour: datetime, status: str) -> None:
        at = f"{hour.isoformat(timespec='milliseconds').removesuffix('+00:00')}Z"
        paths = [f"{FEED}/{path}" for path in self.paths(hour)]
        held = {"version": 0, "begin": at, "intervalSecs": 3600, "status": status, "chunkFilePaths": paths}
        self.container.upload_blob(f"idx/segments/{hour:%Y/%m/%d/%H%M}/meta.json", json.dumps(held), overwrite=True)
        self.container.upload_blob(
            "meta/segments.json", json.dumps({"version": 0, "lastConsumable": at}), overwrite=True
        )

    def append(self, events: list[dict[str, Any]], cut_bytes: int = 0) -> bytes:
        """Add a block to the log of each event's shard. With `cut_bytes`, the last bytes are left out and returned."""
        rest = b""
        for shard, path in enumerate(self.paths(self.hour)):
            mine = [item for item in events if sum(item["subject"].encode()) % 2 == shard]
            if not mine:
                continue
            name = f"{path}00000.avro"
            blob = self.container.get_blob_client(name)
            if name not in self.logs:
                self.logs[name] = Log("null" if shard else "deflate")
                blob.create_append_blob()
                blob.append_block(self.logs[name].header)
            data = self.logs[name].block(mine)
            keep = len(data) - cut_bytes
            blob.append_block(data[:keep])
            rest = data[keep:]
        return rest

    def next_hour(self) -> None:
        self.publish(self.hour, "Finalized")
        self.hour += timedelta(hours=1)
        self.publish(self.hour, "Publishing")


class ToldStore(AzureStore):
    """The real store; what it did is remembered, for the stand-ins to tell of."""

    done: list[dict[str, Any]]

    def write(self, bucket: str, key: str, data: Any, meta: ObjectMeta, **more: Any) -> ObjectInfo:
        info = super().write(bucket, key, data, meta, **more)
        self.done.append(event(bucket, key, "BlobCreated", info.etag, len(data), next(SEQUENCE)))
        return info

    def delete(self, bucket: str, key: str, if_match: str = "") -> None:
        super().delete(bucket, key, if_match)
        self.done.append(event(bucket, key, "BlobDeleted", "", 0, next(SEQUENCE)))


SEQUENCE = iter(range(1, 1_000_000))
DONE: list[dict[str, Any]] = []


@pytest.fixture(scope="module")
def settings_for(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Settings]]:
    from crossload.lab.table import all_servers

    server = all_servers()["azurite"]
    if server.missing() is not None:
        pytest.skip(f"azurite: {server.missing()}")
    lab = Lab(tmp_path_factory.mktemp("changes-azure"))
    lab.up(only=["azurite"])
    env = lab.env()

    def made(**more: str) -> Settings:
        connection = {
            "account": env["CROSSLOAD_LAB_AZURE_ACCOUNT"], "endpoint": env["CROSSLOAD_LAB_AZURE_ENDPOINT"],
            "key": f"file:{lab.home / 'secrets' / 'azure-key'}", **more,
        }  # fmt: skip
        return Settings(Place("c", "azure", "westeurope", "NL", connection), connection, env)

    made.queues = env["CROSSLOAD_LAB_AZURE_QUEUE_ENDPOINT"]  # pyright: ignore[reportFunctionMemberAccess]
    yield made
    close_services()
    close_idle()
    lab.down(purge=True)


def told(settings: Settings) -> Any:
    store = ToldStore(settings)
    store.done = DONE
    return store


@pytest.fixture(scope="module")
def feed(settings_for: Callable[..., Settings]) -> Feed:
    container = service(settings_for()).create_container(FEED)
    return Feed(container)


@pytest.fixture(scope="module")
def feed_bench(settings_for: Callable[..., Settings], feed: Feed) -> Iterator[ChangesBench]:
    settings = settings_for()

    def flush() -> None:
        if DONE:
            feed.append(DONE)
            DONE.clear()

    made = ChangesBench(lambda: AzureChanges(settings, FEED), lambda: told(settings), flush)
    yield made
    made.close()
    DONE.clear()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_azure_feed(case: Case[ChangesBench], feed_bench: ChangesBench, keeps: Callable[..., None]) -> None:
    keeps(case, feed_bench, {})


@pytest.fixture(scope="module", params=["grid", "cloud-events"])
def queue_bench(request: pytest.FixtureRequest, settings_for: Any) -> Iterator[ChangesBench]:
    settings = settings_for(queue=f"{settings_for.queues}/changes-{request.param}")
    queue = Queue(settings, settings.get("queue"))
    queue.make()

    def message(item: dict[str, Any]) -> str:
        kind, data = f"Microsoft.Storage.{item['eventType']}", {**item["data"], "eTag": item["data"]["etag"]}
        del data["etag"], data["previousInfo"]
        if request.param == "grid":
            held: Any = {**{name: item[name] for name in ("topic", "subject", "eventTime", "id")}, "eventType": kind}
            return base64.b64encode(json.dumps({**held, "data": data, "dataVersion": ""}).encode()).decode()
        held = {
            "specversion": "1.0",
            "type": kind,
            "source": item["topic"],
            "id": item["id"],
            "time": item["eventTime"],
        }
        return json.dumps([{**held, "subject": item["subject"], "data": data}])

    def flush() -> None:
        for item in DONE:
            queue.put(message(item))
        DONE.clear()

    patch = pytest.MonkeyPatch()
    patch.setattr("crossload.providers.azure.queue.HIDE_SECONDS", 1)
    made = ChangesBench(lambda: open_changes(settings), lambda: told(settings), flush, again_seconds=1.5)
    yield made
    patch.undo()
    made.close()
    DONE.clear()


# One queue serves whoever asks first: a second follower is a second queue, which the account's owner makes.
ONE_QUEUE = {"two_owners_do_not_take_from_each_other": "the owner's queue is one stream; a second needs a second queue"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_azure_queue(case: Case[ChangesBench], queue_bench: ChangesBench, keeps: Callable[..., None]) -> None:
    keeps(case, queue_bench, ONE_QUEUE)


# -- the feed's own ways


def test_hours_end_blocks_are_cut_and_the_cursor_goes_on(settings_for: Callable[..., Settings]) -> None:
    settings = settings_for()
    name = f"feed-{secrets.token_hex(3)}"
    feed = Feed(service(settings).create_container(name))
    changes = AzureChanges(settings, name)
    token = changes.ensure("docs")
    stream = changes.follow("docs", "", token)
    assert stream.poll(0).changes == ()
    rest = feed.append([event("docs", "a", "BlobCreated", "0x1", 5, 1)], cut_bytes=7)
    assert stream.poll(0).changes == (), "a block that is still being written"
    (log,) = feed.logs
    feed.container.get_blob_client(log).append_block(rest)
    batch = stream.poll(0)
    assert [(change.key, change.etag, change.size_bytes) for change in batch.changes] == [("a", "0x1", 5)]
    assert [change.key for change in stream.poll(0).changes] == ["a"], "not acknowledged"
    stream.acknowledge(batch)
    assert stream.poll(0).changes == ()
    feed.append([event("docs", "late", "BlobDeleted", sequence=2), event("elsewhere", "x", "BlobCreated", sequence=3)])
    feed.next_hour()
    feed.append([event("docs", "next", "BlobCreated", "0x2", 1, 4), event("docs", "x", "Control", sequence=5)])
    went_on = changes.follow("docs", "", token, batch.cursor).poll(0)
    assert [(change.key, change.kind) for change in went_on.changes] == [("late", REMOVED), ("next", CREATED)]
    assert changes.follow("docs", "", token, went_on.cursor).poll(0).changes == ()
    assert len(json.loads(went_on.cursor)["read"]) <= 2, "hours that ended leave the cursor"
    assert len(went_on.cursor) < 400


def test_hours_that_are_not_consumable_yet_are_left_alone(settings_for: Callable[..., Settings]) -> None:
    settings = settings_for()
    name = f"feed-{secrets.token_hex(3)}"
    feed = Feed(service(settings).create_container(name))
    stream = AzureChanges(settings, name).follow("docs")
    feed.append([event("docs", "a", "BlobCreated", sequence=1)])
    before = feed.hour - timedelta(hours=3)
    held = json.dumps({"lastConsumable": before.isoformat()})
    feed.container.upload_blob("meta/segments.json", held, overwrite=True)
    assert stream.poll(0).changes == ()
    feed.publish(feed.hour, "Publishing")
    assert [change.key for change in stream.poll(0).changes] == ["a"]


def test_large_blocks_and_many_changes_are_read_in_pieces(
    settings_for: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIECE_BYTES", 300)
    monkeypatch.setattr(module, "HEADER_BYTES", 64)
    monkeypatch.setattr(module, "POLL_CHANGES", 40)
    settings = settings_for()
    name = f"feed-{secrets.token_hex(3)}"
    feed = Feed(service(settings).create_container(name))
    for start in range(0, 120, 30):
        keys = [f"key-{number:04d}" for number in range(start, start + 30)]
        feed.append([event("docs", key, "BlobCreated", "0x1", 1, 1) for key in keys])
    stream = AzureChanges(settings, name).follow("docs")
    heard: list[str] = []
    for _ in range(12):
        batch = stream.poll(0)
        assert len(batch.changes) < 80
        heard += [change.key for change in batch.changes]
        stream.acknowledge(batch)
    assert sorted(heard) == [f"key-{number:04d}" for number in range(120)]


def test_a_feed_that_is_off_and_a_queue_that_is_not_there_are_said_with_a_hint(settings_for: Any) -> None:
    with pytest.raises(Unsupported) as off:
        AzureChanges(settings_for(), "no-such-feed").ensure("docs")
    assert "enable-change-feed" in off.value.hint
    with pytest.raises(Unsupported) as missing:
        open_changes(settings_for(queue=f"{settings_for.queues}/never-made")).ensure("docs")
    assert "Event Grid" in missing.value.hint
    with pytest.raises(NotFound):
        open_changes(settings_for(queue=f"{settings_for.queues}/never-made")).follow("docs").poll(0)
    wrong = base64.b64encode(b"somebody else's key").decode()
    with pytest.raises(NotSignedIn):
        open_changes(settings_for(queue=f"{settings_for.queues}/changes-grid", key=wrong)).follow("docs").poll(0)
    for token, cursor in (("no", ""), ("{}", ""), ("", "no"), ("", "[]")):
        with pytest.raises(Invalid):
            AzureChanges(settings_for(), FEED).follow("docs", token=token, cursor=cursor)


def test_a_name_that_may_be_encoded_is_told_in_both_readings() -> None:
    (one, two) = changes_of(event("docs", "a%20b", "BlobCreated", "0x1", 3, 7), "docs", "")
    assert (one.key, two.key) == ("a%20b", "a b")
    assert two == Change("a b", CREATED, one.at, "0x1", f"{7:048x}", 3)
    assert list(changes_of(event("docs", "a", "BlobSnapshotCreated"), "docs", "")) == []
    assert list(changes_of(event("docs", "a", "BlobCreated"), "doc", "")) == []
