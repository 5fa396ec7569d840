"""The two workflows. They are run again from their history at any time and on any worker, so they do no I/O, look at
no clock but the server's, and import nothing of ours."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError

CARRY, ACT = "crossload-carry-shard", "crossload-act"
MOVE, MIGRATION = "crossload-move", "crossload-migration"
THAW, ROLL_BACK, KEEP = "thaw", "roll-back", "keep"
_ACT_SECONDS_MAX = 1800.0


def acts_of(task_queue: str) -> str:
    """Where what timers ask for is queued: a thaw must not wait behind a long shard."""
    return f"{task_queue}-acts"


@workflow.defn(name=MOVE)
class MoveFlow:
    """`order`: task, shards, next (the first shard not begun), and the limits. A run that has grown long goes on as a
    new one, so that its history stays small however many shards there are."""

    @workflow.run
    async def run(self, order: dict[str, Any]) -> int:
        number, begun, under_way = int(order["next"]), 0, set[asyncio.Task[Any]]()
        try:
            while True:
                while number <= order["shards"] and len(under_way) < order["at_once"] and not _long(order, begun):
                    under_way.add(asyncio.create_task(_shard(order, number)))
                    number += 1
                    begun += 1
                if not under_way:
                    break
                finished, waiting = await workflow.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                under_way = set(waiting)
                for one in finished:
                    one.result()
        except BaseException:
            for one in under_way:
                one.cancel()
            raise
        if number <= order["shards"]:
            workflow.continue_as_new({**order, "next": number})
        return int(order["shards"])


def _long(order: dict[str, Any], begun: int) -> bool:
    return begun >= order["shards_per_run"] or workflow.info().is_continue_as_new_suggested()


async def _shard(order: dict[str, Any], number: int) -> None:
    await workflow.execute_activity(
        CARRY, args=[order["task"], number],
        start_to_close_timeout=timedelta(seconds=order["shard_seconds_max"]),
        heartbeat_timeout=timedelta(seconds=order["silent_seconds"]),
        retry_policy=RetryPolicy(
            initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=30),
            maximum_attempts=order["starts_max"],
        ),
    )  # fmt: skip


@workflow.defn(name=MIGRATION)
class MigrationFlow:
    """Approvals, and two timers that outlive whoever set them. `kept` is the state of the run before."""

    @workflow.init
    def __init__(self, name: str, kept: dict[str, Any]) -> None:
        self._name = name
        self._approvals: dict[str, str] = dict(kept.get("approvals", {}))
        self._timers: dict[str, float] = dict(kept.get("timers", {}))  # what to ask for -> seconds since the epoch
        self._acted: dict[str, dict[str, Any]] = dict(kept.get("acted", {}))
        self._closed = False
        self._news = 0

    @workflow.run
    async def run(self, name: str, kept: dict[str, Any]) -> dict[str, Any]:
        while not self._closed:
            if workflow.info().is_continue_as_new_suggested():
                workflow.continue_as_new(args=[name, self.standing()])
            due = min(self._timers, key=lambda what: (self._timers[what], what), default="")
            if due and self._timers[due] <= workflow.time():
                await self._act(due)
                continue
            seen = self._news
            wait = timedelta(seconds=self._timers[due] - workflow.time()) if due else None
            try:
                await workflow.wait_condition(lambda: self._news != seen, timeout=wait)  # noqa: B023 - awaited here
            except TimeoutError:
                continue
        return self.standing()

    async def _act(self, what: str) -> None:
        """Tried until a worker did it: a source must not stay frozen because a network was down."""
        at = self._timers[what]
        try:
            told = await workflow.execute_activity(
                ACT, args=[self._name, what], task_queue=acts_of(workflow.info().task_queue),
                start_to_close_timeout=timedelta(seconds=_ACT_SECONDS_MAX),
                retry_policy=RetryPolicy(maximum_interval=timedelta(seconds=30)),
            )  # fmt: skip
            self._acted[what] = dict(told)
        except ActivityError as error:
            cause = error.cause
            code = cause.type if isinstance(cause, ApplicationError) else None
            self._acted[what] = {"failed": str(cause or error), "code": code or "error"}
        if self._timers.get(what) == at:  # unless it was set anew meanwhile
            del self._timers[what]

    @workflow.signal
    def approve(self, what: str, who: str) -> None:
        self._approvals.setdefault(what, who)
        if what == KEEP:
            self._timers.pop(ROLL_BACK, None)
        self._news += 1

    @workflow.signal
    def freeze_until(self, at: float | None) -> None:
        self._set(THAW, at)

    @workflow.signal
    def roll_back_after(self, seconds: float | None) -> None:
        kept = KEEP in self._approvals
        self._set(ROLL_BACK, None if seconds is None or kept else workflow.time() + seconds)

    def _set(self, what: str, at: float | None) -> None:
        self._timers.pop(what, None)
        if at is not None:
            self._timers[what] = at
        self._news += 1

    @workflow.signal
    def close(self) -> None:
        self._closed = True
        self._news += 1

    @workflow.query
    def standing(self) -> dict[str, Any]:
        return {"approvals": self._approvals, "timers": self._timers, "acted": self._acted}
