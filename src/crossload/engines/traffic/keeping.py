"""Rows on disk, one JSON object a line, so that a killed mirror or ramp goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self


def read_rows(path: Path) -> list[dict[str, Any]]:
    """A last line cut off by a kill is dropped: that request is sent again."""
    return list(_whole_lines(path))


def _whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return


class RowKeeper:
    """`with RowKeeper(path) as rows: rows.keep(row)`: each row is handed to the system before the next one counts."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        whole = read_rows(self._path)
        fresh = self._path.with_suffix(".new")
        fresh.write_text("".join(_line(row) for row in whole), encoding="utf-8")
        fresh.replace(self._path)
        self._file = self._path.open("a", encoding="utf-8")
        return self

    def keep(self, row: dict[str, Any]) -> None:
        self._file.write(_line(row))
        self._file.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, sort_keys=True) + "\n"
