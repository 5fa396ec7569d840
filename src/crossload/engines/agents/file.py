"""The neutral agent file: an Open Agent Spec `Agent` with its model and tools, and our sidecar in `metadata.crossload`.

Only the part of the format that one agent with tools needs is read; what is outside is a diagnostic, never ignored.
The sidecar holds what the format has no word for: guardrail, memory, knowledge, identity, stage prompts, origin.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from crossload.estate.diagnostic import Diagnostic, errors_in
from crossload.estate.digest import digest_of_json
from crossload.estate.whole import write_whole
from crossload.ports.errors import Invalid
from crossload.ports.models import ToolSpec

FORMAT_VERSION = "26.2.0"
READABLE_VERSIONS = ("25.4.1", "25.4.2", "26.1.0", "26.1.1", "26.1.2", "26.2.0", "26.3.0", "26.3.1")
SIDECAR = "crossload"

_AGENT_KEYS = frozenset(
    "component_type agentspec_version id name description metadata inputs outputs llm_config system_prompt tools "
    "toolboxes human_in_the_loop transforms $referenced_components".split()
)
_TOOLS = ("ServerTool", "ClientTool", "MCPTool", "RemoteTool")


@dataclass(frozen=True, slots=True)
class AgentFile:
    """A checked agent document. `document` is the JSON of the file; treat it as read-only."""

    document: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.document["name"])

    @property
    def instructions(self) -> str:
        return str(self.document["system_prompt"])

    @property
    def model(self) -> str:
        return str(self.document["llm_config"]["model_id"])

    @property
    def generation(self) -> Mapping[str, Any]:
        """temperature, top_p, max_tokens and what else the file asks for; empty when it leaves all to the endpoint."""
        return self.document["llm_config"].get("default_generation_parameters") or {}

    @property
    def sidecar(self) -> Mapping[str, Any]:
        return (self.document.get("metadata") or {}).get(SIDECAR) or {}

    @property
    def tools(self) -> tuple[ToolSpec, ...]:
        return tuple(
            ToolSpec(str(tool["name"]), str(tool.get("description") or ""), parameters_of(tool.get("inputs") or ()))
            for tool in self.document.get("tools") or ()
        )

    def needs_confirmation(self, tool: str) -> bool:
        return any(
            item["name"] == tool and item.get("requires_confirmation") for item in self.document.get("tools") or ()
        )

    @property
    def digest(self) -> str:
        """sha256 hex of the canonical JSON: the same agent has the same digest in JSON and in YAML."""
        return digest_of_json(dict(self.document)).hex

    def to_text(self) -> str:
        return json.dumps(self.document, indent=2, ensure_ascii=False, sort_keys=True) + "\n"

    def save(self, path: Path) -> None:
        """JSON, or YAML when the name ends so. Whole or not at all."""
        text = self.to_text()
        if path.suffix in (".yaml", ".yml"):
            import yaml

            text = yaml.safe_dump(json.loads(text), sort_keys=True, allow_unicode=True, width=120)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)


def load(path: Path) -> AgentFile:
    """Raises Invalid, naming every problem of the file at once."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"agent file {path}: {error}") from error
    try:
        document: Any = json.loads(text)
    except ValueError:
        import yaml

        try:
            document = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise Invalid(f"agent file {path} is neither JSON nor YAML: {error}") from error
    return loaded(document, str(path))


def loaded(document: Any, subject: str = "agent file") -> AgentFile:
    """Raises Invalid, naming every problem at once."""
    problems = errors_in(check(document, subject))
    if problems:
        raise Invalid(
            f"{subject}: " + "; ".join(problem.summary for problem in problems),
            hint="; ".join(dict.fromkeys(problem.hint for problem in problems if problem.hint)),
        )
    return AgentFile(cast(Mapping[str, Any], document))


def check(document: Any, subject: str = "agent file") -> list[Diagnostic]:
    """Every problem of a document; errors make it unusable here, warnings say what our loop will not do."""
    if not isinstance(document, dict):
        return [Diagnostic.error("XL650", "not a mapping", subject=subject, hint="an agent file is one JSON object")]
    return list(_problems(cast(dict[str, Any], document), subject))


