"""Which PostgreSQL columns hold a JSON-shaped payload, so that applications find texts and numbers as such.

text for strings, boolean, bigint, numeric for other numbers (a float's shortest decimal form comes back as that float),
jsonb for lists, objects and columns in which rows disagree."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, LiteralString

from psycopg import sql
from psycopg.types.json import Jsonb

from crossload.ports.errors import Invalid

_INT8_MAX = 2**63 - 1
_NEVER_A_COLUMN = frozenset({"id", "embedding"})
_NAME_BYTES_MAX = 63


class Columns:
    """Grows as payloads come by. Column types only ever widen: bigint -> numeric, anything -> jsonb."""

    def __init__(self) -> None:
        self._types: dict[str, LiteralString] = {}

    @property
    def names(self) -> list[str]:
        return list(self._types)

    @property
    def types(self) -> list[str]:
        return ["int8" if kind == "bigint" else kind for kind in self._types.values()]

    def fit(self, payload: Mapping[str, Any]) -> bool:
        return all(
            value is None or self._types.get(name) == self._wanted(name, value) for name, value in payload.items()
        )

    def widen(self, payload: Mapping[str, Any]) -> Iterator[sql.Composable]:
        """The ALTER TABLE clauses after which this payload fits. Raises Invalid for what no column can hold."""
        for name, value in payload.items():
            if value is None:
                continue
            wanted, now = self._wanted(name, value), self._types.get(name)
            if now == wanted:
                continue
            self._types[name] = wanted
            column, kind = sql.Identifier(name), sql.SQL(wanted)
            if now is None:
                yield sql.SQL("add column {} {}").format(column, kind)
            else:
                using = sql.SQL("to_jsonb({})" if wanted == "jsonb" else "{}::numeric").format(column)
                yield sql.SQL("alter column {} type {} using {}").format(column, kind, using)

    def values(self, payload: Mapping[str, Any]) -> list[Any]:
        return [_shaped(payload.get(name), kind) for name, kind in self._types.items()]

    def _wanted(self, name: str, value: Any) -> LiteralString:
        if name in _NEVER_A_COLUMN or not 0 < len(name.encode()) <= _NAME_BYTES_MAX or "\0" in name:
            raise Invalid(f"payload field {name!r} cannot be a column", hint="rename it before the move")
        now, own = self._types.get(name), _column_type(name, value)
        if now is None or now == own:
            return own
        return "numeric" if {now, own} == {"bigint", "numeric"} else "jsonb"


def _column_type(name: str, value: Any) -> LiteralString:
    match value:
        case bool():
            return "boolean"
        case int():
            return "bigint" if -_INT8_MAX <= value <= _INT8_MAX else "numeric"
        case float():
            if not math.isfinite(value):
                raise Invalid(f"payload field {name!r} holds {value}, which JSON cannot say")
            return "numeric"
        case str():
            return "text"
        case _:
            return "jsonb"


def _shaped(value: Any, kind: str) -> Any:
    if value is None:
        return None
    if kind == "jsonb":
        return Jsonb(value)
    return Decimal(repr(value)) if kind == "numeric" else value
