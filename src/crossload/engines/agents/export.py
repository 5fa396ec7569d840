"""From a place's agent definition to the neutral agent file, with every loss named."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from crossload.engines.agents.file import FORMAT_VERSION, SIDECAR, AgentFile, inputs_of, loaded
from crossload.ports.agents import SEVERITIES, AgentDefinition, AgentTool, Loss

# Components need ids; ids made from names keep a second export byte for byte the same.
_IDS = uuid.UUID("6f5b1c1e-3f0e-5d1a-9a53-0c6d1d0a7b11")
_PLACEHOLDER = re.compile(r"\{\{\s*\w+\s*\}\}")
_GENERATION = ("temperature", "top_p", "max_tokens")


@dataclass(frozen=True, slots=True)
class ToolServer:
    """How to start the MCP server that has a tool. `environment` values are plain settings or references (`env:NAME`,
    `file:PATH`), never secrets; they are resolved when the server is started, not when the file is written."""

    command: str
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: str = ""


def export(
    definition: AgentDefinition, servers: Mapping[str, ToolServer] | None = None
) -> tuple[AgentFile, list[Loss]]:
    """The file and all losses, worst first; those that the definition brought along are among them.

    `servers` maps a tool's name, its group, or `*` to the MCP server that has it. The same definition gives the same
    file, byte for byte. Raises Invalid when the definition cannot be a file at all (no name, two tools of one name)."""
    losses = [*definition.losses, *_losses(definition)]
    tools: list[dict[str, Any]] = []
    for tool in definition.tools:
        server = _server_of(tool, servers or {})
        if server is None:
            losses.append(_no_server(tool))
        tools.append(_tool(definition, tool, server))
    document: dict[str, Any] = {
        "component_type": "Agent",
        "agentspec_version": FORMAT_VERSION,
        "id": _id(definition, "agent"),
        "name": definition.name,
        "description": definition.description or None,
        "metadata": {SIDECAR: _sidecar(definition)},
        "inputs": [],
        "outputs": [],
        "llm_config": {
            "component_type": "LlmConfig",
            "id": _id(definition, "model"),
            "name": f"model of {definition.name}",
            "model_id": definition.model,
            "default_generation_parameters": _generation(definition) or None,
        },
        "system_prompt": definition.instructions,
        "tools": tools,
        "toolboxes": [],
        "human_in_the_loop": True,
    }
    rank = {severity: at for at, severity in enumerate(SEVERITIES)}
    unique = dict.fromkeys(sorted(losses, key=lambda loss: (rank[loss.severity], loss.path, loss.why)))
    return loaded(document, f"agent {definition.name}"), list(unique)


def worst(losses: list[Loss]) -> str:
    """The worst severity among them, "" when there is none."""
    return next((severity for severity in SEVERITIES if any(loss.severity == severity for loss in losses)), "")


def _id(definition: AgentDefinition, part: str) -> str:
    return str(uuid.uuid5(_IDS, f"{definition.name}/{part}"))


def _generation(definition: AgentDefinition) -> dict[str, Any]:
    return {key: value for key, value in sorted(definition.generation.items()) if value is not None}


def _server_of(tool: AgentTool, servers: Mapping[str, ToolServer]) -> ToolServer | None:
    return servers.get(tool.name) or servers.get(tool.group) or servers.get("*")


def _tool(definition: AgentDefinition, tool: AgentTool, server: ToolServer | None) -> dict[str, Any]:
    made: dict[str, Any] = {
        "component_type": "ServerTool",
        "id": _id(definition, f"tools/{tool.name}"),
        "name": tool.name,
        "description": tool.description or None,
        "metadata": {SIDECAR: {"executor": tool.executor, "group": tool.group, "native": tool.native}},
        "inputs": inputs_of(tool.parameters),
        "outputs": [{"title": f"{tool.name}_output", "type": "string"}],
        "requires_confirmation": tool.confirm,
    }
    if server is not None:
        made["component_type"] = "MCPTool"
        made["client_transport"] = {
            "component_type": "StdioTransport",
            "id": _id(definition, f"servers/{server.command} {' '.join(server.arguments)}"),
            "name": f"server of {tool.group or tool.name}",
            "command": server.command,
            "args": list(server.arguments),
            "env": dict(server.environment) or None,
            "cwd": server.folder or None,
        }
    return made


def _sidecar(definition: AgentDefinition) -> dict[str, Any]:
    """What the format has no word for. Nothing here is enforced by reading the file: see the losses."""
    kept: dict[str, Any] = {
        "origin": {"place": definition.place, "native": definition.native, "version": definition.version},
        "guardrail": definition.guardrail,
        "memory": definition.memory,
        "knowledge": [dict(item) for item in definition.knowledge],
        "identity": dict(definition.identity),
        "prompts": dict(definition.prompts),
        "collaborators": [dict(item) for item in definition.collaborators],
        "idle_seconds": definition.idle_seconds,
    }
    return {key: value for key, value in kept.items() if value}


def _losses(definition: AgentDefinition) -> Iterator[Loss]:
    yield Loss(
        "degraded", "model", f"model `{definition.model}` is named by its place and is not the same name elsewhere",
        "choose the target's model; compare tool calls before traffic moves",
    )  # fmt: skip
    if definition.guardrail:
        yield Loss(
            "sidecar", "guardrail", "the file keeps the guardrail's rules, no neutral runtime enforces them",
            "set the same rules at the target (a gateway rule or its own guardrail) and attack both",
        )  # fmt: skip
    if definition.memory:
        yield Loss(
            "sidecar", "memory", "what the agent remembers of past sessions stays at the source",
            "export sessions as JSON lines and load them into the target's memory store",
        )  # fmt: skip
    for item in definition.knowledge:
        yield Loss(
            "sidecar", f"knowledge/{item.get('name', '')}",
            "the place retrieved passages itself; here is only from where",
            "move the index, then retrieve in the application or as one more tool",
        )  # fmt: skip
    if definition.identity:
        yield Loss(
            "sidecar", "identity", "roles and keys are the place's own",
            "give the target's workload identity the same rights (see landing)",
        )  # fmt: skip
    for stage in sorted(definition.prompts):
        yield Loss(
            "degraded", f"prompts/{stage}", "a template with the place's own variables; it is kept, not run",
            "fold what matters into the instructions",
        )  # fmt: skip
    for item in definition.collaborators:
        yield Loss(
            "blocker", f"collaborators/{item.get('name', '')}", "agents that call agents are not carried yet",
            "export each agent alone, and call one from the other as a tool",
        )  # fmt: skip
    for key in sorted(set(definition.generation) - set(_GENERATION)):
        yield Loss(
            "degraded", f"generation/{key}", "no parameter of the format; kept as an extra that runtimes may ignore",
            "check the target model's parameters",
        )  # fmt: skip
    if _PLACEHOLDER.search(definition.instructions):
        yield Loss(
            "lossy", "instructions", "double braces are placeholders in the format; a runtime would replace them",
            "write the braces otherwise in the instructions",
        )  # fmt: skip
    if definition.idle_seconds is not None:
        yield Loss(
            "sidecar",
            "idle_seconds",
            "sessions do not end by themselves in a neutral runtime",
            "end them in the application",
        )


# Who executed a tool at its place -> severity, why it is a loss without a server of its own, what to do.
_UNSERVED = {
    "function": (
        "degraded", "runs as {native} at the source, and stays there",
        "offer it over MCP: first a server that calls the same function, later one at the target",
    ),
    "http": (
        "degraded", "is an API that the place called ({native})",
        "offer it over MCP, or call it from the application",
    ),
    "builtin": ("blocker", "is the place's own tool", "offer an equivalent over MCP, or drop the tool"),
    "caller": (
        "degraded", "whoever runs the agent must execute it; the file names no server",
        "name an MCP server that has it",
    ),
}  # fmt: skip


def _no_server(tool: AgentTool) -> Loss:
    severity, why, fix = _UNSERVED.get(tool.executor, _UNSERVED["caller"])
    return Loss(severity, f"tools/{tool.name}", why.format(native=tool.native or "unknown"), fix)