def _problems(document: dict[str, Any], subject: str) -> Iterator[Diagnostic]:
    def error(code: str, summary: str, hint: str = "") -> Diagnostic:
        return Diagnostic.error(code, summary, subject=subject, hint=hint)

    if document.get("component_type") != "Agent":
        kind = document.get("component_type")
        yield error(
            "XL651", f"component_type is {kind!r}, not Agent", "flows, swarms and remote agents are not run here"
        )
    version = document.get("agentspec_version")
    if version not in READABLE_VERSIONS:
        yield error(
            "XL652", f"agentspec_version {version!r} is not known here", f"known: {', '.join(READABLE_VERSIONS)}"
        )
    for key in sorted(set(document) - _AGENT_KEYS):
        yield error("XL653", f"unknown key `{key}`", "keys of our own belong under metadata.crossload")
    if document.get("$referenced_components"):
        yield error("XL654", "$referenced_components is used", "write components where they are used")
    for key in ("name", "system_prompt"):
        if not isinstance(document.get(key), str) or not document[key]:
            yield error("XL655", f"`{key}` is missing or no text")
    model = document.get("llm_config")
    if not isinstance(model, dict) or not isinstance(cast(dict[str, Any], model).get("model_id"), str):
        yield error("XL656", "`llm_config.model_id` is missing", "name the model the agent was written for")
    elif cast(dict[str, Any], model).get("api_key"):
        yield error(
            "XL657", "llm_config.api_key holds a key", "secrets are references in the migration file, never here"
        )
    if document.get("inputs"):
        yield Diagnostic.warning("XL658", "`inputs` are not filled by our loop", subject=subject)
    if document.get("toolboxes"):
        yield Diagnostic.warning(
            "XL659", "`toolboxes` are not opened by our loop; list tools one by one", subject=subject
        )
    yield from _tool_problems(document.get("tools") if document.get("tools") is not None else [], subject)


def _tool_problems(tools: Any, subject: str) -> Iterator[Diagnostic]:
    if not isinstance(tools, list):
        yield Diagnostic.error("XL660", "`tools` is not a list", subject=subject)
        return
    seen: set[str] = set()
    for index, tool in enumerate(cast(list[Any], tools)):
        at = f"tools[{index}]"
        if not isinstance(tool, dict) or not isinstance(cast(dict[str, Any], tool).get("name"), str):
            yield Diagnostic.error("XL661", f"{at} has no name", subject=subject)
            continue
        item = cast(dict[str, Any], tool)
        name = str(item["name"])
        if item.get("component_type") not in _TOOLS:
            yield Diagnostic.error("XL662", f"{at} ({name}) is a {item.get('component_type')!r}", subject=subject,
                                   hint=f"known: {', '.join(_TOOLS)}")  # fmt: skip
        if name in seen:
            yield Diagnostic.error("XL663", f"tool `{name}` is given twice", subject=subject, hint="rename one")
        seen.add(name)
        for number, entry in enumerate(cast(list[Any], item.get("inputs") or [])):
            if not isinstance(entry, dict) or not cast(dict[str, Any], entry).get("title"):
                yield Diagnostic.error("XL664", f"{at} ({name}) input {number} has no title", subject=subject)


def parameters_of(inputs: Any) -> dict[str, Any]:
    """The format's list of titled properties, as one JSON Schema object. A property with a default is optional."""
    properties: dict[str, Any] = {}
    required: list[str] = []
    for entry in inputs:
        schema = {key: value for key, value in entry.items() if key not in ("title", "default")}
        options = schema.get("anyOf")
        if "default" not in entry:
            required.append(str(entry["title"]))
        elif isinstance(options, list) and {"type": "null"} in options:
            rest = [option for option in cast(list[Any], options) if option != {"type": "null"}]
            kept = {key: value for key, value in schema.items() if key != "anyOf"}
            schema = {**kept, **rest[0]} if len(rest) == 1 else {**kept, "anyOf": rest}
        properties[str(entry["title"])] = schema
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def inputs_of(parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The other way: optional parameters may be null, and are null by default."""
    required = set(parameters.get("required") or ())
    found: list[dict[str, Any]] = []
    for name, schema in (parameters.get("properties") or {}).items():
        if name in required:
            found.append({**schema, "title": name})
        else:
            about = {"description": schema["description"]} if "description" in schema else {}
            bare = {key: value for key, value in schema.items() if key != "description"}
            found.append({**about, "title": name, "anyOf": [bare, {"type": "null"}], "default": None})
    return found
