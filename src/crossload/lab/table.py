"""All servers of the lab: every module in `lab/servers/` that has a `SERVER`. Adding a file there adds a server."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from functools import cache

from crossload.lab import servers
from crossload.lab.spec import Server


@cache
def all_servers() -> dict[str, Server]:
    """Name -> row, in the order in which they may start (dependencies first)."""
    rows: dict[str, Server] = {}
    for module in pkgutil.iter_modules(servers.__path__):
        row: Server = importlib.import_module(f"{servers.__name__}.{module.name}").SERVER
        if row.name in rows:
            raise ValueError(f"two servers are named {row.name}")
        rows[row.name] = row
    return in_order(rows.values())


def in_order(rows: Iterable[Server]) -> dict[str, Server]:
    """Sorted by dependency, then by name. A dependency that is not in `rows` does not count."""
    left = {row.name: row for row in sorted(rows, key=lambda row: row.name)}
    done: dict[str, Server] = {}
    while left:
        free = [name for name, row in left.items() if not any(other in left for other in row.after)]
        if not free:
            raise ValueError(f"servers wait for each other: {', '.join(left)}")
        for name in free:
            done[name] = left.pop(name)
    return done


def chosen(only: Iterable[str] | None) -> dict[str, Server]:
    """The rows to start: all, or those named and what they need."""
    rows = all_servers()
    if only is None:
        return dict(rows)
    wanted: set[str] = set()
    waiting = list(only)
    while waiting:
        name = waiting.pop()
        if name not in rows:
            raise KeyError(name)
        if name not in wanted:
            wanted.add(name)
            waiting.extend(other for other in rows[name].after if other in rows)
    return {name: row for name, row in rows.items() if name in wanted}
