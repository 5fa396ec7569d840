"""The Fleet port over Temporal: one workflow a move, one a migration, shards as activities."""

from __future__ import annotations

import threading
import time
from collections.abc import Coroutine
from dataclasses import asdict
from datetime import timedelta
from typing import Any, TypeVar

from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import TLSConfig

from crossload.ports.errors import Invalid, NotFound
from crossload.ports.fleet import DONE, ENDED, FAILED, RUNNING, Act, Carry, Limits, Migration, Standing, Task
from crossload.ports.provider import Settings
from crossload.providers.temporal import flows
from crossload.providers.temporal.errors import translated, trouble_of
from crossload.providers.temporal.loop import Loop

Result = TypeVar("Result")
_ASK_SECONDS_MAX = 10.0
_WAIT_STEP_SECONDS = 1.0
_SHARDS_PER_RUN = 2000  # about 12,000 events; a history may have 51,200
_STATES = {
    WorkflowExecutionStatus.RUNNING: RUNNING,
    WorkflowExecutionStatus.CONTINUED_AS_NEW: RUNNING,
    WorkflowExecutionStatus.COMPLETED: DONE,
    WorkflowExecutionStatus.CANCELED: ENDED,
    WorkflowExecutionStatus.TERMINATED: ENDED,
}


def open_fleet(settings: Settings) -> TemporalFleet:
    """Connects at the first call."""
    return TemporalFleet(settings)


class TemporalFleet:
    def __init__(self, settings: Settings) -> None:
        self.place = settings.place.id
        self._address = settings.require("address")
        self._namespace = settings.get("namespace", "default")
        self._queue = settings.get("task_queue", "crossload")
        self._settings = settings
        self._loop = Loop()
        self._mutex = threading.Lock()
        self._client: Client | None = None

    # -- a move ------------------------------------------------------------------------------------------------------

    def start(self, move: str, task: Task, shards: int, limits: Limits) -> bool:
        order = {
            "task": dict(task), "shards": shards, "next": 1, "shards_per_run": _SHARDS_PER_RUN, **asdict(limits),
        }  # fmt: skip
        return self._start(flows.MOVE, f"{flows.MOVE}-{move}", [order])

    def standing(self, move: str) -> Standing | None:
        handle = self._handle(f"{flows.MOVE}-{move}")
        try:
            found = self._ask(f"move {move}", handle.describe(rpc_timeout=timedelta(seconds=_ASK_SECONDS_MAX)))
        except NotFound:
            return None
        state = _STATES.get(found.status, FAILED) if found.status is not None else FAILED
        if state != FAILED:
            return Standing(state)
        try:
            self._ask(f"move {move}", handle.result(rpc_timeout=timedelta(seconds=_ASK_SECONDS_MAX)))
        except WorkflowFailureError as error:
            return Standing(FAILED, trouble_of(error))
        return Standing(DONE)

    def end(self, move: str) -> None:
        try:
            self._ask(f"move {move}", self._handle(f"{flows.MOVE}-{move}").cancel())
        except NotFound:
            return

    def serve(self, carry: Carry, act: Act | None, *, at_once: int, stop: threading.Event) -> None:
        from crossload.providers.temporal.working import work

        if at_once < 1:
            raise Invalid("a worker must take at least one shard at a time")
        self._ask("serving", work(self._connected(), self._queue, carry, act, at_once, stop))

    # -- a migration -------------------------------------------------------------------------------------------------

    def open_migration(self, name: str) -> bool:
        return self._start(flows.MIGRATION, f"{flows.MIGRATION}-{name}", [name, {}])

    def migration(self, name: str) -> Migration | None:
        """Answered by a worker, so one must serve."""
        handle = self._handle(f"{flows.MIGRATION}-{name}")
        seconds = timedelta(seconds=_ASK_SECONDS_MAX)
        try:
            described = self._ask(f"migration {name}", handle.describe(rpc_timeout=seconds))
            kept = self._ask(f"migration {name}", handle.query("standing", rpc_timeout=seconds))
        except NotFound:
            return None
        timers = kept["timers"]
        is_open = described.status is WorkflowExecutionStatus.RUNNING
        return Migration(
            name, is_open, kept["approvals"], timers.get(flows.THAW), timers.get(flows.ROLL_BACK), kept["acted"]
        )

    def approve(self, name: str, what: str, who: str) -> None:
        self._signal(name, "approve", what, who)

    def wait_for(self, name: str, what: str, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while True:
            kept = self.migration(name)
            if kept is None:
                raise NotFound(f"no migration {name} is kept", hint="open it first")
            if what in kept.approvals:
                return True
            left = until - time.monotonic()
            if left <= 0 or not kept.open:
                return False
            time.sleep(min(_WAIT_STEP_SECONDS, left))

    def freeze_until(self, name: str, at: float | None) -> None:
        self._signal(name, "freeze_until", at)

    def roll_back_after(self, name: str, seconds: float | None) -> None:
        self._signal(name, "roll_back_after", seconds)

    def close_migration(self, name: str) -> None:
        try:
            self._signal(name, "close")
        except NotFound:
            return

    # -- the wire ----------------------------------------------------------------------------------------------------

    def _start(self, flow: str, identity: str, arguments: list[Any]) -> bool:
        starting = self._connected().start_workflow(
            flow, args=arguments, id=identity, task_queue=self._queue,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
        )  # fmt: skip
        try:
            self._ask(identity, starting)
        except WorkflowAlreadyStartedError:
            return False
        return True

    def _signal(self, name: str, signal: str, *arguments: Any) -> None:
        handle = self._handle(f"{flows.MIGRATION}-{name}")
        self._ask(f"migration {name}", handle.signal(signal, args=list(arguments)))

    def _handle(self, identity: str) -> WorkflowHandle[Any, Any]:
        return self._connected().get_workflow_handle(identity)

    def _ask(self, what: str, asking: Coroutine[Any, Any, Result]) -> Result:
        with translated(f"{self.place}: {what}"):
            return self._loop.run(asking)

    def _connected(self) -> Client:
        with self._mutex:
            if self._client is None:
                get = self._settings.get
                api_key = get("api_key")
                connecting = Client.connect(
                    self._address, namespace=self._namespace, api_key=api_key or None, tls=self._tls(bool(api_key)),
                    connect_timeout=timedelta(seconds=_ASK_SECONDS_MAX),
                )  # fmt: skip
                self._client = self._ask(f"connecting to {self._address}", connecting)
            return self._client

    def _tls(self, wanted: bool) -> TLSConfig | bool:
        cert, key, ca = self._settings.get("cert"), self._settings.get("key"), self._settings.get("ca")
        if bool(cert) != bool(key):
            raise Invalid(f"place {self.place}: `cert` and `key` go together", hint="set both, or neither")
        if not (cert or ca):
            return wanted
        return TLSConfig(
            server_root_ca_cert=ca.encode() if ca else None,
            client_cert=cert.encode() if cert else None,
            client_private_key=key.encode() if key else None,
        )
