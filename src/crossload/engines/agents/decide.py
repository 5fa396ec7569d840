"""How a model without tool tokens says which tool it wants: one JSON object that fits a schema.

`{"tool": "order_status", "order_id": 1042}` calls a tool, `{"tool": "none", "answer": "..."}` answers. The schema goes
to the endpoint, which decodes only what fits it; what comes back is checked all the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from crossload.estate.digest import canonical_json
from crossload.ports.models import ToolSpec

NO_TOOL = "none"
_ANSWER = "answer"


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call that a model decided on; `arguments` is JSON-shaped."""

    tool: str
    arguments: Mapping[str, Any]

    @property
    def canonical(self) -> str:
        """Name and arguments in one form: equal calls have equal text, whatever the order of keys or 3 and 3.0."""
        return f"{self.tool} {canonical_json(_plain(self.arguments)).decode()}"

    def to_json(self) -> dict[str, Any]:
        return {"tool": self.tool, "arguments": dict(self.arguments)}


@dataclass(frozen=True, slots=True)
class Decision:
    """A call, an answer, or neither: then `problem` says what is wrong with `text`."""

    text: str
    call: Call | None = None
    answer: str | None = None
    problem: str = ""


def _plain(value: Any) -> Any:
    """JSON has one kind of number: 1042.0 and 1042 are the same argument."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in cast(Mapping[Any, Any], value).items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in cast(Sequence[Any], value)]
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return int(value)
    return value


def name_key(tools: Sequence[ToolSpec]) -> str:
    """The key that names the tool: `tool`, or with underscores before it when a parameter is called so."""
    taken = {name for tool in tools for name in tool.schema.get("properties", {})}
    key = "tool"
    while key in taken:
        key = "_" + key
    return key


def decision_schema(tools: Sequence[ToolSpec], *, may_answer: bool, answer_length_max: int = 240) -> dict[str, Any]:
    """JSON Schema of one decision. `answer_length_max` is in characters: a small model would not stop by itself."""
    key = name_key(tools)
    choices: list[dict[str, Any]] = []
    for tool in tools:
        properties = dict(tool.schema.get("properties", {}))
        required = [name for name in properties if name in set(tool.schema.get("required", ()))]
        choices.append(_object({key: {"const": tool.name}, **properties}, [key, *required]))
    if may_answer or not choices:
        answer = {"type": "string", "minLength": 1, "maxLength": answer_length_max}
        choices.append(_object({key: {"const": NO_TOOL}, _ANSWER: answer}, [key, _ANSWER]))
    return choices[0] if len(choices) == 1 else {"anyOf": choices}


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def read_decision(text: str, tools: Sequence[ToolSpec]) -> Decision:
    """Never raises: an endpoint that ignored the schema, or stopped in the middle, gives a Decision with a problem."""
    value = _first_object(text)
    if value is None:
        return Decision(text, problem="no JSON object in the answer")
    key = name_key(tools)
    name = value.pop(key, None)
    if name == NO_TOOL:
        answer = value.get(_ANSWER)
        return Decision(text, answer=answer) if isinstance(answer, str) else Decision(text, problem="no answer text")
    return _checked(text, name, value, tools)


def read_call(name: str, arguments: str, tools: Sequence[ToolSpec]) -> Decision:
    """A call in an endpoint's own form; `arguments` is JSON, or empty for none. Never raises."""
    value = _first_object(arguments) if arguments.strip() else {}
    if value is None:
        return Decision(arguments, problem=f"{name}: no JSON object in the arguments")
    return _checked(arguments, name, value, tools)


def _checked(text: str, name: Any, arguments: dict[str, Any], tools: Sequence[ToolSpec]) -> Decision:
    spec = next((tool for tool in tools if tool.name == name), None)
    if spec is None:
        return Decision(text, problem=f"asks for a tool that is not there: {name!r}")
    problem = _mismatch(arguments, spec.schema)
    return Decision(text, problem=f"{name}: {problem}") if problem else Decision(text, call=Call(spec.name, arguments))


def _first_object(text: str) -> dict[str, Any] | None:
    start = text.find("{")
    if start < 0:
        return None
    try:
        value, _ = json.JSONDecoder().raw_decode(text, start)
    except ValueError:
        return None
    return cast(dict[str, Any], value) if isinstance(value, dict) else None


_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "array": (list,),
    "object": (dict,), "null": (type(None),),
}  # fmt: skip


def _mismatch(arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """What is wrong with the arguments at the top level: names, presence, type, choice. The tool checks the rest."""
    properties: Mapping[str, Any] = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in arguments:
            return f"argument `{name}` is missing"
    for name, value in arguments.items():
        if name not in properties:
            return f"argument `{name}` is unknown"
        wanted = properties[name]
        if "enum" in wanted and value not in wanted["enum"]:
            return f"argument `{name}` is none of {wanted['enum']}"
        kind = wanted.get("type")
        if isinstance(kind, str) and not _is(value, kind):
            return f"argument `{name}` is no {kind}"
    return ""


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES.get(kind, (object,)))
