"""S3Changes against MiniStack with signatures and policies checked: its S3 really sends to its SQS and EventBridge."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from crossload.conformance.changes import CASES, Case, ChangesBench
from crossload.estate.place import Place
from crossload.lab import Lab
from crossload.ports.changes import CREATED, REMOVED, Batch, Change
from crossload.ports.errors import Invalid, NotFound
from crossload.ports.provider import Settings
from crossload.ports.store import ObjectMeta
from crossload.providers.aws import changes as module
from crossload.providers.aws.changes import open_changes
from crossload.providers.aws.session import client
from crossload.providers.aws.store import open_store

SettingsFor = Callable[..., Settings]


@pytest.fixture(scope="module")
def settings_for(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SettingsFor]:
    """Settings for the lab's control plane, object store included: in the lab itself objects are elsewhere."""
    from crossload.lab.table import all_servers

    server = all_servers()["ministack"]
    if server.missing() is not None:
        pytest.skip(f"ministack: {server.missing()}")
    lab = Lab(tmp_path_factory.mktemp("changes-lab"))
    lab.up(only=["ministack"])
    try:
        config = tmp_path_factory.mktemp("changes-aws") / "config"
        address = f"http://127.0.0.1:{lab.port('ministack', 'api')}"
        config.write_text(f"[profile lab-a-seed]\nregion = eu-central-1\nendpoint_url = {address}\n")
        held = {
            "config_file": str(config), "credentials_file": lab.env()["CROSSLOAD_LAB_AWS_CREDENTIALS"],
            "profile": "lab-a-seed", "data_path": "sdk",
        }  # fmt: skip

        def made(**more: str) -> Settings:
            connection = {**held, **more}
            return Settings(Place("a", "aws", "eu-central-1", "DE", connection), connection, {})

        yield made
    finally:
        lab.down(purge=True)


@pytest.fixture(scope="module", params=["queue", "bus"])
def bench(request: pytest.FixtureRequest, settings_for: SettingsFor) -> Iterator[ChangesBench]:
    settings = settings_for(changes=request.param)
    made = ChangesBench(open=lambda: open_changes(settings), store=lambda: open_store(settings), again_seconds=1.5)
    patch = pytest.MonkeyPatch()
    patch.setattr(module, "HIDE_SECONDS", 1)  # two minutes are too long to wait for
    yield made
    patch.undo()
    made.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_s3_changes(case: Case[ChangesBench], bench: ChangesBench, keeps: Callable[..., None]) -> None:
    keeps(case, bench, {})


# -- what others have set up stays


def others(settings: Settings, bucket: str) -> tuple[str, dict[str, Any]]:
    """Another team's queue, and the bucket's notification to it, as the server then tells it."""
    sqs, s3 = client(settings, "sqs"), client(settings, "s3")
    url = sqs.create_queue(QueueName=f"theirs-{bucket}")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    allow = {"Effect": "Allow", "Principal": {"Service": "s3.amazonaws.com"}, "Action": "sqs:SendMessage"}
    policy = {"Version": "2012-10-17", "Statement": [{**allow, "Resource": arn}]}
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(policy)})
    theirs = {"Id": "theirs", "QueueArn": arn, "Events": ["s3:ObjectTagging:Put"]}
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={"QueueConfigurations": [theirs]})
    return url, notifications(settings, bucket)


def notifications(settings: Settings, bucket: str) -> dict[str, Any]:
    held = client(settings, "s3").get_bucket_notification_configuration(Bucket=bucket)
    return {name: value for name, value in held.items() if name != "ResponseMetadata"}


