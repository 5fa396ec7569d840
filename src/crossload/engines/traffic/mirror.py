"""Mirror: every request goes to both arms at once, a share of them twice to the source; no user sees any of it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from crossload.engines.traffic.compare import Side, reply_differences, request_hash, side_of
from crossload.engines.traffic.rows import MirrorRow
from crossload.ports.errors import CrossloadError
from crossload.ports.models import ChatReply, ChatRequest

Ask = Callable[[ChatRequest], ChatReply]


@dataclass(frozen=True, slots=True)
class MirrorPlan:
    """`workers` pairs are in flight at most (each pair is two calls). `seed` picks which requests are asked twice."""

    noise_share: float = 0.25
    workers: int = 2
    seed: str = "mirror"

    def asks_twice(self, number: int) -> bool:
        """The same for the same number and seed, so that a resumed mirror asks what it would have asked."""
        digest = hashlib.blake2b(f"{self.seed}/{number}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64 < self.noise_share


def mirror(
    requests: Sequence[ChatRequest],
    source: Ask,
    target: Ask,
    plan: MirrorPlan,
    *,
    done: Sequence[MirrorRow] = (),
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[MirrorRow]:
    """Rows in order of their number, as they are complete; numbers in `done` are not sent again. `stop` is asked before
    each pair is begun: a verdict or Ctrl-C ends the mirror without a half-sent pair.

    A call that raises CrossloadError is a failed answer of that arm; other exceptions are bugs and come through."""
    known = {row.number for row in done}
    todo = [number for number in range(len(requests)) if number not in known]
    ended = threading.Event()
    with ThreadPoolExecutor(2 * plan.workers, thread_name_prefix="mirror") as pool:
        waiting: list[Future[MirrorRow]] = []
        # Pairs run on their own threads; their second calls on the pool's other half, so they cannot starve each other.
        with ThreadPoolExecutor(plan.workers, thread_name_prefix="pair") as pairs:
            try:
                for number in todo:
                    if len(waiting) >= plan.workers:
                        yield waiting.pop(0).result()
                    if stop():
                        break
                    waiting.append(
                        pairs.submit(
                            _pair, number, requests[number], source, target, plan.asks_twice(number), pool, ended
                        )
                    )
                while waiting:
                    yield waiting.pop(0).result()
            finally:
                ended.set()


def _pair(
    number: int,
    request: ChatRequest,
    source: Ask,
    target: Ask,
    twice: bool,
    pool: ThreadPoolExecutor,
    ended: threading.Event,
) -> MirrorRow:
    other = pool.submit(_ask, target, request)
    reply, side = _ask(source, request)
    target_reply, target_side = other.result()
    again_reply, again_side = (None, None)
    if twice and not ended.is_set():
        again_reply, again_side = _ask(source, request)
    return MirrorRow(
        number=number,
        request=request_hash(request),
        source=side,
        target=target_side,
        again=again_side,
        target_differs=_differences(reply, target_reply, request),
        again_differs=_differences(reply, again_reply, request),
    )


def _differences(first: ChatReply | None, second: ChatReply | None, request: ChatRequest) -> tuple[str, ...] | None:
    if first is None or second is None:
        return None
    return reply_differences(first, second, request)


def _ask(call: Ask, request: ChatRequest) -> tuple[ChatReply | None, Side]:
    try:
        reply = call(request)
    except CrossloadError as error:
        return None, Side(False, error.code)
    return reply, side_of(reply, request)
