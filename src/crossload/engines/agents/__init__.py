"""Agents: their definitions as neutral files, run by our own loop, compared by the tools they call.

    file, losses = export(definition, {"*": ToolServer("python", ("mcp_server.py",))})
    with open_tools(server_in(file, "order_status")) as tools:
        verdict = rehearse(file, source.complete, target.complete, tools, {"c01": "Where is order 1042?"}, first="tool")
    verdict.good, verdict.summary()

The MCP SDK is loaded when tools are opened, not before.
"""

from crossload.engines.agents.compare import Comparison, Difference, compare
from crossload.engines.agents.decide import Call, Decision
from crossload.engines.agents.export import ToolServer, export, worst
from crossload.engines.agents.file import AgentFile, check, load, loaded
from crossload.engines.agents.loop import Conversation, Turn, run
from crossload.engines.agents.rehearse import Rehearsal, read_talks, rehearse
from crossload.engines.agents.tools import ToolResult, ToolSession, check_tools, open_tools, server_in

__all__ = [
    "AgentFile", "Call", "Comparison", "Conversation", "Decision", "Difference", "Rehearsal", "ToolResult",
    "ToolServer", "ToolSession", "Turn", "check", "check_tools", "compare", "export", "load", "loaded", "open_tools",
    "read_talks", "rehearse", "run", "server_in", "worst",
]  # fmt: skip
