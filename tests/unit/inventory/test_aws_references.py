"""Edges from ARNs, URIs, names and policy documents."""

from __future__ import annotations

import json
from typing import Any

import pytest

from crossload.estate.asset import Asset, Edge, Kind
from crossload.providers.aws.references import References, relations, statements, strings

MODEL_ARN = "arn:aws:bedrock:eu-central-1::foundation-model/vendor.big-v1:0"
KEY_ARN = "arn:aws:kms:eu-central-1:1:key/abc-def"


def asset(kind: Kind, name: str, native: str, **facts: Any) -> Asset:
    return Asset(f"{kind}:{name}", kind, name, "a", native, facts)


DOCS = asset(Kind.DATASET, "desk-docs", "arn:aws:s3:::desk-docs")
MODEL = asset(Kind.MODEL, "llm", "arn:aws:s3:::desk-models/x/llm.gguf")
ENDPOINT = asset(Kind.ENDPOINT, "vendor.big-v1:0", MODEL_ARN, model="vendor.big-v1:0")
TABLE = asset(Kind.TABLE, "orders", "arn:aws:dynamodb:eu-central-1:1:table/orders")
KEY = asset(Kind.KEY, "desk", KEY_ARN)
ROLE = asset(Kind.ROLE, "desk-app", "arn:aws:iam::1:role/desk-app")
QUEUE = asset(Kind.QUEUE, "desk-jobs", "arn:aws:sqs:eu-central-1:1:desk-jobs")
FUNCTION = asset(Kind.FUNCTION, "desk", "arn:aws:lambda:eu-central-1:1:function:desk")
ALL = [DOCS, MODEL, ENDPOINT, TABLE, KEY, ROLE, QUEUE, FUNCTION]


def found(source: Asset, raw: Any) -> set[tuple[str, str, str]]:
    return {(edge.source, edge.relation, edge.target) for edge in References(ALL).edges_of(source, raw)}


@pytest.mark.parametrize(
    ("raw", "relation", "target"),
    [
        ({"Role": ROLE.native}, "runs-as", "role:desk-app"),
        ({"x": {"y": [f"see {QUEUE.native}, please"]}}, "calls", "queue:desk-jobs"),
        ({"uri": "s3://desk-docs/topics/a.txt"}, "reads", "dataset:desk-docs"),
        ({"uri": "s3://desk-models/x/llm.gguf"}, "reads", "model:llm"),
        ({"Environment": {"Variables": {"BUCKET": "desk-docs"}}}, "reads", "dataset:desk-docs"),
        ({"foundationModel": "vendor.big-v1:0"}, "calls", "endpoint:vendor.big-v1:0"),
        ({"Environment": {"Variables": {"ORDERS_TABLE": "orders"}}}, "reads", "table:orders"),
    ],
)
def test_what_a_description_names(raw: Any, relation: str, target: str) -> None:
    assert found(FUNCTION, raw) == {("function:desk", relation, target)}


@pytest.mark.parametrize(
    "raw",
    [
        {"groupName": "orders"},
        {"description": "desk"},
        {"text": "desk-docs-archive"},
        {"arn": FUNCTION.native},
        {"FunctionName": "desk"},
    ],
)
def test_a_word_that_happens_to_be_a_name_is_no_edge(raw: Any) -> None:
    assert found(FUNCTION, raw) == set()


@pytest.mark.parametrize("name", [KEY_ARN, "alias/desk", "arn:aws:kms:eu-central-1:1:alias/desk"])
def test_a_key_encrypts_what_names_it(name: str) -> None:
    assert found(TABLE, {"SSEDescription": {"KMSMasterKeyArn": name}}) == {("key:desk", "encrypts", "table:orders")}


def granted(*listed: dict[str, Any]) -> set[tuple[str, str]]:
    document = {"Statement": list(listed)}
    return {(edge.relation, edge.target) for edge in References(ALL).grants(ROLE, document, "p")}


def allow(actions: Any, resources: Any, effect: str = "Allow") -> dict[str, Any]:
    return {"Effect": effect, "Action": actions, "Resource": resources}


def test_reading_writing_and_calling_are_told_apart() -> None:
    assert granted(allow(["s3:GetObject"], f"{DOCS.native}/*")) == {("reads", DOCS.id)}
    assert granted(allow(["s3:PutObject"], [f"{DOCS.native}/*"])) == {("writes", DOCS.id)}
    assert granted(allow("bedrock:InvokeModel", "arn:aws:bedrock:*::foundation-model/vendor.big-v1:0")) == {
        ("calls", ENDPOINT.id)
    }
    assert granted(allow(["sqs:SendMessage", "sqs:ReceiveMessage"], "arn:aws:sqs:*:1:desk-*")) == {
        ("reads", QUEUE.id),
        ("writes", QUEUE.id),
    }
    assert granted(allow("kms:Decrypt", "arn:aws:kms:eu-central-1:1:alias/desk")) == {("calls", KEY.id)}
    assert granted(allow("s3:*", "arn:aws:s3:::desk-models/*")) == {("reads", MODEL.id), ("writes", MODEL.id)}
    assert granted(allow("*", TABLE.native)) == {("reads", TABLE.id), ("writes", TABLE.id)}


def test_what_grants_nothing() -> None:
    assert granted(allow("s3:GetObject", f"{DOCS.native}/*", "Deny")) == set()
    assert granted(allow("sqs:SendMessage", f"{DOCS.native}/*")) == set(), "another service's action"
    assert granted(allow("s3:GetObject", "*")) == set(), "everything names nothing"
    assert granted({"Effect": "Allow", "NotAction": "s3:*", "NotResource": "x"}) == set()


def test_a_buckets_policy_says_who_may() -> None:
    statement = allow(["s3:GetObject", "s3:PutObject"], f"{DOCS.native}/*") | {"Principal": {"AWS": ROLE.native}}
    raw = {"policy": json.dumps({"Statement": statement})}
    edges = list(References(ALL).edges_of(DOCS, raw))
    assert {(e.source, e.relation, e.target) for e in edges} == {
        (ROLE.id, "reads", DOCS.id),
        (ROLE.id, "writes", DOCS.id),
    }
    assert edges[0].evidence.startswith("resource policy")


def test_one_statement_and_one_value_count_as_lists() -> None:
    assert statements({"Statement": {"Effect": "Allow"}}) == [{"Effect": "Allow"}] and statements({}) == []
    assert list(relations(["dynamodb:GetItem"], TABLE)) == [("reads", "dynamodb:GetItem")]


def test_every_string_is_walked_with_its_path() -> None:
    raw = {"a": ["x", {"b": "y"}], "c": 1, "d": None}
    assert list(strings(raw)) == [("a[]", "x"), ("a[].b", "y")]


def test_evidence_names_the_field() -> None:
    (edge,) = References(ALL).edges_of(FUNCTION, {"Role": ROLE.native})
    assert edge == Edge("function:desk", "runs-as", "role:desk-app", "Role")