@pytest.mark.parametrize("by", ["queue", "bus"])
def test_notifications_of_others_stay_through_ensure_and_remove(settings_for: SettingsFor, by: str) -> None:
    settings = settings_for(changes=by)
    store, changes, bucket = open_store(settings), open_changes(settings), f"shared-{by}"
    store.ensure_bucket(bucket)
    url, before = others(settings, bucket)
    token = changes.ensure(bucket, owner="m")
    assert before["QueueConfigurations"][0] in notifications(settings, bucket)["QueueConfigurations"]
    assert notifications(settings, bucket) != before
    changes.remove(token)
    assert notifications(settings, bucket) == before
    client(settings, "sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])  # theirs is there


def test_an_undo_works_though_the_others_destination_is_gone(settings_for: SettingsFor) -> None:
    settings = settings_for()
    store, changes = open_store(settings), open_changes(settings)
    store.ensure_bucket("dangling")
    url, before = others(settings, "dangling")
    token = changes.ensure("dangling", owner="m")
    client(settings, "sqs").delete_queue(QueueUrl=url)
    changes.remove(token)
    assert notifications(settings, "dangling") == before


def test_a_bus_that_was_on_stays_on(settings_for: SettingsFor) -> None:
    settings = settings_for(changes="bus")
    store, changes = open_store(settings), open_changes(settings)
    store.ensure_bucket("on-before")
    client(settings, "s3").put_bucket_notification_configuration(
        Bucket="on-before", NotificationConfiguration={"EventBridgeConfiguration": {}}
    )
    changes.remove(changes.ensure("on-before", owner="m"))
    assert "EventBridgeConfiguration" in notifications(settings, "on-before")


def test_a_bus_that_we_turned_on_goes_off_also_when_ensure_was_repeated(settings_for: SettingsFor) -> None:
    settings = settings_for(changes="bus")
    store, changes = open_store(settings), open_changes(settings)
    store.ensure_bucket("off-before")
    changes.ensure("off-before", owner="m")
    changes.remove(changes.ensure("off-before", owner="m"))
    assert notifications(settings, "off-before") == {}


def test_a_bus_that_others_listen_to_by_now_stays_on(settings_for: SettingsFor) -> None:
    settings = settings_for(changes="bus")
    store, changes, bus = open_store(settings), open_changes(settings), client(settings, "events")
    store.ensure_bucket("joined")
    token = changes.ensure("joined", owner="m")
    bus.put_rule(Name="theirs", EventPattern=json.dumps({"source": ["aws.s3"]}), State="ENABLED")
    try:
        changes.remove(token)
        assert "EventBridgeConfiguration" in notifications(settings, "joined")
    finally:
        bus.delete_rule(Name="theirs")


def test_only_s3_and_only_this_bucket_may_send(settings_for: SettingsFor) -> None:
    settings = settings_for()
    open_store(settings).ensure_bucket("guarded")
    token = json.loads(open_changes(settings).ensure("guarded", owner="m"))
    sqs = client(settings, "sqs")
    url = sqs.get_queue_url(QueueName=token["name"])["QueueUrl"]
    held = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["Policy"])["Attributes"]["Policy"]
    (statement,) = json.loads(held)["Statement"]
    assert statement["Principal"] == {"Service": "s3.amazonaws.com"}
    assert statement["Condition"]["ArnEquals"] == {"aws:SourceArn": "arn:aws:s3:::guarded"}
    assert statement["Condition"]["StringEquals"] == {"aws:SourceAccount": "111122223333"}


# -- messages as the service documents them, sent into a real queue


RECORD: dict[str, Any] = {
    "eventVersion": "2.6", "eventSource": "aws:s3", "awsRegion": "eu-central-1",
    "eventTime": "2026-03-01T10:00:00.500Z", "eventName": "ObjectCreated:Put",
    "s3": {
        "s3SchemaVersion": "1.0", "configurationId": "x",
        "bucket": {"name": "recorded", "arn": "arn:aws:s3:::recorded"},
        "object": {"key": "a+b%2Bc", "size": 7, "eTag": "d41d8cd9", "sequencer": "0055AED6DCD90281E5"},
    },
}  # fmt: skip
TEST_EVENT = {
    "Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2026-03-01T10:00:00.000Z", "Bucket": "recorded",
    "RequestId": "1", "HostId": "2",
}  # fmt: skip
BUS_EVENT = {
    "version": "0", "id": "1", "detail-type": "Object Deleted", "source": "aws.s3", "time": "2026-03-01T10:00:01Z",
    "detail": {
        "version": "0", "bucket": {"name": "recorded"}, "object": {"key": "a b+c", "sequencer": "0055AED6DCD90281E6"},
        "reason": "DeleteObject", "deletion-type": "Delete Marker Created",
    },
}  # fmt: skip


