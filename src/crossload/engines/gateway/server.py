"""The gateway itself: doors, admin, one event loop. `serve` blocks; `Gateway` is for those who have a loop already."""

from __future__ import annotations

import asyncio
import hmac
import itertools
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

import orjson

from crossload.engines.gateway import wire as wires
from crossload.engines.gateway.arm import Arm
from crossload.engines.gateway.call import Call, Routed
from crossload.engines.gateway.config import Config, ReferenceUnresolved
from crossload.engines.gateway.errors import GatewayError
from crossload.engines.gateway.flow import Exchange, error_answer, parse
from crossload.engines.gateway.ir import Usage
from crossload.engines.gateway.keys import KEY_LENGTH_MIN, Client, KeyRing
from crossload.engines.gateway.listener import ClientConnection, Received
from crossload.engines.gateway.meter import Meter
from crossload.engines.gateway.route import (
    ARMS,
    RouteInvalid,
    random_point,
    read_state,
    session_point,
    with_weights,
    write_state,
)
from crossload.estate.whole import write_whole

_SWEEP_SECONDS = 0.25
_DRAIN_SECONDS = 10.0
_LOOPBACK = ("127.0.0.1", "::1", "::ffff:127.0.0.1")
_JSON = {"content-type": "application/json"}


class Gateway:
    """Two arms behind two doors. All of it runs in one event loop; `start` and `stop` belong to that loop."""

    def __init__(self, config: Config) -> None:
        """Reads secrets and state. Raises ReferenceUnresolved, RouteInvalid, ValueError: nothing half-started."""
        environment = config.environment()
        self.config = config
        self.state = read_state(config.path(config.state_file), config.weights)
        self.arms = {backend.arm: Arm(config, backend, environment) for backend in config.backends}
        keys = [
            (Client(item.name, item.may_choose_arm), _long_enough(config.resolve(item.key, environment), item.name))
            for item in config.clients
        ]
        self._keys = KeyRing(keys, config.open)
        self._admin_token = _long_enough(config.resolve(config.admin_token, environment), "admin")
        self.meter = Meter(config.path(config.request_log) if config.request_log else None)
        self.on_loss = config.on_loss
        self.fallback = config.fallback
        self.timeouts = config.timeouts
        self.response_bytes_max = config.limits.response_bytes_max
        self.url = ""
        self._doors = {name: wires.wire(name) for name in wires.NAMES}
        self._clients: set[ClientConnection] = set()
        self._calls: set[Call] = set()
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._run = secrets.token_hex(4)
        self._count = itertools.count(1)

    async def start(self) -> None:
        """Bind and listen. A port that was given once is taken again, so that clients find us after a restart."""
        loop = asyncio.get_running_loop()
        wanted = self.config.port or self.state.port
        config = self.config
        self._server = await loop.create_server(
            lambda: ClientConnection(
                self, config.limits, config.timeouts.request_seconds, config.timeouts.idle_seconds
            ),
            config.host, wanted, reuse_address=True, backlog=512,
        )  # fmt: skip
        port = self._server.sockets[0].getsockname()[1]
        self.state = replace(self.state, port=port)
        write_state(config.path(config.state_file), self.state)
        host = f"[{config.host}]" if ":" in config.host else config.host
        self.url = f"http://{host}:{port}"
        port_file = config.path(config.port_file)
        write_whole(port_file, f"{port}\n")
        self._sweeper = loop.create_task(self._sweep())

    async def stop(self) -> None:
        """Take no more requests, let running answers end for a few seconds, then close."""
        if self._server is not None:
            self._server.close()
        for client in list(self._clients):
            client.close()
        until = time.monotonic() + _DRAIN_SECONDS
        while self._calls and time.monotonic() < until:
            await asyncio.sleep(0.02)
        if self._sweeper is not None:
            self._sweeper.cancel()
        for arm in self.arms.values():
            arm.pool.close()
        await asyncio.sleep(0)
        await asyncio.to_thread(self.meter.log.close)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            now = time.monotonic()
            for call in list(self._calls):
                call.check(now)
            for client in list(self._clients):
                if now > client.deadline:
                    client.timed_out()
            for arm in self.arms.values():
                if arm.signer.due(time.time()):
                    await asyncio.to_thread(self._renew, arm)

    def _renew(self, arm: Arm) -> None:
        try:
            arm.signer.renew()
        except Exception:  # noqa: BLE001 - whatever a provider raises: the old credentials serve until they expire
            self.meter.refused["credentials_not_renewed"] += 1

    # ---- from the listener

    def opened(self, client: ClientConnection) -> bool:
        self._clients.add(client)
        return len(self._clients) <= self.config.limits.client_connections_max

    def closed(self, client: ClientConnection) -> None:
        self._clients.discard(client)

    def refuse(self, client: ClientConnection, target: str, code: str, message: str, param: str | None = None) -> None:
        self.meter.refused[code] += 1
        door = self._doors["converse" if target.startswith("/model/") else "chat"]
        answer = error_answer(door, code, message, param)
        client.send(answer.status, answer.headers, answer.body)

    def handle(self, client: ClientConnection, request: Received) -> None:
        path = request.target.partition("?")[0]
        try:
            if path.startswith("/admin/"):
                self._admin(client, request, path)
            elif path == "/healthz":
                client.send(200, _JSON, b'{"status":"ok"}')
            elif path == "/v1/models":
                self._list_models(client, request)
            else:
                self._chat(client, request, path)
        except GatewayError as error:
            self.refuse(client, path, error.code, error.message, error.param)
        except Exception as error:  # noqa: BLE001 - a bug of ours must not leave a client without an answer
            self.refuse(client, path, "internal", f"the gateway failed ({type(error).__name__})")

    # ---- doors

    def _admit(self, request: Received) -> Client:
        return self._keys.admit(request.method, request.target, request.headers, request.body, time.time())

    def _chat(self, client: ClientConnection, request: Received, path: str) -> None:
        door_name, model, stream = _model_path(path)
        if request.method != "POST":
            raise GatewayError("method", f"{path} wants POST")
        owner = self._admit(request)
        door = self._doors[door_name]
        parsed = parse(door, request.body, model, stream)
        if self.config.models and parsed.model not in self.config.models:
            raise GatewayError("not_found", f"the model {parsed.model} is not served here", "model")
        answer_id = f"{self._run}{next(self._count):08x}"
        exchange = Exchange(door, parsed, request.body, answer_id)
        call = Call(exchange, client, self._route(request, owner), self.arms, self)
        self._calls.add(call)
        call.begin()

    def _route(self, request: Received, owner: Client) -> Routed:
        table = self.state.table
        wanted = request.headers.get("x-crossload-arm", "")
        session = request.headers.get("x-session-id", "")
        point = session_point(self.state.salt, session) if session else random_point()
        hashed = f"{int(point * 2**53):014x}" if session else ""
        if wanted:
            if wanted not in ARMS:
                raise GatewayError("invalid", "x-crossload-arm must be source or target")
            if not owner.may_choose_arm:
                raise GatewayError("denied", "this key may not choose the arm")
            return Routed(wanted, table, True, hashed, owner.name)
        return Routed(table.arm_for(point), table, False, hashed, owner.name)

    def _list_models(self, client: ClientConnection, request: Received) -> None:
        self._admit(request)
        names = self.config.models or tuple(dict.fromkeys(arm.backend.model for arm in self.arms.values()))
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "crossload"} for name in names]
        client.send(200, _JSON, orjson.dumps({"object": "list", "data": data}))

    # ---- from calls

    def failed_over(self, arm: str, other: str) -> None:
        self.meter.arms[arm].failovers_from += 1
        self.meter.arms[other].failovers_to += 1

    def finished(self, call: Call, row: dict[str, Any], usage: Usage | None) -> None:
        self._calls.discard(call)
        meter = self.meter.arms[call.arm]
        meter.requests += 1
        meter.pinned += row["pinned"]
        meter.statuses[str(row["status"])] += 1
        if row["status"] == 499:
            meter.aborted += 1
        elif row["failure"] or row["status"] >= 500:
            meter.failures += 1
        else:
            meter.total.add(row["total_seconds"])
            if row["first_seconds"] is not None and row["stream"]:
                meter.first.add(row["first_seconds"])
            if row["status"] == 200:
                meter.usage(usage)
                meter.stops[row["stop"] or "unknown"] += 1
        self.meter.log.add(row)

    # ---- admin

    def _admin(self, client: ClientConnection, request: Received, path: str) -> None:
        if client.peer not in _LOOPBACK:
            raise GatewayError("denied", "the admin door is open to this machine only")
        sent = request.headers.get("authorization", "").removeprefix("Bearer ").encode()
        if not hmac.compare_digest(sent, self._admin_token.encode()):
            raise GatewayError("not_signed_in", "the admin token is wrong or missing")
        if path == "/admin/metrics" and request.method == "GET":
            client.send(200, _JSON, orjson.dumps(self.meter.to_json(len(self._calls))))
        elif path == "/admin/routes" and request.method in ("GET", "PUT"):
            if request.method == "PUT":
                self._set_weights(request.body)
            client.send(200, _JSON, orjson.dumps(self.routes()))
        else:
            raise GatewayError("not_found", f"there is no {request.method} {path}")

    def routes(self) -> dict[str, Any]:
        table = self.state.table
        return {
            "weights": dict(table.weights_percent),
            "epoch": table.epoch,
            "arms": {name: arm.to_json() for name, arm in self.arms.items()},
            "fallback": self.fallback,
            "pid": os.getpid(),
        }

    def _set_weights(self, body: bytes) -> None:
        try:
            value = orjson.loads(body)
            wanted = value["weights"]
            expected = value.get("if_epoch")
            changed = with_weights(self.state, wanted)
        except RouteInvalid as error:
            raise GatewayError("invalid", str(error), "weights") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise GatewayError("invalid", 'expected {"weights": {"source": 95, "target": 5}}', "weights") from error
        if expected is not None and expected != self.state.table.epoch:
            raise GatewayError("conflict", f"somebody changed the weights: the epoch is {self.state.table.epoch}")
        # On disk first, then in force, then answered: a kill at any point leaves weights that somebody did ask for.
        # The write blocks the loop for one fsync; the admin door is used a few times an hour.
        write_state(self.config.path(self.config.state_file), changed)
        self.state = changed


