"""An agent's action groups as neutral tools: function schemas, OpenAPI documents, and the built-in ones."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from crossload.ports.agents import AgentTool, Loss

_METHODS = ("get", "put", "post", "delete", "patch", "head", "options")
_BUILTIN_FIX = "offer an equivalent over MCP, or drop the tool"


def tools_of_group(group: Mapping[str, Any], losses: list[Loss]) -> list[AgentTool]:
    """The tools of one `agentActionGroup` of GetAgentActionGroup. What cannot be said neutrally becomes a Loss."""
    name = str(group["actionGroupName"])
    builtin = group.get("parentActionSignature")
    if builtin:
        if builtin == "AMAZON.UserInput":
            losses.append(
                Loss(
                    "degraded",
                    f"tools/{name}",
                    "asking the user back is a tool there; here the agent simply asks",
                    "nothing to do",
                )
            )
            return []
        losses.append(Loss("lossy", f"tools/{name}", f"{builtin} is the place's own and is left out", _BUILTIN_FIX))
        return []
    executor, native = _executor(group.get("actionGroupExecutor") or {})
    functions = (group.get("functionSchema") or {}).get("functions")
    if functions:
        return [_function(item, name, executor, native, losses) for item in functions]
    schema: Mapping[str, Any] = group.get("apiSchema") or {}
    if schema.get("payload"):
        return list(_operations(str(schema["payload"]), name, executor, native, losses))
    if schema.get("s3"):
        where = f"{schema['s3'].get('s3BucketName')}/{schema['s3'].get('s3ObjectKey')}"
        losses.append(
            Loss(
                "lossy",
                f"tools/{name}",
                f"its OpenAPI document is the object {where}, which was not read",
                "put it inline",
            )
        )
        return []
    losses.append(Loss("lossy", f"tools/{name}", "the group describes no function", "describe its functions"))
    return []


def _executor(executor: Mapping[str, Any]) -> tuple[str, str]:
    if executor.get("lambda"):
        return "function", str(executor["lambda"])
    return "caller", ""


def _function(item: Mapping[str, Any], group: str, executor: str, native: str, losses: list[Loss]) -> AgentTool:
    name = str(item["name"])
    properties: dict[str, Any] = {}
    required: list[str] = []
    for parameter, detail in sorted((item.get("parameters") or {}).items()):
        schema: dict[str, Any] = {"type": detail["type"]}
        if detail.get("description"):
            schema["description"] = detail["description"]
        if detail["type"] == "array":
            # The definition says "array" and no more: of what, only the function's code knows.
            losses.append(
                Loss(
                    "lossy",
                    f"tools/{name}/{parameter}",
                    "an array whose items have no type in the definition",
                    "add the type by hand",
                )
            )
        properties[parameter] = schema
        if detail.get("required"):
            required.append(parameter)
    return AgentTool(
        name, str(item.get("description", "")), {"type": "object", "properties": properties, "required": required},
        item.get("requireConfirmation") == "ENABLED", executor, group, native,
    )  # fmt: skip


def _operations(text: str, group: str, executor: str, native: str, losses: list[Loss]) -> Iterator[AgentTool]:
    """One tool per operation of an OpenAPI document (JSON or YAML)."""
    try:
        document: Any = json.loads(text)
    except ValueError:
        try:
            document = yaml.safe_load(text)
        except yaml.YAMLError:
            document = None
    if not isinstance(document, dict) or not isinstance(document.get("paths"), dict):
        losses.append(
            Loss("lossy", f"tools/{group}", "its OpenAPI document cannot be read", "describe its functions by hand")
        )
        return
    for path, methods in sorted(document["paths"].items()):
        for method in _METHODS:
            operation = methods.get(method) if isinstance(methods, dict) else None
            if not isinstance(operation, dict):
                continue
            name = str(operation.get("operationId") or f"{method}_{path.strip('/').replace('/', '_')}")
            parameters = _parameters(operation, f"tools/{name}", losses)
            confirm = operation.get("x-requireConfirmation") == "ENABLED"
            about = str(operation.get("description") or operation.get("summary") or "")
            address = native or f"{method.upper()} {path}"
            yield AgentTool(
                name, about, parameters, confirm, "function" if executor == "function" else "http", group, address
            )


def _parameters(operation: Mapping[str, Any], path: str, losses: list[Loss]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    required: list[str] = []
    for item in operation.get("parameters") or ():
        if "$ref" in item:
            losses.append(Loss("lossy", path, f"a parameter is the reference {item['$ref']}", "write it out"))
            continue
        about = {"description": item["description"]} if item.get("description") else {}
        properties[str(item["name"])] = {**about, **(item.get("schema") or {"type": "string"})}
        if item.get("required"):
            required.append(str(item["name"]))
    content = (operation.get("requestBody") or {}).get("content") or {}
    body = (content.get("application/json") or next(iter(content.values()), {})).get("schema") or {}
    if "$ref" in body:
        losses.append(Loss("lossy", path, f"its body is the reference {body['$ref']}", "write the body out"))
    properties |= body.get("properties") or {}
    required += [name for name in body.get("required") or () if name in properties]
    return {"type": "object", "properties": properties, "required": required}
