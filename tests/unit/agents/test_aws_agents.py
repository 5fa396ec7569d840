"""Reading Bedrock agents: answers in the shapes of AWS's own model (botocore's Stubber refuses any other)."""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from crossload.engines.agents import export
from crossload.ports.errors import AccessDenied, NotFound, Throttled
from crossload.providers.aws.agents import BedrockAgents

AT = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)
ARN = "arn:aws:bedrock:eu-central-1:111122223333"
AGENT_ID, GROUP, KB = "ABCDEFGHIJ", "GROUP00001", "KBKBKBKB01"
WHERE = {"agentId": AGENT_ID, "agentVersion": "DRAFT"}
FUNCTION = "arn:aws:lambda:eu-central-1:111122223333:function:orders"
GUARDRAIL = f"{ARN}:guardrail/gr1"


@functools.cache
def clients() -> tuple[Any, Any]:
    session = boto3.Session(aws_access_key_id="x", aws_secret_access_key="x", region_name="eu-central-1")
    return session.client("bedrock-agent"), session.client("bedrock")


class Cloud:
    """Two stubbed clients; every expected call must be made, in order."""

    def __init__(self) -> None:
        self.agents, self.bedrock = clients()
        self.stub = Stubber(self.agents)
        self.guard = Stubber(self.bedrock)

    def port(self) -> BedrockAgents:
        return BedrockAgents("aws-frankfurt", self.agents, self.bedrock)


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    made = Cloud()
    with made.stub, made.guard:
        yield made
    made.stub.assert_no_pending_responses()
    made.guard.assert_no_pending_responses()


def agent(**changes: Any) -> dict[str, Any]:
    held = {
        "agentId": AGENT_ID, "agentName": "helpdesk", "agentArn": f"{ARN}:agent/{AGENT_ID}", "agentVersion": "DRAFT",
        "agentStatus": "PREPARED", "idleSessionTTLInSeconds": 900, "createdAt": AT, "updatedAt": AT,
        "agentResourceRoleArn": "arn:aws:iam::111122223333:role/AmazonBedrockExecutionRoleForAgents_X",
        "foundationModel": "meta.llama3-8b-instruct-v1:0",
        "instruction": "You are the helpdesk of a shop that sells books about Python.",
    }  # fmt: skip
    return {"agent": {**held, **changes}}


def listed(cloud: Cloud, name: str = "helpdesk") -> None:
    item = {"agentId": AGENT_ID, "agentName": name, "agentStatus": "PREPARED", "updatedAt": AT}
    cloud.stub.add_response("list_agents", {"agentSummaries": [item]})


def groups(cloud: Cloud, *held: dict[str, Any]) -> None:
    summaries = [
        {"actionGroupId": item["actionGroupId"], "actionGroupName": item["actionGroupName"],
         "actionGroupState": item["actionGroupState"], "updatedAt": AT}
        for item in held
    ]  # fmt: skip
    cloud.stub.add_response("list_agent_action_groups", {"actionGroupSummaries": summaries}, WHERE)
    for item in held:
        expected = {**WHERE, "actionGroupId": item["actionGroupId"]}
        cloud.stub.add_response("get_agent_action_group", {"agentActionGroup": item}, expected)


def group(name: str = "orders", **changes: Any) -> dict[str, Any]:
    return {
        "agentId": AGENT_ID, "agentVersion": "DRAFT", "actionGroupId": GROUP, "actionGroupName": name,
        "actionGroupState": "ENABLED", "createdAt": AT, "updatedAt": AT, **changes,
    }  # fmt: skip


def no_knowledge(cloud: Cloud) -> None:
    cloud.stub.add_response("list_agent_knowledge_bases", {"agentKnowledgeBaseSummaries": []}, WHERE)


def losses_of(definition: Any) -> set[tuple[str, str]]:
    return {(loss.severity, loss.path) for loss in definition.losses}


