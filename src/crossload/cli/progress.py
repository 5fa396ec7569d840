"""Live progress on stderr: bars with rate and time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.progress import TaskID


def live_progress() -> LineProgress | BarProgress:
    return BarProgress() if sys.stderr.isatty() else LineProgress()


@dataclass(slots=True)
class _Task:
    total: float | None
    unit: str
    done: float = 0.0
    began: float = 0.0
    said: float = 0.0


def shown(value: float, unit: str) -> str:
    """`12.3 MiB` for bytes, `12 requests` for counts."""
    if unit != "B":
        return f"{value:,.0f} {unit}" if value >= 10 or value == int(value) else f"{value:,.1f} {unit}"
    for name in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or name == "GiB":
            return f"{value:,.1f} {name}" if name != "B" else f"{value:,.0f} B"
        value /= 1024
    return ""


class LineProgress:
    """For logs and pipes: at most one line per task every few seconds."""

    def __init__(self, every_seconds: float = 5.0) -> None:
        self._every = every_seconds
        self._tasks: dict[str, _Task] = {}
        self._mutex = threading.Lock()

    def start(self, task: str, total: float | None, unit: str) -> None:
        now = time.monotonic()
        with self._mutex:
            self._tasks[task] = _Task(total, unit, began=now, said=now)

    def advance(self, task: str, amount: float) -> None:
        with self._mutex:
            item = self._tasks.get(task)
            if item is None:
                return
            item.done += amount
            now = time.monotonic()
            if now - item.said < self._every:
                return
            item.said = now
            self._say(task, item, now)

    def finish(self, task: str) -> None:
        with self._mutex:
            item = self._tasks.pop(task, None)
            if item is not None and item.done:
                self._say(task, item, time.monotonic())

    def close(self) -> None: ...

    def say(self, text: str) -> None:
        click.echo(f"  {text}", err=True)

    def _say(self, task: str, item: _Task, now: float) -> None:
        rate = item.done / max(now - item.began, 1e-6)
        text = f"  {task}: {shown(item.done, item.unit)}"
        if item.total:
            text += f" of {shown(item.total, item.unit)}, {shown(rate, item.unit)}/s"
            if rate and item.total > item.done:
                text += f", about {(item.total - item.done) / rate:.0f} s left"
        click.echo(text, err=True)


class BarProgress:
    """For people: one bar per running task, gone when it is finished."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self._bars = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[shown]}"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=Console(stderr=True),
            transient=True,
        )  # fmt: skip
        self._tasks: dict[str, tuple[TaskID, _Task]] = {}
        self._mutex = threading.Lock()

    def start(self, task: str, total: float | None, unit: str) -> None:
        with self._mutex:
            if not self._tasks:
                self._bars.start()
            number = self._bars.add_task(task, total=total, shown="")
            self._tasks[task] = (number, _Task(total, unit, began=time.monotonic()))

    def advance(self, task: str, amount: float) -> None:
        with self._mutex:
            if task not in self._tasks:
                return
            number, item = self._tasks[task]
            item.done += amount
            rate = item.done / max(time.monotonic() - item.began, 1e-6)
            text = f"{shown(item.done, item.unit)}  {shown(rate, item.unit)}/s"
            self._bars.update(number, completed=item.done, shown=text)

    def finish(self, task: str) -> None:
        with self._mutex:
            found = self._tasks.pop(task, None)
            if found is not None:
                self._bars.remove_task(found[0])
            if not self._tasks:
                self._bars.stop()

    def close(self) -> None:
        """Work that failed or was broken off finishes no bar: give the terminal its cursor back."""
        self._bars.stop()

    def say(self, text: str) -> None:
        self._bars.console.print(f"  {text}", markup=False, highlight=False)


class StatusLine:
    """One line on stderr that is written over on a terminal, and said anew elsewhere."""

    def __init__(self, *, live: bool) -> None:
        self.live = live
        self._width = 0

    def show(self, text: str) -> None:
        if not self.live:
            click.echo(f"  {text}", err=True)
            return
        click.echo(f"\r  {text:<{self._width}}", err=True, nl=False)
        self._width = len(text)

    def clear(self) -> None:
        if self.live and self._width:
            click.echo(f"\r{'':<{self._width + 2}}\r", err=True, nl=False)


def status_line() -> StatusLine:
    return StatusLine(live=sys.stderr.isatty())
