"""Invariant 4: only the rooms that are doors open sockets. Everything else asks a port."""

from __future__ import annotations

import ast

import pytest
from source_tree import Source, imports, sources

# Modules that open connections or serve them. `urllib.parse` and `http.HTTPStatus` only know words.
WIRES = {
    "socket", "ssl", "selectors", "socketserver", "asyncio", "http.client", "http.server", "urllib.request", "urllib3",
    "requests", "httpx", "aiohttp", "uvicorn", "uvloop", "websockets", "smtplib", "ftplib", "xmlrpc", "multiprocessing",
    "boto3", "botocore", "google", "azure", "psycopg", "nats", "mcp", "grpc", "paramiko",
}  # fmt: skip
# Path prefix -> why this room may open sockets.
DOORS = {
    "providers/": "speaks to the outside parties",
    "lab/": "starts and probes servers of its own on loopback",
    "conformance/": "races a store from many threads; opens nothing itself",
    "engines/gateway/listener.py": "the gateway is a server",
    "engines/gateway/server.py": "the gateway is a server",
    "engines/gateway/upstream.py": "the gateway calls the model endpoints it stands in front of",
    "engines/gateway/client.py": "a client of our own gateway",
    "engines/gateway/control.py": "a client of our own gateway",
    "engines/agents/": "an agent's tools are MCP servers that it starts and speaks to",
    "engines/telemetry/": "takes OTLP in",
    "web/": "a face may serve",
    "ledger/": "PostgreSQL for teams; the lock names its host",
}
WITHOUT_NEED = {"conformance/", "engines/telemetry/", "web/"}  # may, and do not (yet)


def wires(source: Source) -> list[str]:
    return [
        f"{source.path}:{line}: {name}"
        for line, name in imports(source.tree)
        if any(name == wire or name.startswith(f"{wire}.") for wire in WIRES)
    ]


def test_only_doors_open_sockets() -> None:
    inside = [found for source in sources() if not source.path.startswith(tuple(DOORS)) for found in wires(source)]
    assert inside == []


def test_every_door_is_used() -> None:
    used = {door for door in DOORS for source in sources() if source.path.startswith(door) and wires(source)}
    assert set(DOORS) - used <= WITHOUT_NEED, "a permission that nothing needs any more"


@pytest.mark.parametrize(
    "code",
    [
        "import socket",
        "from http.client import HTTPConnection",
        "def f():\n    import httpx",
        "from urllib import request",
    ],
)
def test_a_planted_socket_is_found(code: str) -> None:
    assert wires(Source("engines/mover/planted.py", "planted", code, ast.parse(code)))


def test_words_about_wires_are_free() -> None:
    code = "from urllib.parse import quote\nfrom http import HTTPStatus\nimport socketry"
    assert not wires(Source("engines/x.py", "x", code, ast.parse(code)))


def test_only_providers_and_the_lab_know_the_sdks() -> None:
    sdks = ("boto3", "botocore", "google", "azure", "psycopg")
    found = [
        f"{source.path}:{line}: {name}"
        for source in sources()
        if source.room not in ("providers", "lab")
        for line, name in imports(source.tree)
        if name.split(".")[0] in sdks
    ]
    assert found == []


def test_nobody_listens_on_all_addresses() -> None:
    """A migration tool that opens a port to the network by default opens it to everybody."""
    found = [
        f"{source.path}:{node.lineno}"
        for source in sources()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Constant) and node.value in ("0.0.0.0", "::", "[::]")
    ]
    assert found == []


def test_no_shell_is_asked() -> None:
    found = [
        f"{source.path}:{node.lineno}"
        for source in sources()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "shell" and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)
    ]
    assert found == []
