"""Tools over MCP: a server started as a child, spoken to on its standard input and output.

The MCP SDK is asynchronous; the session here is plain and blocking, so that stages and tests need no event loop.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, cast

from crossload.engines.agents.export import ToolServer
from crossload.engines.agents.file import AgentFile
from crossload.estate.secret import ReferenceUnresolved, resolve
from crossload.ports.agents import Loss
from crossload.ports.errors import Invalid, Unavailable, Unsupported
from crossload.ports.models import ToolSpec

START_SECONDS_MAX = 30.0
CALL_SECONDS_MAX = 30.0


@dataclass(frozen=True, slots=True)
class ToolResult:
    """`text` is what the model is shown; `failed` says that the tool itself did not succeed."""

    text: str
    failed: bool = False


class ToolSession(Protocol):
    def specs(self) -> tuple[ToolSpec, ...]:
        """The tools that are really there, as their server describes them."""
        ...

    def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        """A tool that fails, or is not there, is a failed result. Raises Unavailable when its server is gone."""
        ...


@contextmanager
def open_tools(
    server: ToolServer, *, environment: Mapping[str, str] | None = None, log: Path | None = None
) -> Iterator[ToolSession]:
    """Start the server, shake hands, hand out the session, and end the server with it.

    `environment` is what references are resolved against; the child gets PATH, HOME and the server's own settings, not
    our whole environment, which may hold credentials. `log` takes what the server says on standard error. Raises
    Unavailable when it does not start or does not answer, Unsupported without the MCP SDK."""
    try:
        from anyio.from_thread import start_blocking_portal
        from mcp.client.client import Client
        from mcp.client.stdio import StdioServerParameters, stdio_client
    except ImportError as error:
        raise Unsupported("tools over MCP need the MCP SDK", hint="pip install 'crossload[agents]'") from error
    parameters = StdioServerParameters(
        command=server.command if server.command != "python" else sys.executable,
        args=list(server.arguments),
        env=_settings(server, environment),
        cwd=server.folder or None,
    )
    with ExitStack() as stack:
        errors: IO[str] = stack.enter_context((log or Path("/dev/null")).open("a", encoding="utf-8"))
        portal = stack.enter_context(start_blocking_portal())
        client = Client(stdio_client(parameters, errlog=cast(Any, errors)), read_timeout_seconds=START_SECONDS_MAX)
        try:
            stack.enter_context(portal.wrap_async_context_manager(client))
            listed: Any = portal.call(client.list_tools)
        except Exception as error:
            words = f": {_tail(log)}" if log else ""
            raise Unavailable(f"MCP server `{server.command} {' '.join(server.arguments)}`: {error}{words}") from error
        specs = tuple(ToolSpec(tool.name, tool.description or "", tool.input_schema) for tool in listed.tools)
        yield _McpTools(portal, client, specs)


class _McpTools:
    def __init__(self, portal: Any, client: Any, specs: tuple[ToolSpec, ...]) -> None:
        self._portal = portal
        self._client = client
        self._specs = specs

    def specs(self) -> tuple[ToolSpec, ...]:
        return self._specs

    def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        def ask() -> Any:
            return self._client.call_tool(name, dict(arguments), read_timeout_seconds=CALL_SECONDS_MAX)

        try:
            reply: Any = self._portal.call(ask)
        except Exception as error:
            raise Unavailable(f"MCP tool {name}: {error or type(error).__name__}") from error
        return ToolResult(_text_of(reply), bool(reply.is_error))


def _text_of(reply: Any) -> str:
    """Structured content in one line when there is some: indentation costs tokens and tells a model nothing."""
    if reply.structured_content is not None:
        return json.dumps(reply.structured_content, ensure_ascii=False)
    return "\n".join(str(item.text) for item in reply.content if getattr(item, "type", "") == "text")


def _settings(server: ToolServer, environment: Mapping[str, str] | None) -> dict[str, str]:
    from mcp.client.stdio import get_default_environment

    try:
        return get_default_environment() | {
            name: resolve(value, environment) for name, value in server.environment.items()
        }
    except ReferenceUnresolved as error:
        raise Invalid(
            f"MCP server `{server.command}`: {error}", hint="set the variable, or name another setting"
        ) from error


def _tail(log: Path) -> str:
    try:
        return log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1][:300]
    except (OSError, IndexError):
        return ""


def server_in(agent: AgentFile, tool: str) -> ToolServer | None:
    """The MCP server that the file names for a tool, None when it names none."""
    for item in agent.document.get("tools") or ():
        transport = item.get("client_transport")
        if item["name"] == tool and transport and transport.get("component_type") == "StdioTransport":
            return ToolServer(
                str(transport["command"]),
                tuple(transport.get("args") or ()),
                transport.get("env") or {},
                transport.get("cwd") or "",
            )
    return None


def check_tools(agent: AgentFile, session: ToolSession) -> list[Loss]:
    """What the file promises and the server does not hold: a missing tool, another parameter, another type."""
    there = {spec.name: spec for spec in session.specs()}
    losses: list[Loss] = []
    for spec in agent.tools:
        path = f"tools/{spec.name}"
        if spec.name not in there:
            losses.append(
                Loss("blocker", path, "the server does not have it", "name the right server, or write the tool")
            )
            continue
        wanted, held = _signature(spec.schema), _signature(there[spec.name].schema)
        if wanted != held:
            losses.append(
                Loss(
                    "lossy",
                    path,
                    f"the definition says {_shown(wanted)}, the server says {_shown(held)}",
                    "make them agree",
                )
            )
    return losses


def _signature(schema: Mapping[str, Any]) -> dict[str, str]:
    required = set(schema.get("required", ()))
    return {
        name: str(value.get("type", "any")) + ("" if name in required else "?")
        for name, value in sorted(schema.get("properties", {}).items())
    }


def _shown(signature: Mapping[str, str]) -> str:
    return "(" + ", ".join(f"{name}: {kind}" for name, kind in signature.items()) + ")"
