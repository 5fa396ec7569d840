"""The helpdesk agent as cloud A's agent service defines it, from `examples/helpdesk/agent.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crossload.lab.cloud_a import ACCOUNT
from crossload.lab.seed_clients import Clients

_PROMPT = "$instruction$\n\nUse the tools you are given.\n$tools$\n$prompt_session_attributes$"
_EMBEDDER = "amazon.titan-embed-text-v2:0"


def ensure_guardrail(clients: Clients, definition: dict[str, Any]) -> bool:
    bedrock = clients.get("bedrock")
    wanted = definition["guardrail"]
    if _guardrail_id(bedrock, wanted["name"]):
        return False
    bedrock.create_guardrail(
        name=wanted["name"],
        description=wanted["description"],
        topicPolicyConfig={"topicsConfig": [{**topic, "type": "DENY"} for topic in wanted["denied_topics"]]},
        wordPolicyConfig={"wordsConfig": [{"text": word} for word in wanted["blocked_words"]]},
        sensitiveInformationPolicyConfig={
            "piiEntitiesConfig": [{"type": kind, "action": action} for kind, action in wanted["personal_data"].items()]
        },
        blockedInputMessaging=wanted["blocked_input"],
        blockedOutputsMessaging=wanted["blocked_output"],
    )
    return True


def _guardrail_id(bedrock: Any, name: str) -> str:
    found = [item["id"] for item in bedrock.list_guardrails()["guardrails"] if item["name"] == name]
    return str(found[0]) if found else ""


def ensure_knowledge_base(clients: Clients, definition: dict[str, Any], role: str, secret: str) -> bool:
    agents = clients.get("bedrock-agent")
    wanted = definition["knowledge_base"]
    if _knowledge_base_id(agents, wanted["name"]):
        return False
    fields = wanted["fields"]
    here = f"{clients.region}:{ACCOUNT}"
    agents.create_knowledge_base(
        name=wanted["name"],
        description=wanted["description"],
        roleArn=role,
        knowledgeBaseConfiguration={
            "type": "VECTOR",
            "vectorKnowledgeBaseConfiguration": {
                "embeddingModelArn": f"arn:aws:bedrock:{clients.region}::foundation-model/{_EMBEDDER}"
            },
        },
        storageConfiguration={
            "type": "RDS",
            "rdsConfiguration": {
                "resourceArn": f"arn:aws:rds:{here}:cluster:helpdesk",
                "credentialsSecretArn": f"arn:aws:secretsmanager:{here}:secret:{secret}",
                "databaseName": "helpdesk",
                "tableName": wanted["table"],
                "fieldMapping": {
                    "primaryKeyField": fields["primary_key"],
                    "vectorField": fields["vector"],
                    "textField": fields["text"],
                    "metadataField": fields["metadata"],
                },
            },
        },
    )
    return True


def _knowledge_base_id(agents: Any, name: str) -> str:
    listed = agents.list_knowledge_bases()["knowledgeBaseSummaries"]
    return next((str(item["knowledgeBaseId"]) for item in listed if item["name"] == name), "")


def ensure_agent(clients: Clients, definition: dict[str, Any], role: str, key: str, tags: Mapping[str, str]) -> bool:
    agents = clients.get("bedrock-agent")
    generation = definition["generation"]
    wanted: dict[str, Any] = {
        "agentName": definition["name"],
        "description": definition["description"],
        "foundationModel": definition["model"],
        "instruction": definition["instruction"],
        "idleSessionTTLInSeconds": definition["idle_session_seconds"],
        "agentResourceRoleArn": role,
        "customerEncryptionKeyArn": f"arn:aws:kms:{clients.region}:{ACCOUNT}:{key}",
        "guardrailConfiguration": {
            "guardrailIdentifier": _guardrail_id(clients.get("bedrock"), definition["guardrail"]["name"]),
            "guardrailVersion": "DRAFT",
        },
        "memoryConfiguration": {
            "enabledMemoryTypes": [definition["memory"]["kind"]],
            "storageDays": definition["memory"]["days"],
        },
        "promptOverrideConfiguration": {
            "promptConfigurations": [
                {
                    "promptType": "ORCHESTRATION",
                    "promptCreationMode": "OVERRIDDEN",
                    "promptState": "ENABLED",
                    "parserMode": "DEFAULT",
                    "basePromptTemplate": _PROMPT,
                    "inferenceConfiguration": {
                        "temperature": generation["temperature"],
                        "topP": generation["top_p"],
                        "maximumLength": generation["max_tokens"],
                    },
                }
            ]
        },
    }
    agent = _agent_id(agents, definition["name"])
    if agent:
        held = agents.get_agent(agentId=agent)["agent"]
        if {name: held.get(name) for name in wanted} == wanted:
            return False
        agents.update_agent(agentId=agent, **wanted)
    else:
        agent = agents.create_agent(**wanted, tags=tags)["agent"]["agentId"]
    _ensure_linked(agents, agent, definition)
    agents.prepare_agent(agentId=agent)
    return True


def _agent_id(agents: Any, name: str) -> str:
    pages = agents.get_paginator("list_agents").paginate()
    listed = [item for page in pages for item in page["agentSummaries"]]
    return next((str(item["agentId"]) for item in listed if item["agentName"] == name), "")


def _ensure_linked(agents: Any, agent: str, definition: dict[str, Any]) -> None:
    base = definition["knowledge_base"]
    wanted = _knowledge_base_id(agents, base["name"])
    linked = agents.list_agent_knowledge_bases(agentId=agent, agentVersion="DRAFT")["agentKnowledgeBaseSummaries"]
    if wanted and wanted not in {item["knowledgeBaseId"] for item in linked}:
        agents.associate_agent_knowledge_base(
            agentId=agent, agentVersion="DRAFT", knowledgeBaseId=wanted, description=base["description"]
        )


def ensure_action_group(clients: Clients, definition: dict[str, Any]) -> bool:
    """The agent's one tool. Control goes back to the caller, so that the tool itself can live anywhere."""
    agents = clients.get("bedrock-agent")
    agent = _agent_id(agents, definition["name"])
    wanted = definition["action_group"]
    listed = agents.list_agent_action_groups(agentId=agent, agentVersion="DRAFT")["actionGroupSummaries"]
    if any(item["actionGroupName"] == wanted["name"] for item in listed):
        return False
    agents.create_agent_action_group(
        agentId=agent,
        agentVersion="DRAFT",
        actionGroupName=wanted["name"],
        description=wanted["description"],
        actionGroupState="ENABLED",
        actionGroupExecutor={"customControl": "RETURN_CONTROL"},
        functionSchema={
            "functions": [
                {
                    "name": function["name"],
                    "description": function["description"],
                    "requireConfirmation": "ENABLED" if function["confirm"] else "DISABLED",
                    "parameters": function["parameters"],
                }
                for function in wanted["functions"]
            ]
        },
    )
    agents.prepare_agent(agentId=agent)
    return True
