"""The Agents port: the agents a place defines, in neutral words, and all that did not survive the translation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

# Worst first. blocker: the agent cannot run elsewhere as it is. lossy: something is gone. degraded: it is there and
# behaves otherwise. sidecar: it is kept beside the agent, and nothing in a neutral runtime enforces it.
SEVERITIES = ("blocker", "lossy", "degraded", "sidecar")


@dataclass(frozen=True, slots=True)
class Loss:
    """One thing that a translation changed. `path` points into the definition it came from (`tools/find/limit`)."""

    severity: str
    path: str
    why: str
    fix: str

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise ValueError(f"severity {self.severity!r} is none of {', '.join(SEVERITIES)}")

    def to_json(self) -> dict[str, str]:
        return {"severity": self.severity, "path": self.path, "why": self.why, "fix": self.fix}


@dataclass(frozen=True, slots=True)
class AgentTool:
    """`parameters` is the JSON Schema (an object) of the arguments. `executor` is neutral: caller (the one who runs
    the agent executes it), function (code hosted at the place; `native` names it), http (an API; `native` is its
    address or ""), builtin (the place's own). `group` is the set of tools it was defined in."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    confirm: bool = False
    executor: str = "caller"
    group: str = ""
    native: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name, "description": self.description, "parameters": dict(self.parameters),
            "confirm": self.confirm, "executor": self.executor, "group": self.group, "native": self.native,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class AgentDefinition:
    """One agent as its place defines it. Everything is JSON-shaped and holds no secret.

    `generation`: temperature, top_p, top_k, max_tokens, stop. `prompts`: stage -> template written for that place.
    `guardrail`: name, version, denied_topics, blocked_words, personal_data, filters, blocked_input, blocked_output.
    `memory`: kinds, days. `knowledge`: name, description, kind, index, fields, embedding_model, native for each.
    `identity`: role, encryption_key. `collaborators`: name, instruction, native for each. `version` says which state
    was read. `losses` are those of the translation from the place's own form."""

    name: str
    place: str
    native: str
    model: str
    instructions: str
    description: str = ""
    version: str = ""
    idle_seconds: int | None = None
    tools: tuple[AgentTool, ...] = ()
    generation: Mapping[str, Any] = field(default_factory=dict)
    prompts: Mapping[str, str] = field(default_factory=dict)
    guardrail: Mapping[str, Any] | None = None
    memory: Mapping[str, Any] | None = None
    knowledge: tuple[Mapping[str, Any], ...] = ()
    identity: Mapping[str, str] = field(default_factory=dict)
    collaborators: tuple[Mapping[str, Any], ...] = ()
    losses: tuple[Loss, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For evidence and for `definition.json` beside the exported file."""
        return {
            "name": self.name, "place": self.place, "native": self.native, "model": self.model,
            "instructions": self.instructions, "description": self.description, "version": self.version,
            "idle_seconds": self.idle_seconds, "tools": [tool.to_json() for tool in self.tools],
            "generation": dict(self.generation), "prompts": dict(self.prompts), "guardrail": self.guardrail,
            "memory": self.memory, "knowledge": [dict(item) for item in self.knowledge],
            "identity": dict(self.identity), "collaborators": [dict(item) for item in self.collaborators],
            "losses": [loss.to_json() for loss in self.losses],
        }  # fmt: skip


class Agents(Protocol):
    """All calls block and change nothing. Errors are those of `ports.errors`."""

    place: str

    def definitions(self) -> list[AgentDefinition]:
        """All agents of the place, sorted by name. A part that may not be read becomes a Loss, never a silent gap;
        the listing itself being denied raises AccessDenied."""
        ...

    def definition(self, name: str) -> AgentDefinition:
        """Raises NotFound."""
        ...
