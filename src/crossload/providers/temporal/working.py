"""The worker's side: shards as activities that beat, and what the timers of a migration ask for."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.client import Client
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.worker import Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from crossload.ports.errors import CrossloadError
from crossload.ports.fleet import Act, Carry, Ended
from crossload.providers.temporal import flows
from crossload.providers.temporal.errors import told_to_server

_LEAVE_SECONDS = 5.0
_PATIENCE_SECONDS = 5.0
_ACTS = 4  # at a time


async def work(
    client: Client, task_queue: str, carry: Carry, act: Act | None, at_once: int, stop: threading.Event
) -> None:
    """Serve until `stop` is set. What is under way then hears of it at its next beat."""
    pool = ThreadPoolExecutor(at_once + _ACTS, thread_name_prefix="shard")
    workers = list(_workers(client, task_queue, carry, act, at_once, pool))
    runs = [asyncio.create_task(worker.run()) for worker in workers]
    try:
        while not stop.is_set():
            over, _ = await asyncio.wait(runs, timeout=0.2, return_when=asyncio.FIRST_EXCEPTION)
            for run in over:
                run.result()
    finally:
        # Not for ever: the SDK sometimes waits for an answer about a shard that was given to another worker meanwhile.
        leaving = [asyncio.create_task(worker.shutdown()) for worker in workers]
        await asyncio.wait(leaving, timeout=_LEAVE_SECONDS + _PATIENCE_SECONDS)
        pool.shutdown(wait=False)


def _workers(
    client: Client, task_queue: str, carry: Carry, act: Act | None, at_once: int, pool: ThreadPoolExecutor
) -> Iterator[Worker]:
    leave = timedelta(seconds=_LEAVE_SECONDS)
    yield Worker(
        client, task_queue=task_queue, workflows=[flows.MoveFlow, flows.MigrationFlow], activities=[_carrying(carry)],
        activity_executor=pool, max_concurrent_activities=at_once, graceful_shutdown_timeout=leave,
        workflow_runner=SandboxedWorkflowRunner(
            restrictions=SandboxRestrictions.default.with_passthrough_modules("crossload")
        ),
    )  # fmt: skip
    if act is not None:
        yield Worker(
            client, task_queue=flows.acts_of(task_queue), activities=[_acting(act)], activity_executor=pool,
            max_concurrent_activities=_ACTS, graceful_shutdown_timeout=leave,
        )  # fmt: skip


def _carrying(carry: Carry) -> Callable[..., Any]:
    @activity.defn(name=flows.CARRY, no_thread_cancel_exception=True)
    def carry_shard(task: dict[str, Any], number: int) -> dict[str, Any]:
        context = contextvars.copy_context()  # whoever beats is another thread, and the SDK looks at the context
        mutex = threading.Lock()

        def beat(progress: Mapping[str, Any]) -> None:
            with mutex:
                context.run(activity.heartbeat, dict(progress))
                over = context.run(activity.is_cancelled) or context.run(activity.is_worker_shutdown)
            if over:
                raise Ended

        try:
            return dict(carry(task, number, beat))
        except CrossloadError as error:
            raise told_to_server(error) from error
        except Ended as error:
            if activity.is_cancelled() and not activity.is_worker_shutdown():
                raise CancelledError(f"shard {number} was ended") from error
            raise ApplicationError(f"the worker ended during shard {number}", type="unavailable") from error

    return carry_shard


def _acting(act: Act) -> Callable[..., Any]:
    @activity.defn(name=flows.ACT, no_thread_cancel_exception=True)
    def do(migration: str, what: str) -> dict[str, Any]:
        try:
            return dict(act(migration, what))
        except CrossloadError as error:
            raise told_to_server(error) from error

    return do
