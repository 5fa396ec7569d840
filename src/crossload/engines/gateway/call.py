"""Drives one exchange: takes a connection from the arm's pool, passes what comes, and turns to the other arm when the
first cannot be reached and nothing has been written yet."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from crossload.engines.gateway.errors import GatewayError
from crossload.engines.gateway.flow import Answer, Exchange, error_answer
from crossload.engines.gateway.listener import ClientConnection
from crossload.engines.gateway.route import SOURCE, TARGET, Table

if TYPE_CHECKING:
    from crossload.engines.gateway.arm import Arm
    from crossload.engines.gateway.upstream import Connection

_UNREACHABLE = frozenset((502, 503, 504))


class Routed(NamedTuple):
    """How a request found its arm. `pinned`: named by the client. `session` is a hash, "" without one."""

    arm: str
    table: Table
    pinned: bool
    session: str
    client: str


class Call:
    """`over` is true once the client has its answer or has left; nothing is written after that."""

    def __init__(
        self, exchange: Exchange, client: ClientConnection, routed: Routed, arms: Mapping[str, Arm], gateway: Any
    ) -> None:
        self._exchange = exchange
        self._client = client
        self._routed = routed
        self._arms = arms
        self._gateway = gateway  # anything with finished(call, row), on_loss, fallback, timeouts, response_bytes_max
        self._connection: Connection | None = None
        self._head = b""
        self._body = b""
        self._written = False
        self._bytes = 0
        self._stale_retried = False
        self._slow = False
        self._failed_over = ""
        self.arm = routed.arm
        self.over = False
        self.started = time.monotonic()
        self._first: float | None = None
        self._last = self.started

    def begin(self) -> None:
        self._client.watcher = self
        self._try(self.arm)

    def _try(self, name: str, fresh: bool = False) -> None:
        self.arm = name
        arm = self._arms[name]
        self._last = time.monotonic()
        try:
            backend = arm.backend
            outgoing = self._exchange.begin(backend.wire, backend.model, backend.parameters, self._gateway.on_loss)
        except GatewayError as error:
            self._answer(error_answer(self._exchange.door, error.code, error.message, error.param))
            return
        except Exception as error:  # noqa: BLE001 - a bug in a codec must not leave a client without an answer
            self._answer(error_answer(self._exchange.door, "internal", f"the gateway failed ({type(error).__name__})"))
            return
        self._head, self._body = arm.request(outgoing), outgoing.body
        arm.pool.acquire(self, fresh)

    # ---- from the pool and the connection

    def connected(self, connection: Connection) -> None:
        self._connection = connection
        self._last = time.monotonic()
        connection.send(self._head, self._body, self)

    def unreachable(self, message: str, code: str = "unavailable") -> None:
        self._give_up(code, message)

    def head(self, status: int, headers: dict[str, str]) -> None:
        if status in _UNREACHABLE and self._other_arm():
            self._give_up("unavailable", f"the model host answered HTTP {status}")
            return
        self._exchange.head(status, headers)
        if self._exchange.streaming:
            self._written = True
            self._client.start_stream({"content-type": self._exchange.door.STREAM_TYPE, **self._headers()})

    def data(self, data: bytes) -> None:
        self._last = time.monotonic()
        if self._first is None:
            self._first = self._last
        self._bytes += len(data)
        try:
            out = self._exchange.data(data)
        except Exception as error:  # noqa: BLE001 - as above
            self._give_up("internal", f"the gateway failed ({type(error).__name__})", may_turn=False)
            return
        if out:
            self._client.chunk(out)
        elif not self._exchange.streaming and self._bytes > self._gateway.response_bytes_max:
            self._give_up("bad_upstream", "the model host's answer is too long")

    def ended(self) -> None:
        self._connection = None
        elapsed = time.monotonic() - self.started
        try:
            if self._exchange.streaming:
                last = self._exchange.finish(elapsed)
                self._over(200)
                self._client.end_stream(last)
            else:
                self._answer(self._exchange.answer(elapsed))
        except Exception as error:  # noqa: BLE001 - as above
            self._give_up("internal", f"the gateway failed ({type(error).__name__})", may_turn=False)

    def lost(self, message: str) -> None:
        connection, self._connection = self._connection, None
        stale = connection is not None and connection.reused and not connection.heard
        if stale and not self._stale_retried and not self.over:
            # The host closed a quiet connection just as we used it: not its fault, and it has seen nothing.
            self._stale_retried = True
            self._try(self.arm, fresh=True)
            return
        self._give_up("unavailable", message)

    # ---- from the client and the clock

    def client_gone(self) -> None:
        if not self.over:
            self._hang_up()
            self._over(499)

    def client_slow(self, slow: bool) -> None:
        self._last = time.monotonic()
        self._slow = slow
        if self._connection is not None:
            self._connection.pause() if slow else self._connection.resume()

    def check(self, now: float) -> None:
        """Called a few times a second."""
        limits = self._gateway.timeouts
        if now - self.started > limits.total_seconds:
            self._give_up("timeout", "the answer took too long", may_turn=False)
        elif self._first is None and now - self._last > limits.first_byte_seconds:
            self._give_up("timeout", "the model host did not begin to answer in time")
        elif self._first is not None and now - self._last > limits.between_bytes_seconds:
            if self._slow:
                self._hang_up()
                # It is the client that does not read: nothing can be told to it any more.
                self._over(499)
                self._client.break_stream()
                return
            self._give_up("timeout", "the model host stopped in the middle of its answer")

    # ---- ends

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()

    def _other_arm(self) -> str:
        """The arm to turn to, or "" when there is none: after the first byte, for a named arm, or by policy."""
        if self._written or self._failed_over or self._routed.pinned:
            return ""
        other = SOURCE if self.arm == TARGET else TARGET
        return other if self._gateway.fallback in (other, "both") else ""

    def _give_up(self, code: str, message: str, may_turn: bool = True) -> None:
        self._hang_up()
        if self.over:
            return
        other = self._other_arm() if may_turn else ""
        if other:
            self._failed_over = self.arm
            self._first = None
            self._bytes = 0
            self._gateway.failed_over(self.arm, other)
            self._try(other)
            return
        if not self._written:
            self._answer(error_answer(self._exchange.door, code, message))
            return
        told = self._exchange.cut(code, message)
        self._over(200, code)
        if told is None:
            self._client.break_stream()
        else:
            self._client.end_stream(told)

    def _answer(self, answer: Answer) -> None:
        if self.over:
            return
        self._over(answer.status)
        self._client.send(answer.status, {**answer.headers, **self._headers()}, answer.body)

    def _headers(self) -> dict[str, str]:
        headers = {"x-crossload-arm": self.arm, "x-request-id": self._exchange.answer_id}
        if self._exchange.door.NAME == "converse":
            headers["x-amzn-requestid"] = self._exchange.answer_id
        if self._failed_over:
            headers["x-crossload-failed-over"] = self._failed_over
        if self._exchange.losses:
            headers["x-crossload-loss"] = ", ".join(str(loss) for loss in self._exchange.losses)[:2048]
        return headers

    def _over(self, status: int, failure: str = "") -> None:
        self.over = True
        now = time.monotonic()
        exchange = self._exchange
        usage, stop, routed = exchange.usage, exchange.stop, self._routed
        broken = failure or (exchange.failure.code if exchange.failure else "")
        self._gateway.finished(
            self,
            {
                "at": round(time.time(), 3), "id": exchange.answer_id, "door": exchange.door.NAME, "arm": self.arm,
                "routed": routed.arm, "pinned": routed.pinned, "epoch": routed.table.epoch,
                "target_share": routed.table.target_share, "session": routed.session, "client": routed.client,
                "stream": exchange.request.stream, "status": status, "failure": broken,
                "failed_over_from": self._failed_over, "stop": stop.reason if stop else None,
                "input_tokens": usage.input_tokens if usage else None,
                "output_tokens": usage.output_tokens if usage else None,
                "first_seconds": None if self._first is None else round(self._first - self.started, 6),
                "total_seconds": round(now - self.started, 6),
            },
            usage,
        )  # fmt: skip
