"""How results look: a line per step while it happens, tables at the end."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

_GLYPHS = {
    "done": "✓", "unchanged": "=", "kept": "=", "good": "✓", "passed": "✓", "failed": "✗", "broken": "✗",
    "refused": "✗", "waiting": "·", "open": "·", "planned": "·", "skipped": "·", "pending": "…", "running": "…",
    "would-run": "+", "undone": "↶",
}  # fmt: skip
_COLOURS = {"✓": "green", "=": "green", "✗": "red", "…": "yellow", "+": "cyan", "↶": "yellow"}


def glyph(state: str) -> str:
    mark = _GLYPHS.get(state, "?")
    return click.style(mark, fg=_COLOURS.get(mark))


def say_result(result: Any) -> None:
    """One step's result as it happens, on stderr: talk, not data. What was good already is only counted."""
    if result.status == "kept":
        return
    name = f"{result.step.stage:<12} {result.step.asset}"
    evidence = f"  [{result.evidence.id}]" if result.evidence else ""
    click.echo(f"{glyph(result.status)} {name:<38} {visible(result.summary)}{evidence}", err=True)
    hint = getattr(result.error, "hint", "") if result.error else ""
    if not hint and getattr(result.error, "retryable", False):
        hint = "a server did not answer; when it does, run the same command again"
    if hint:
        click.echo(f"    hint: {visible(hint)}", err=True)


def say_tried(tried: Any) -> None:
    """One case of a provider's trial as it ends, on stderr."""
    why = f"  {visible(tried.detail)}" if tried.result != "passed" else ""
    click.echo(f"{glyph(tried.result)} {tried.port:<8} {tried.case}{why}", err=True)


def visible(text: str) -> str:
    """Names come from other people's buckets: control characters in them must not drive the terminal, nor a line break
    write a result of its own."""
    shown = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text.expandtabs(4))
    return shown.replace("\n", "\n    ")


def result_json(result: Any) -> dict[str, Any]:
    return {
        "step": result.step.id, "stage": result.step.stage, "asset": result.step.asset, "status": result.status,
        "summary": result.summary, "evidence": result.evidence.id if result.evidence else None,
        "data": dict(result.evidence.data) if result.evidence else {},
    }  # fmt: skip


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str = "") -> None:
    """A table on stdout, as wide as the terminal allows."""
    from rich.console import Console
    from rich.table import Table

    drawn = Table(title=title or None, title_justify="left", header_style="bold")
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*("" if cell is None else visible(str(cell)) for cell in row))
    # Without a terminal nobody scrolls sideways: files and pipes get lines as long as they need.
    width = None if sys.stdout.isatty() else 180
    Console(markup=False, highlight=False, width=width).print(drawn)
