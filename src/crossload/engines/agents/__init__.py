"""Agents: their definitions as neutral files, run by our own loop, compared by the tools they call.

    file, losses = export(definition, servers={"*": ToolServer("python", ("mcp_server.py",))})
    with open_tools(server_in(file, "order_status")) as tools:
        source = run(file, source_model.complete, tools, [Message("user", "Where is my order 1042?")])
        target = run(file, target_model.complete, tools, [Message("user", "Where is my order 1042?")])
    compare({"c01": source.calls}, {"c01": target.calls}).equal

The MCP SDK is loaded when tools are opened, not before.
"""

from crossload.engines.agents.compare import Comparison, Difference, compare
from crossload.engines.agents.decide import Call, Decision
from crossload.engines.agents.export import ToolServer, export, worst
from crossload.engines.agents.file import AgentFile, check, load, loaded
from crossload.engines.agents.loop import Conversation, Turn, run
from crossload.engines.agents.tools import ToolResult, ToolSession, check_tools, open_tools, server_in

__all__ = [
    "AgentFile", "Call", "Comparison", "Conversation", "Decision", "Difference", "ToolResult", "ToolServer",
    "ToolSession", "Turn", "check", "check_tools", "compare", "export", "load", "loaded", "open_tools", "run",
    "server_in", "worst",
]  # fmt: skip