def test_a_whole_agent(cloud: Cloud) -> None:
    listed(cloud)
    override = {
        "promptConfigurations": [
            {"promptType": "ORCHESTRATION", "promptCreationMode": "OVERRIDDEN", "promptState": "ENABLED",
             "basePromptTemplate": "$instruction$", "parserMode": "DEFAULT",
             "inferenceConfiguration": {"temperature": 0.0, "topP": 0.9, "topK": 40, "maximumLength": 256,
                                        "stopSequences": ["</answer>"]}},
            {"promptType": "POST_PROCESSING", "promptCreationMode": "OVERRIDDEN", "promptState": "DISABLED",
             "basePromptTemplate": "unused"},
            {"promptType": "MEMORY_SUMMARIZATION", "promptCreationMode": "DEFAULT", "promptState": "ENABLED",
             "basePromptTemplate": "the place's own"},
        ]
    }  # fmt: skip
    held = agent(
        description="Orders and Python.",
        promptOverrideConfiguration=override,
        guardrailConfiguration={"guardrailIdentifier": GUARDRAIL, "guardrailVersion": "2"},
        memoryConfiguration={"enabledMemoryTypes": ["SESSION_SUMMARY"], "storageDays": 30},
        customerEncryptionKeyArn="arn:aws:kms:eu-central-1:111122223333:key/k",
    )
    cloud.stub.add_response("get_agent", held, {"agentId": AGENT_ID})
    functions = {
        "functions": [
            {"name": "order_status", "description": "Status of one order.", "requireConfirmation": "DISABLED",
             "parameters": {"order_id": {"type": "integer", "description": "four digits", "required": True},
                            "language": {"type": "string"}}},
            {"name": "cancel", "requireConfirmation": "ENABLED",
             "parameters": {"order_ids": {"type": "array", "required": True}}},
        ]
    }  # fmt: skip
    groups(cloud, group(functionSchema=functions, actionGroupExecutor={"lambda": FUNCTION}))
    link = {"knowledgeBaseId": KB, "knowledgeBaseState": "ENABLED", "updatedAt": AT, "description": "for Python"}
    cloud.stub.add_response("list_agent_knowledge_bases", {"agentKnowledgeBaseSummaries": [link]}, WHERE)
    fields = {"primaryKeyField": "id", "vectorField": "embedding", "textField": "chunk", "metadataField": "source"}
    base = {
        "knowledgeBaseId": KB, "name": "manual", "knowledgeBaseArn": f"{ARN}:knowledge-base/{KB}", "status": "ACTIVE",
        "roleArn": "arn:aws:iam::111122223333:role/kb", "createdAt": AT, "updatedAt": AT,
        "knowledgeBaseConfiguration": {
            "type": "VECTOR",
            "vectorKnowledgeBaseConfiguration": {"embeddingModelArn": f"{ARN}::foundation-model/embed"},
        },
        "storageConfiguration": {
            "type": "RDS",
            "rdsConfiguration": {
                "resourceArn": "arn:aws:rds:eu-central-1:111122223333:cluster:c", "databaseName": "helpdesk",
                "credentialsSecretArn": "arn:aws:secretsmanager:eu-central-1:111122223333:secret:db",
                "tableName": "docs_index", "fieldMapping": fields,
            },
        },
    }  # fmt: skip
    cloud.stub.add_response("get_knowledge_base", {"knowledgeBase": base}, {"knowledgeBaseId": KB})
    rules = {
        "name": "shop", "guardrailId": "gr1", "guardrailArn": GUARDRAIL, "version": "2", "status": "READY",
        "createdAt": AT, "updatedAt": AT, "blockedInputMessaging": "no", "blockedOutputsMessaging": "no answer",
        "topicPolicy": {"topics": [{"name": "law", "definition": "legal advice", "examples": ["sue"], "type": "DENY"}]},
        "wordPolicy": {"words": [{"text": "guaranteed"}], "managedWordLists": [{"type": "PROFANITY"}]},
        "sensitiveInformationPolicy": {
            "piiEntities": [{"type": "EMAIL", "action": "ANONYMIZE"}],
            "regexes": [{"name": "iban", "pattern": "[A-Z]{2}[0-9]{20}", "action": "BLOCK"}],
        },
        "contentPolicy": {"filters": [{"type": "HATE", "inputStrength": "HIGH", "outputStrength": "LOW"}]},
        "contextualGroundingPolicy": {"filters": [{"type": "GROUNDING", "threshold": 0.7}]},
    }  # fmt: skip
    cloud.guard.add_response("get_guardrail", rules, {"guardrailIdentifier": GUARDRAIL, "guardrailVersion": "2"})

    (found,) = cloud.port().definitions()

    assert (found.name, found.place, found.model) == ("helpdesk", "aws-frankfurt", "meta.llama3-8b-instruct-v1:0")
    assert found.generation == {"temperature": 0.0, "top_p": 0.9, "top_k": 40, "max_tokens": 256, "stop": ["</answer>"]}
    assert found.prompts == {"orchestration": "$instruction$"}
    status, cancel = found.tools
    assert status.parameters == {
        "type": "object",
        "properties": {"language": {"type": "string"}, "order_id": {"type": "integer", "description": "four digits"}},
        "required": ["order_id"],
    }
    assert (status.executor, status.native, status.group, status.confirm) == ("function", FUNCTION, "orders", False)
    assert cancel.confirm
    assert found.memory == {"kinds": ["SESSION_SUMMARY"], "days": 30}
    assert found.identity["encryption_key"].endswith(":key/k")
    assert found.guardrail is not None
    assert found.guardrail["denied_topics"][0]["name"] == "law"
    assert found.guardrail["blocked_words"] == ["guaranteed"]
    assert found.guardrail["word_lists"] == ["PROFANITY"]
    assert found.guardrail["personal_data"] == {"EMAIL": "ANONYMIZE"}
    assert found.guardrail["patterns"][0]["name"] == "iban"
    assert found.guardrail["filters"] == [{"kind": "HATE", "input": "HIGH", "output": "LOW"}]
    assert found.guardrail["grounding"] == {"GROUNDING": 0.7}
    (manual,) = found.knowledge
    assert (manual["kind"], manual["index"], manual["use"]) == ("postgres", "docs_index", "for Python")
    assert manual["fields"] == {"id": "id", "vector": "embedding", "text": "chunk", "metadata": "source"}
    assert losses_of(found) == {("degraded", "version"), ("lossy", "tools/cancel/order_ids")}
    json.dumps(found.to_json())  # JSON-shaped: it goes into evidence as it is

    file, losses = export(found)
    assert [tool.name for tool in file.tools] == ["order_status", "cancel"]
    assert {("lossy", "tools/cancel/order_ids"), ("degraded", "tools/order_status"), ("sidecar", "guardrail")} <= {
        (loss.severity, loss.path) for loss in losses
    }


