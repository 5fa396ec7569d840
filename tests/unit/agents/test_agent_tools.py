"""Tools over real MCP: the workload's own server as a child process."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from crossload.engines.agents import ToolServer, check_tools, export, open_tools, server_in
from crossload.ports.agents import AgentDefinition, AgentTool
from crossload.ports.errors import Invalid, Unavailable

SCRIPT = Path(__file__).parents[3] / "examples" / "helpdesk" / "mcp_server.py"
SERVER = ToolServer("python", (str(SCRIPT),), {"HELPDESK_ORDERS": "env:ORDERS_FILE"})
STATUS = {"type": "object", "properties": {"order_id": {"type": "integer"}}, "required": ["order_id"]}


def children() -> set[int]:
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            if int(stat.rsplit(")", 1)[1].split()[1]) == os.getpid():
                found.add(int(entry.name))
    return found


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    path = tmp_path / "orders.json"
    path.write_text(json.dumps([{"order_id": 7, "status": "packed", "item": "Think Python", "customer": "c1"}]))
    return path


def test_the_server_answers_and_goes_with_the_session(orders: Path, tmp_path: Path) -> None:
    before = children()
    agent, _ = export(
        AgentDefinition("a", "p", "n", "m", "x", tools=(AgentTool("order_status", "Status.", STATUS),)), {"*": SERVER}
    )
    server = server_in(agent, "order_status")
    assert server is not None
    with open_tools(server, environment={"ORDERS_FILE": str(orders)}, log=tmp_path / "server.log") as tools:
        assert [spec.name for spec in tools.specs()] == ["order_status"]
        assert check_tools(agent, tools) == []
        assert len(children() - before) == 1
        found = tools.call("order_status", {"order_id": 7})
        assert json.loads(found.text) == {
            "order_id": 7, "status": "packed", "item": "Think Python", "carrier": None, "due": None,
        }  # fmt: skip
        assert "\n" not in found.text
        assert "customer" not in found.text
        assert json.loads(tools.call("order_status", {"order_id": 8}).text)["status"] == "unknown"
        wrong = tools.call("order_status", {"order_id": "seven"})
        assert wrong.failed
        assert "integer" in wrong.text
        assert tools.call("fly", {}).failed
    assert children() == before


def test_our_environment_does_not_leak_into_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_CREDENTIAL", "secret")
    script = tmp_path / "server.py"
    script.write_text(
        "import os\nfrom mcp.server import MCPServer\nserver = MCPServer('env')\n"
        "@server.tool()\ndef names() -> str:\n    return ' '.join(sorted(os.environ))\nserver.run('stdio')\n"
    )
    with open_tools(ToolServer("python", (str(script),), {"GIVEN": "plain"}), environment={}) as tools:
        names = tools.call("names", {}).text
    assert "GIVEN" in names
    assert "SOME_CREDENTIAL" not in names


def test_a_server_that_does_not_start_is_unavailable(tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text("raise SystemExit('no database')\n")
    with pytest.raises(Unavailable, match="no database"), open_tools(
        ToolServer("python", (str(script),)), log=tmp_path / "log"
    ):  # fmt: skip
        pass
    with pytest.raises(Unavailable), open_tools(ToolServer("/no/such/program")):
        pass


def test_a_server_that_dies_is_unavailable(tmp_path: Path) -> None:
    script = tmp_path / "dying.py"
    script.write_text(
        "import os\nfrom mcp.server import MCPServer\nserver = MCPServer('dying')\n"
        "@server.tool()\ndef die() -> str:\n    os._exit(3)\nserver.run('stdio')\n"
    )
    with open_tools(ToolServer(sys.executable, (str(script),))) as tools, pytest.raises(Unavailable, match="die"):
        tools.call("die", {})


def test_a_reference_that_points_at_nothing_is_named() -> None:
    with pytest.raises(Invalid, match="ORDERS_FILE"), open_tools(SERVER, environment={}):
        pass