def _long_enough(key: str, owner: str) -> str:
    if len(key) < KEY_LENGTH_MIN:
        raise ReferenceUnresolved(f"the key of {owner} is shorter than {KEY_LENGTH_MIN} characters")
    return key


def _model_path(path: str) -> tuple[str, str, bool]:
    """Door, model and stream of a path. Raises GatewayError (not_found)."""
    if path == "/v1/chat/completions":
        return "chat", "", False
    if path.startswith("/model/"):
        name, _, verb = path[len("/model/") :].rpartition("/")
        if name and verb in ("converse", "converse-stream"):
            return "converse", unquote(name), verb == "converse-stream"
    raise GatewayError("not_found", f"there is nothing at {path}")


def serve(config: Config, ready: Callable[[Gateway], None] | None = None, stop: threading.Event | None = None) -> None:
    """Run until SIGTERM or SIGINT (in the main thread) or until `stop` is set. Raises OSError when the port is taken,
    and what `Gateway` raises."""
    import uvloop

    async def run() -> None:
        gateway = Gateway(config)
        await gateway.start()
        over = asyncio.Event()
        loop = asyncio.get_running_loop()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, over.set)
        if ready is not None:
            ready(gateway)
        while not over.is_set() and not (stop is not None and stop.is_set()):
            try:
                async with asyncio.timeout(0.1 if stop is not None else 3600):
                    await over.wait()
            except TimeoutError:
                continue
        await gateway.stop()

    uvloop.run(run())
