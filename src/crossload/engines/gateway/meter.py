"""Counters and the request log. Nothing here waits on the hot path: a row goes to a bounded buffer that a thread
writes out; when the buffer is full the row is dropped and counted, because a slow disk must not stop answers.

No row holds a prompt, an answer or a key."""

from __future__ import annotations

import json
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossload.engines.gateway.ir import Usage

BUFFER_ROWS_MAX = 20_000
FILE_BYTES_MAX = 256 * 2**20
_FLUSH_SECONDS = 0.2
_GROWTH = math.log(1.08)  # width of a latency bucket: quantiles are right to within 4 %


class Latency:
    """A histogram of seconds with buckets that grow by 8 %."""

    __slots__ = ("_buckets", "count")

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self.count = 0

    def add(self, seconds: float) -> None:
        self.count += 1
        self._buckets[math.floor(math.log(max(seconds, 1e-6)) / _GROWTH)] += 1

    def quantile(self, share: float) -> float | None:
        """None when nothing was measured."""
        wanted = share * self.count
        seen = 0
        for bucket, count in sorted(self._buckets.items()):
            seen += count
            if seen >= wanted and seen:
                return math.exp((bucket + 0.5) * _GROWTH)
        return None


@dataclass(slots=True)
class ArmMeter:
    """Token sums count only what hosts reported; `unmetered` counts answers without a report."""

    requests: int = 0
    pinned: int = 0
    failures: int = 0
    failovers_from: int = 0
    failovers_to: int = 0
    aborted: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    unmetered: int = 0
    stops: Counter[str] = field(default_factory=Counter[str])
    statuses: Counter[str] = field(default_factory=Counter[str])
    total: Latency = field(default_factory=Latency)
    first: Latency = field(default_factory=Latency)

    def usage(self, usage: Usage | None) -> None:
        if usage is None or usage.input_tokens is None or usage.output_tokens is None:
            self.unmetered += 1
            return
        self.input_tokens += usage.input_tokens
        self.output_tokens += usage.output_tokens

    def to_json(self) -> dict[str, Any]:
        return {
            "requests": self.requests, "pinned": self.pinned, "failures": self.failures, "aborted": self.aborted,
            "failovers_from": self.failovers_from, "failovers_to": self.failovers_to,
            "input_tokens": self.input_tokens, "output_tokens": self.output_tokens, "unmetered": self.unmetered,
            "stops": dict(self.stops), "statuses": dict(self.statuses),
            "latency_seconds": _quantiles(self.total), "first_token_seconds": _quantiles(self.first),
        }  # fmt: skip


def _quantiles(latency: Latency) -> dict[str, float | int | None]:
    return {"count": latency.count, "p50": latency.quantile(0.5), "p95": latency.quantile(0.95)}


class RequestLog:
    """One JSON object a line. The file is turned over at FILE_BYTES_MAX; the one before is kept as `.1`."""

    def __init__(self, path: Path | None) -> None:
        self.dropped = 0
        self.written = 0
        self._path = path
        self._rows: deque[Mapping[str, Any]] = deque()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="request-log", daemon=True)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._thread.start()

    def add(self, row: Mapping[str, Any]) -> None:
        if self._path is None:
            return
        if len(self._rows) >= BUFFER_ROWS_MAX:
            self.dropped += 1
            return
        self._rows.append(row)

    def close(self) -> None:
        self._stop.set()
        if self._path is not None:
            self._thread.join(5)

    def _run(self) -> None:
        while not self._stop.wait(_FLUSH_SECONDS):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        if self._path is None or not self._rows:
            return
        lines: list[str] = []
        while self._rows:
            lines.append(json.dumps(self._rows.popleft(), separators=(",", ":")))
        try:
            if self._path.exists() and self._path.stat().st_size > FILE_BYTES_MAX:
                self._path.replace(self._path.with_name(f"{self._path.name}.1"))
            with self._path.open("a", encoding="utf-8") as file:
                file.write("\n".join(lines) + "\n")
            self.written += len(lines)
        except OSError:
            self.dropped += len(lines)  # a full disk costs log rows, never answers


class Meter:
    def __init__(self, log_path: Path | None) -> None:
        self.started_at = time.time()
        self.arms: dict[str, ArmMeter] = {"source": ArmMeter(), "target": ArmMeter()}
        self.refused: Counter[str] = Counter()  # requests that never reached an arm, by error code
        self.log = RequestLog(log_path)

    def to_json(self, active: int) -> dict[str, Any]:
        """`active`: requests that are being answered now."""
        return {
            "started_at": self.started_at,
            "active": active,
            "refused": dict(self.refused),
            "log_rows_dropped": self.log.dropped,
            "log_rows_written": self.log.written,
            "arms": {name: arm.to_json() for name, arm in self.arms.items()},
        }
