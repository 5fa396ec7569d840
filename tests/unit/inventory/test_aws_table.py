"""The table of kinds against the SDK's own service models, and its runner against the SDK's stubbed answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import botocore.session
import jmespath
import pytest
from botocore import xform_name
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError
from botocore.stub import Stubber

from crossload.estate.asset import Kind
from crossload.ports.account import DENIED, FAILED, UNSUPPORTED
from crossload.providers.aws.inventory import (
    BUCKETS,
    ROWS,
    Row,
    add_details,
    list_resources,
    status_of,
    tags_of,
    words,
)

ALL = (BUCKETS, *ROWS)
_session = botocore.session.Session()


def client_of(service: str) -> BaseClient:
    return _session.create_client(
        service,
        region_name="eu-central-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
        endpoint_url="http://127.0.0.1:9",
        config=Config(retries={"total_max_attempts": 1}),
    )


def row(label: str) -> Row:
    return next(item for item in ALL if item.label == label)


@pytest.mark.parametrize("item", ALL, ids=lambda item: item.label)
def test_every_call_of_the_table_exists_in_the_sdk(item: Row) -> None:
    model = _session.get_service_model(item.service)
    listing = model.operation_model(item.operation)
    assert item.path.split("[")[0] in listing.output_shape.members, "the listing answers under that name"
    for detail in item.details:
        operation = model.operation_model(detail.operation)
        assert set(detail.params) <= set(operation.input_shape.members), detail
        required = set(operation.input_shape.required_members)
        assert required <= set(detail.params), f"{detail.operation} also needs {required - set(detail.params)}"
        head = detail.path.split(".")[0].split("[")[0]
        assert head == "@" or head in operation.output_shape.members, detail


@pytest.mark.parametrize("item", ALL, ids=lambda item: item.label)
def test_every_path_is_jmespath_and_every_kind_neutral(item: Row) -> None:
    for path in (item.path, item.id, item.name, *item.facts.values(), *([item.keep] if item.keep else [])):
        jmespath.compile(path)
    # Log groups are counted only: there is no kind of asset for them yet.
    assert item.kind in {*map(str, Kind), "bucket", "log"}
    assert item.actions and all(":" in action for action in item.actions)


def test_every_call_has_its_permission() -> None:
    """ListBuckets and a few others are permitted under names of their own (IAM service authorization reference)."""
    other_names = {
        "s3:ListBuckets": "s3:ListAllMyBuckets",
        "s3:GetBucketEncryption": "s3:GetEncryptionConfiguration",
    }
    prefixes = {"bedrock-agent": "bedrock"}
    for item in ALL:
        for operation in (item.operation, *(detail.operation for detail in item.details)):
            action = f"{prefixes.get(item.service, item.service)}:{operation}"
            assert other_names.get(action, action) in item.actions, f"{item.label} calls {operation}"


def test_nothing_of_a_functions_environment_is_kept_but_its_names() -> None:
    raw = {"FunctionName": "f", "Environment": {"Variables": {"TOKEN": "hunter2", "URL": "x"}}}
    facts = {name: jmespath.search(path, raw) for name, path in row("function").facts.items()}
    assert sorted(facts["environment_names"]) == ["TOKEN", "URL"] and "hunter2" not in str(facts)


@pytest.fixture
def stub() -> Iterator[Callable[[str], tuple[Callable[[str], Any], Stubber]]]:
    made: list[Stubber] = []

    def make(service: str) -> tuple[Callable[[str], Any], Stubber]:
        client = client_of(service)
        stubber = Stubber(client)
        stubber.activate()
        made.append(stubber)
        return (lambda _: client), stubber

    yield make
    for stubber in made:
        stubber.assert_no_pending_responses()


def test_listing_follows_pages(stub: Any) -> None:
    client_for, stubber = stub("sqs")
    stubber.add_response("list_queues", {"QueueUrls": ["https://h/1/a", "https://h/1/b"], "NextToken": "t"}, {})
    stubber.add_response("list_queues", {"QueueUrls": ["https://h/1/c"]}, {"NextToken": "t"})
    assert [raw["value"] for raw in list_resources(row("queue"), client_for)] == [
        "https://h/1/a",
        "https://h/1/b",
        "https://h/1/c",
    ]


def test_an_empty_answer_lists_nothing(stub: Any) -> None:
    client_for, stubber = stub("sqs")
    stubber.add_response("list_queues", {}, {})
    assert list(list_resources(row("queue"), client_for)) == []


def test_a_role_brings_its_attached_and_inline_policies(stub: Any) -> None:
    client_for, stubber = stub("iam")
    names = {"RoleName": "app"}
    arn = "arn:aws:iam::1:policy/reader"
    stubber.add_response("list_role_policies", {"PolicyNames": ["inline"]}, names)
    stubber.add_response(
        "get_role_policy",
        {"RoleName": "app", "PolicyName": "inline", "PolicyDocument": "%7B%7D"},
        {**names, "PolicyName": "inline"},
    )
    stubber.add_response(
        "list_attached_role_policies", {"AttachedPolicies": [{"PolicyName": "reader", "PolicyArn": arn}]}, names
    )
    stubber.add_response("get_policy", {"Policy": {"Arn": arn, "DefaultVersionId": "v7"}}, {"PolicyArn": arn})
    stubber.add_response(
        "get_policy_version",
        {"PolicyVersion": {"Document": "%7B%7D", "VersionId": "v7"}},
        {"PolicyArn": arn, "VersionId": "v7"},
    )
    stubber.add_response("list_role_tags", {"Tags": [{"Key": "app", "Value": "desk"}]}, names)
    raw: dict[str, Any] = {"RoleName": "app", "Path": "/"}
    assert add_details(row("role"), raw, client_for) == []
    assert raw["attached"][0]["PolicyName"] == "reader" and raw["managed"] == [{}]
    assert tags_of(raw["tags"]) == {"app": "desk"}


def test_one_refused_detail_leaves_the_others(stub: Any) -> None:
    client_for, stubber = stub("s3")
    stubber.add_response("get_bucket_versioning", {"Status": "Enabled"}, {"Bucket": "b"})
    stubber.add_client_error("get_bucket_encryption", "AccessDenied", "no", 403)
    stubber.add_client_error("get_bucket_tagging", "NoSuchTagSet", "none", 404)
    stubber.add_response("get_bucket_location", {}, {"Bucket": "b"})
    stubber.add_client_error("get_bucket_policy", "MethodNotAllowed", "what", 405)
    raw: dict[str, Any] = {"Name": "b", "public": True}
    troubles = add_details(BUCKETS, raw, client_for)
    assert [(t.what, t.status) for t in troubles] == [
        ("GetBucketEncryption", DENIED),
        ("GetBucketPolicy", UNSUPPORTED),
    ]
    assert "AccessDenied no" in troubles[0].detail
    facts = {name: jmespath.search(path, raw) for name, path in BUCKETS.facts.items()}
    assert facts["versioning"] == "Enabled"
    assert facts["encryption"] == "unknown", "refused is not the same as none"
    assert facts["region"] == "us-east-1", "the public cloud answers nothing for its oldest region"
    assert raw["tags"] is None and tags_of(raw["tags"]) == {}


def test_no_encryption_is_none_and_a_private_clouds_region_stays_open(stub: Any) -> None:
    client_for, stubber = stub("s3")
    stubber.add_response("get_bucket_versioning", {}, {"Bucket": "b"})
    stubber.add_client_error("get_bucket_encryption", "ServerSideEncryptionConfigurationNotFoundError", "", 404)
    stubber.add_response("get_bucket_tagging", {"TagSet": []}, {"Bucket": "b"})
    stubber.add_response("get_bucket_location", {}, {"Bucket": "b"})
    stubber.add_client_error("get_bucket_policy", "NoSuchBucketPolicy", "", 404)
    raw: dict[str, Any] = {"Name": "b", "public": False}
    assert add_details(BUCKETS, raw, client_for) == []
    facts = {name: jmespath.search(path, raw) for name, path in BUCKETS.facts.items()}
    assert (facts["versioning"], facts["encryption"], facts["region"]) == ("off", "none", None)


def refused(code: str, status: int, message: str = "") -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}, "ListX"
    )  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("AccessDenied", 403, DENIED),
        ("AccessDeniedException", 400, DENIED),
        ("UnauthorizedOperation", 403, DENIED),
        ("InvalidAccessKeyId", 403, DENIED),
        ("ExpiredTokenException", 400, DENIED),
        ("403", 403, DENIED),
        ("UnknownOperationException", 404, UNSUPPORTED),
        ("InvalidAction", 400, UNSUPPORTED),
        ("", 400, UNSUPPORTED),
        ("NotImplemented", 501, UNSUPPORTED),
        ("404", 404, UNSUPPORTED),
        ("InternalError", 500, FAILED),
        ("ThrottlingException", 400, FAILED),
        ("ValidationException", 400, FAILED),
    ],
)
def test_what_a_refusal_means(code: str, status: int, expected: str) -> None:
    assert status_of(refused(code, status)) == expected


def test_a_server_that_is_down_has_failed_and_its_words_hold_no_port() -> None:
    error = EndpointConnectionError(endpoint_url="http://127.0.0.1:43210/")
    assert status_of(error) == FAILED
    assert "43210" not in words(error) and "Could not connect" in words(error)


def test_a_request_id_does_not_make_every_run_different() -> None:
    first = words(refused("AccessDenied", 403, "no (Request ID: AB12-x)"))
    assert first == words(refused("AccessDenied", 403, "no (Request ID: CD34-y)")) == "ListX: AccessDenied no"


@pytest.mark.parametrize(
    "raw",
    [
        [{"Key": "a", "Value": "b"}],
        [{"TagKey": "a", "TagValue": "b"}],
        [{"key": "a", "value": "b"}],
        {"a": "b"},
    ],
)
def test_all_spellings_of_tags(raw: Any) -> None:
    assert tags_of(raw) == {"a": "b"}


def test_method_names_are_the_sdks() -> None:
    client = client_of("s3")
    assert hasattr(client, xform_name(BUCKETS.operation))


def test_the_page_names_every_report_and_every_right() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "inventory.md").read_text(encoding="utf-8")
    for item in ALL:
        assert f"| {item.label} |" in page, f"docs/inventory.md does not describe {item.label}"
        for action in item.actions:
            assert f"`{action}`" in page, f"docs/inventory.md does not name {action}"
