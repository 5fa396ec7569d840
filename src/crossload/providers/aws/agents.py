"""The Agents port over Bedrock Agents (the "classic" ones), read through boto3 and said in neutral words.

Read is the DRAFT state: content pinned by an alias needs its version, and that is named as a loss. Operations and
shapes: botocore's service models `bedrock-agent` 2023-06-05 and `bedrock` 2023-04-20.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from crossload.ports.agents import AgentDefinition, AgentTool, Loss
from crossload.ports.errors import AccessDenied, CrossloadError, NotFound, Unsupported
from crossload.ports.provider import Settings
from crossload.providers.aws.agent_tools import tools_of_group
from crossload.providers.aws.errors import translated
from crossload.providers.aws.session import client

_DRAFT = "DRAFT"
_GENERATION = {"temperature": "temperature", "topP": "top_p", "topK": "top_k", "maximumLength": "max_tokens"}
_STORES = {
    "RDS": "postgres", "OPENSEARCH_SERVERLESS": "opensearch", "OPENSEARCH_MANAGED_CLUSTER": "opensearch",
    "S3_VECTORS": "object vectors", "REDIS_ENTERPRISE_CLOUD": "redis", "MONGO_DB_ATLAS": "mongodb",
}  # fmt: skip
_FIELDS = {"primaryKeyField": "id", "vectorField": "vector", "textField": "text", "metadataField": "metadata"}
# What a guardrail's answer holds besides its rules.
_NOT_RULES = frozenset({"name", "version", "native", "blocked_input", "blocked_output"})


def open_agents(settings: Settings) -> BedrockAgents:
    with translated():
        return BedrockAgents(settings.place.id, client(settings, "bedrock-agent"), client(settings, "bedrock"))


class BedrockAgents:
    """`agents` and `guardrails` are boto3 clients of bedrock-agent and bedrock."""

    def __init__(self, place: str, agents: Any, guardrails: Any) -> None:
        self.place = place
        self._agents = agents
        self._guardrails = guardrails

    def definitions(self) -> list[AgentDefinition]:
        with translated():
            found = self._all("list_agents", "agentSummaries")
        return sorted((self._read(item["agentId"]) for item in found), key=lambda item: (item.name, item.native))

    def definition(self, name: str) -> AgentDefinition:
        with translated():
            found = [item for item in self._all("list_agents", "agentSummaries") if item["agentName"] == name]
        if not found:
            raise NotFound(f"place {self.place}: no agent is named {name}")
        return self._read(found[0]["agentId"])

    def _read(self, agent_id: str) -> AgentDefinition:
        with translated():
            agent: dict[str, Any] = self._agents.get_agent(agentId=agent_id)["agent"]
        losses = [
            Loss(
                "degraded", "version", "the working draft was read; an alias may serve an older version",
                "prepare the draft and compare it with what the alias serves",
            )
        ]  # fmt: skip
        generation, prompts = _generation_and_prompts(agent, losses)
        tools = self._part("tools", losses, lambda: self._tools(agent_id, losses)) or ()
        knowledge = self._part("knowledge", losses, lambda: self._knowledge(agent_id)) or ()
        guardrail = self._part(
            "guardrail", losses, lambda: self._guardrail(agent.get("guardrailConfiguration"), losses)
        )
        collaborators = self._part("collaborators", losses, lambda: self._collaborators(agent)) or ()
        memory = agent.get("memoryConfiguration")
        identity = {"role": agent.get("agentResourceRoleArn"), "encryption_key": agent.get("customerEncryptionKeyArn")}
        return AgentDefinition(
            name=agent["agentName"],
            place=self.place,
            native=agent["agentArn"],
            model=agent.get("foundationModel", ""),
            instructions=agent.get("instruction", ""),
            description=agent.get("description", ""),
            version=agent.get("agentVersion", _DRAFT),
            idle_seconds=agent.get("idleSessionTTLInSeconds"),
            tools=tools,
            generation=generation,
            prompts=prompts,
            guardrail=guardrail,
            memory={"kinds": memory.get("enabledMemoryTypes", []), "days": memory.get("storageDays")}
            if memory
            else None,
            knowledge=knowledge,
            identity={key: value for key, value in identity.items() if value},
            collaborators=collaborators,
            losses=tuple(losses),
        )

    def _part(self, path: str, losses: list[Loss], read: Callable[[], Any]) -> Any:
        """A part that may not be read, or that this server does not know, is a named gap; the rest goes on."""
        try:
            with translated():
                return read()
        except (AccessDenied, NotFound, Unsupported) as error:
            losses.append(Loss("lossy", path, f"could not be read: {error}", "grant the reading user this call"))
        except CrossloadError as error:
            if error.retryable:
                raise
            losses.append(Loss("lossy", path, f"the server answered: {error}", "look at the agent by hand"))
        return None

    def _all(self, operation: str, key: str, **arguments: Any) -> list[dict[str, Any]]:
        pages = self._agents.get_paginator(operation).paginate(**arguments)
        return [item for page in pages for item in page.get(key, ())]

    def _tools(self, agent_id: str, losses: list[Loss]) -> tuple[AgentTool, ...]:
        where = {"agentId": agent_id, "agentVersion": _DRAFT}
        tools: list[AgentTool] = []
        for item in self._all("list_agent_action_groups", "actionGroupSummaries", **where):
            group = self._agents.get_agent_action_group(**where, actionGroupId=item["actionGroupId"])[
                "agentActionGroup"
            ]
            if group.get("actionGroupState") == "DISABLED":
                losses.append(
                    Loss(
                        "lossy",
                        f"tools/{group['actionGroupName']}",
                        "the group is switched off and left out",
                        "switch it on",
                    )
                )
                continue
            tools += tools_of_group(group, losses)
        return tuple(tools)

    def _knowledge(self, agent_id: str) -> tuple[Mapping[str, Any], ...]:
        found: list[Mapping[str, Any]] = []
        for item in self._all(
            "list_agent_knowledge_bases", "agentKnowledgeBaseSummaries", agentId=agent_id, agentVersion=_DRAFT
        ):
            base = self._agents.get_knowledge_base(knowledgeBaseId=item["knowledgeBaseId"])["knowledgeBase"]
            found.append(_knowledge_base(base, item.get("description", "")))
        return tuple(sorted(found, key=lambda entry: str(entry["name"])))

    def _guardrail(self, configured: Mapping[str, str] | None, losses: list[Loss]) -> Mapping[str, Any] | None:
        if not configured:
            return None
        name, version = configured["guardrailIdentifier"], configured.get("guardrailVersion", _DRAFT)
        held = self._guardrails.get_guardrail(guardrailIdentifier=name, guardrailVersion=version)
        rules = _guardrail_rules(held)
        if not set(rules) - _NOT_RULES:
            # An empty answer must not read like a guardrail that allows everything.
            losses.append(
                Loss(
                    "lossy",
                    "guardrail",
                    "the server named the guardrail but none of its rules",
                    "copy its rules by hand",
                )
            )
        return rules

    def _collaborators(self, agent: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
        if agent.get("agentCollaboration", "DISABLED") == "DISABLED":
            return ()
        listed = self._all(
            "list_agent_collaborators", "agentCollaboratorSummaries", agentId=agent["agentId"], agentVersion=_DRAFT
        )
        return tuple(
            {
                "name": item["collaboratorName"],
                "instruction": item.get("collaborationInstruction", ""),
                "native": item.get("agentDescriptor", {}).get("aliasArn", ""),
            }
            for item in listed
        )


def _generation_and_prompts(agent: Mapping[str, Any], losses: list[Loss]) -> tuple[dict[str, Any], dict[str, str]]:
    """Parameters of the stage that talks to the customer; the templates of every stage that was overridden."""
    generation: dict[str, Any] = {}
    prompts: dict[str, str] = {}
    override = agent.get("promptOverrideConfiguration") or {}
    for item in override.get("promptConfigurations", ()):
        stage = str(item["promptType"]).lower()
        if item.get("promptCreationMode") != "OVERRIDDEN" or item.get("promptState") == "DISABLED":
            continue
        if item.get("basePromptTemplate"):
            prompts[stage] = item["basePromptTemplate"]
        inference = item.get("inferenceConfiguration") or {}
        if stage == "orchestration":
            generation = {
                ours: inference[theirs] for theirs, ours in _GENERATION.items() if inference.get(theirs) is not None
            }
            if inference.get("stopSequences"):
                generation["stop"] = list(inference["stopSequences"])
        elif inference:
            losses.append(
                Loss(
                    "lossy",
                    f"prompts/{stage}",
                    "this stage has parameters of its own; there is one model call here",
                    "none",
                )
            )
        if item.get("parserMode") == "OVERRIDDEN":
            losses.append(
                Loss(
                    "blocker",
                    f"prompts/{stage}",
                    "answers are read by a function of its own",
                    "rewrite that function as a tool",
                )
            )
    return generation, prompts


def _knowledge_base(base: Mapping[str, Any], use: str) -> dict[str, Any]:
    storage: Mapping[str, Any] = base.get("storageConfiguration") or {}
    # The configuration's key is the type in another spelling: take whichever one is there.
    inner: Mapping[str, Any] = next((value for value in storage.values() if isinstance(value, dict)), {})
    vectors = (base.get("knowledgeBaseConfiguration") or {}).get("vectorKnowledgeBaseConfiguration") or {}
    names = ("tableName", "vectorIndexName", "collectionName", "indexName", "indexArn")
    return {
        "name": base["name"],
        "description": base.get("description", ""),
        "use": use,
        "kind": _STORES.get(str(storage.get("type")), str(storage.get("type", "unknown")).lower()),
        "index": next((str(inner[name]) for name in names if inner.get(name)), "unknown"),
        "fields": {_FIELDS[key]: value for key, value in (inner.get("fieldMapping") or {}).items() if key in _FIELDS},
        "embedding_model": vectors.get("embeddingModelArn", "unknown"),
        "native": base.get("knowledgeBaseArn", ""),
    }


def _guardrail_rules(held: Mapping[str, Any]) -> dict[str, Any]:
    """Every policy of GetGuardrail in neutral words; a policy that is not set is left out."""

    def items(policy: str, name: str) -> list[Mapping[str, Any]]:
        return list((held.get(policy) or {}).get(name) or ())

    rules: dict[str, Any] = {
        "name": held.get("name", ""),
        "version": held.get("version", ""),
        "native": held.get("guardrailArn", ""),
        "denied_topics": [
            {
                "name": item["name"],
                "definition": item.get("definition", ""),
                "examples": list(item.get("examples") or ()),
            }
            for item in items("topicPolicy", "topics")
        ],
        "blocked_words": [item["text"] for item in items("wordPolicy", "words")],
        "word_lists": [item["type"] for item in items("wordPolicy", "managedWordLists")],
        "personal_data": {item["type"]: item["action"] for item in items("sensitiveInformationPolicy", "piiEntities")},
        "patterns": [
            {"name": item["name"], "pattern": item["pattern"], "action": item["action"]}
            for item in items("sensitiveInformationPolicy", "regexes")
        ],
        "filters": [
            {"kind": item["type"], "input": item.get("inputStrength"), "output": item.get("outputStrength")}
            for item in items("contentPolicy", "filters")
        ],
        "grounding": {item["type"]: item["threshold"] for item in items("contextualGroundingPolicy", "filters")},
        "blocked_input": held.get("blockedInputMessaging", ""),
        "blocked_output": held.get("blockedOutputsMessaging", ""),
    }
    return {key: value for key, value in rules.items() if value}