def record(name: str, **item: object) -> dict[str, Any]:
    s3 = RECORD["s3"]
    return {**RECORD, "eventName": name, "s3": {**s3, "object": {**s3["object"], **item}}}


def test_recorded_messages_through_a_real_queue(settings_for: SettingsFor) -> None:
    settings = settings_for()
    open_store(settings).ensure_bucket("recorded")
    changes = open_changes(settings)
    token = changes.ensure("recorded", owner="m")
    sqs = client(settings, "sqs")
    url = sqs.get_queue_url(QueueName=json.loads(token)["name"])["QueueUrl"]
    other = record("ObjectCreated:Put")
    other["s3"]["bucket"] = {"name": "another"}
    bodies = [
        json.dumps(TEST_EVENT),
        json.dumps({"Records": [RECORD, record("ObjectRemoved:DeleteMarkerCreated"), other]}),
        json.dumps({"Records": [record("LifecycleExpiration:Delete", key="old%2F%C3%BC")]}),
        json.dumps(BUS_EVENT),
        "no json at all", json.dumps({"something": "else"}), json.dumps(["a list"]),
    ]  # fmt: skip
    for body in bodies:
        sqs.send_message(QueueUrl=url, MessageBody=body)
    stream = changes.follow("recorded", token=token)
    batch = stream.poll(1)
    assert batch.unread == 3
    assert sorted((change.key, change.kind, change.size_bytes) for change in batch.changes) == [
        ("a b+c", CREATED, 7), ("a b+c", REMOVED, 0), ("a b+c", REMOVED, 0), ("old/ü", REMOVED, 0),
    ]  # fmt: skip
    created = next(change for change in batch.changes if change.kind == CREATED)
    assert created == Change("a b+c", CREATED, 1772359200.5, "d41d8cd9", "0055AED6DCD90281E5", 7)
    stream.acknowledge(batch)
    assert stream.poll(0) == Batch(), "also what was not understood does not come for ever"


@pytest.mark.parametrize("earlier, later", [("0A", "0B"), ("1", "101"), ("0055aed6", "0055AED7"), ("12", "120001")])
def test_sequencers_of_different_length_are_filled_up_on_the_right(earlier: str, later: str) -> None:
    def sequence(text: str) -> str:
        (change,) = module.changes_in(
            json.dumps({"Records": [record("ObjectCreated:Put", sequencer=text)]}), "recorded"
        )
        return change.sequence

    assert sequence(earlier) < sequence(later)
    assert sequence(earlier) == sequence(earlier + "000")


def test_a_token_that_is_none_is_refused(settings_for: SettingsFor) -> None:
    changes = open_changes(settings_for())
    for token in ("", "{}", "[1]", "no"):
        with pytest.raises(Invalid):
            changes.follow("x", token=token)
    with pytest.raises(NotFound):
        changes.follow("x", token='{"bucket": "x", "name": "crossload-never", "by": "queue"}')
    with pytest.raises(Invalid):
        open_changes(settings_for(changes="pigeon"))


def test_the_bucket_of_a_store_is_told_of_while_it_is_copied(settings_for: SettingsFor) -> None:
    """Parts make one hint, with the etag that the store gives the whole."""
    from crossload.ports.store import Part

    settings = settings_for()
    store, changes = open_store(settings), open_changes(settings)
    store.ensure_bucket("parts")
    stream = changes.follow("parts", token=changes.ensure("parts", owner="m"))
    upload = store.open_upload("parts", "big", ObjectMeta(), 4)
    part = store.write_part("parts", "big", upload, Part(1, 0, 4, ""), b"data", last=True)
    info = store.complete("parts", "big", upload, [part])
    first = stream.poll(2)
    stream.acknowledge(first)
    heard = [*first.changes, *stream.poll(1).changes]
    assert [(change.key, change.etag) for change in heard] == [("big", info.etag)]