def test_an_openapi_group_becomes_one_tool_per_operation(cloud: Cloud) -> None:
    listed(cloud)
    cloud.stub.add_response("get_agent", agent())
    document = {
        "openapi": "3.0.0",
        "paths": {
            "/orders/{id}": {
                "get": {"operationId": "getOrder", "description": "One order.",
                        "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}},
                                       {"$ref": "#/components/parameters/lang"}]},
                "delete": {"summary": "Cancels.", "x-requireConfirmation": "ENABLED"},
            },
            "/orders": {
                "post": {"operationId": "createOrder", "requestBody": {"content": {"application/json": {"schema": {
                    "properties": {"isbn": {"type": "string"}}, "required": ["isbn"]}}}}},
            },
        },
    }  # fmt: skip
    groups(
        cloud,
        group(apiSchema={"payload": json.dumps(document)}, actionGroupExecutor={"customControl": "RETURN_CONTROL"}),
    )
    no_knowledge(cloud)
    (found,) = cloud.port().definitions()
    tools = {tool.name: tool for tool in found.tools}
    assert set(tools) == {"createOrder", "getOrder", "delete_orders_{id}"}
    assert tools["getOrder"].parameters["properties"] == {"id": {"type": "integer"}}
    assert tools["createOrder"].parameters["required"] == ["isbn"]
    assert tools["delete_orders_{id}"].confirm
    assert {tool.executor for tool in found.tools} == {"http"}
    assert ("lossy", "tools/getOrder") in losses_of(found)


@pytest.mark.parametrize(
    ("changes", "loss"),
    [
        ({"parentActionSignature": "AMAZON.CodeInterpreter"}, ("lossy", "tools/orders")),
        ({"parentActionSignature": "AMAZON.UserInput"}, ("degraded", "tools/orders")),
        ({"apiSchema": {"s3": {"s3BucketName": "schemas", "s3ObjectKey": "k.json"}}}, ("lossy", "tools/orders")),
        ({"apiSchema": {"payload": "a: b: c"}}, ("lossy", "tools/orders")),
        ({}, ("lossy", "tools/orders")),
        ({"actionGroupState": "DISABLED"}, ("lossy", "tools/orders")),
    ],
)
def test_groups_that_hold_no_portable_tool(cloud: Cloud, changes: dict[str, Any], loss: tuple[str, str]) -> None:
    listed(cloud)
    cloud.stub.add_response("get_agent", agent())
    groups(cloud, group(**changes))
    no_knowledge(cloud)
    (found,) = cloud.port().definitions()
    assert found.tools == ()
    assert loss in losses_of(found)


def test_parts_that_may_not_be_read_are_named_and_the_rest_goes_on(cloud: Cloud) -> None:
    listed(cloud)
    cloud.stub.add_response(
        "get_agent", agent(guardrailConfiguration={"guardrailIdentifier": "gr1", "guardrailVersion": "1"})
    )
    cloud.stub.add_client_error("list_agent_action_groups", "AccessDeniedException", "not authorized", 403)
    cloud.stub.add_client_error("list_agent_knowledge_bases", "ValidationException", "Unknown path", 400)
    cloud.guard.add_client_error("get_guardrail", "ResourceNotFoundException", "no such guardrail", 404)
    (found,) = cloud.port().definitions()
    assert {("lossy", "tools"), ("lossy", "knowledge"), ("lossy", "guardrail")} <= losses_of(found)
    assert found.guardrail is None
    assert any("not authorized" in loss.why for loss in found.losses)


def test_a_guardrail_that_tells_no_rules_is_not_one_that_allows_all(cloud: Cloud) -> None:
    listed(cloud)
    cloud.stub.add_response(
        "get_agent", agent(guardrailConfiguration={"guardrailIdentifier": "gr1", "guardrailVersion": "1"})
    )
    groups(cloud)
    no_knowledge(cloud)
    bare = {
        "name": "shop", "guardrailId": "gr1", "guardrailArn": GUARDRAIL, "version": "1", "status": "READY",
        "createdAt": AT, "updatedAt": AT, "blockedInputMessaging": "no", "blockedOutputsMessaging": "no",
    }  # fmt: skip
    cloud.guard.add_response("get_guardrail", bare)
    (found,) = cloud.port().definitions()
    assert ("lossy", "guardrail") in losses_of(found)


def test_collaborators_and_a_parser_of_its_own_block(cloud: Cloud) -> None:
    listed(cloud)
    parser = {"promptType": "ORCHESTRATION", "promptCreationMode": "OVERRIDDEN", "promptState": "ENABLED",
              "parserMode": "OVERRIDDEN", "basePromptTemplate": "x"}  # fmt: skip
    override = {"promptConfigurations": [parser], "overrideLambda": FUNCTION}
    cloud.stub.add_response("get_agent", agent(agentCollaboration="SUPERVISOR", promptOverrideConfiguration=override))
    groups(cloud)
    no_knowledge(cloud)
    other = {
        "agentId": AGENT_ID, "agentVersion": "DRAFT", "collaboratorId": "COLLAB0001", "collaboratorName": "billing",
        "collaborationInstruction": "ask it about money", "relayConversationHistory": "DISABLED", "createdAt": AT,
        "lastUpdatedAt": AT, "agentDescriptor": {"aliasArn": f"{ARN}:agent-alias/A/B"},
    }  # fmt: skip
    cloud.stub.add_response("list_agent_collaborators", {"agentCollaboratorSummaries": [other]}, WHERE)
    (found,) = cloud.port().definitions()
    assert found.collaborators == (
        {"name": "billing", "instruction": "ask it about money", "native": f"{ARN}:agent-alias/A/B"},
    )
    assert ("blocker", "prompts/orchestration") in losses_of(found)
    assert ("blocker", "collaborators/billing") in {(loss.severity, loss.path) for loss in export(found)[1]}


def test_pages_are_followed(cloud: Cloud) -> None:
    def page(name: str, agent_id: str, **more: str) -> dict[str, Any]:
        item = {"agentId": agent_id, "agentName": name, "agentStatus": "PREPARED", "updatedAt": AT}
        return {"agentSummaries": [item], **more}

    cloud.stub.add_response("list_agents", page("zeta", "AAAAAAAAA1", nextToken="t"))
    cloud.stub.add_response("list_agents", page("alpha", "AAAAAAAAA2"), {"nextToken": "t"})
    for agent_id, name in (("AAAAAAAAA1", "zeta"), ("AAAAAAAAA2", "alpha")):
        cloud.stub.add_response("get_agent", agent(agentId=agent_id, agentName=name), {"agentId": agent_id})
        where = {"agentId": agent_id, "agentVersion": "DRAFT"}
        cloud.stub.add_response("list_agent_action_groups", {"actionGroupSummaries": []}, where)
        cloud.stub.add_response("list_agent_knowledge_bases", {"agentKnowledgeBaseSummaries": []}, where)
    assert [item.name for item in cloud.port().definitions()] == ["alpha", "zeta"]


def test_one_agent_by_name(cloud: Cloud) -> None:
    listed(cloud, "other")
    with pytest.raises(NotFound, match="helpdesk"):
        cloud.port().definition("helpdesk")
    listed(cloud)
    cloud.stub.add_response("get_agent", agent())
    groups(cloud)
    no_knowledge(cloud)
    assert cloud.port().definition("helpdesk").name == "helpdesk"


def test_a_denied_listing_is_an_error_not_an_empty_account(cloud: Cloud) -> None:
    cloud.stub.add_client_error("list_agents", "AccessDeniedException", "not authorized", 403)
    with pytest.raises(AccessDenied):
        cloud.port().definitions()


def test_a_passing_trouble_is_not_written_down_as_a_loss(cloud: Cloud) -> None:
    listed(cloud)
    cloud.stub.add_response("get_agent", agent())
    cloud.stub.add_client_error("list_agent_action_groups", "ThrottlingException", "slow down", 429)
    with pytest.raises(Throttled):
        cloud.port().definitions()
