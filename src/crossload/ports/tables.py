"""The Tables port: SQL tables, read in chunks of one snapshot, filled out of sight, swapped in at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Column:
    """`type`, `default`, `generated` and `collation` are SQL of the server, names qualified; "" means none.
    `identity` is "" | always | by default. Generated columns are computed again at the target, not sent."""

    name: str
    type: str
    nullable: bool = True
    default: str = ""
    identity: str = ""
    generated: str = ""
    collation: str = ""


@dataclass(frozen=True, slots=True)
class Definition:
    """`kind` is primary-key | unique | check | exclusion | index | unique-index | reference; `text` is SQL that holds
    whatever table it is put on."""

    kind: str
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Counter:
    """The sequence behind a serial or identity column. `value` is None when we may not read it: the target then goes
    on after the largest value of the column. `used`: the value itself was handed out already."""

    column: str
    name: str
    text: str
    value: int | None
    used: bool = True


@dataclass(frozen=True, slots=True)
class TableInfo:
    """What it takes to make the table again.

    `dialect` and `version` say whose SQL the texts are. `carries` says where the binary form may go: anywhere |
    same-version | nowhere, and `why` names the columns that hold it back. `key_order` says who agrees on the order of
    the primary key: all (values that sort alike everywhere) | bytewise (servers that compare text by bytes) | nobody.
    `rows_estimate` and `size_bytes` are the server's own estimates, None when unknown. `left` names what the table has
    and this port does not carry."""

    name: str
    dialect: str
    version: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...] = ()
    definitions: tuple[Definition, ...] = ()
    counters: tuple[Counter, ...] = ()
    rows_estimate: int | None = None
    size_bytes: int | None = None
    carries: str = "anywhere"
    why: str = ""
    key_order: str = "nobody"
    comment: str = ""
    left: tuple[str, ...] = ()

    @property
    def sent(self) -> tuple[Column, ...]:
        """The columns whose values travel."""
        return tuple(column for column in self.columns if not column.generated)

    def shape(self) -> dict[str, Any]:
        """JSON-shaped; two moves may share their chunks only when this is equal."""
        columns = [[c.name, c.type, c.nullable, c.identity, c.generated, c.collation] for c in self.columns]
        return {"name": self.name, "columns": columns, "key": list(self.primary_key)}


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a table; an end that is None is open. `by` key: rows whose primary key is greater than `after` and at
    most `upto`, as text. `by` blocks: rows that the server keeps in its blocks from `after` to before `upto`."""

    number: int
    by: str
    after: tuple[str, ...] | None = None
    upto: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Staging:
    """A table that nobody reads yet. `mark` stands for this very table and stays its own through the swap.

    `loaded` counts the chunks by blocks that are in it; they are loaded in order, each all or nothing."""

    mark: str
    made_now: bool
    loaded: int = 0


class TableSnapshot(Protocol):
    """All reads see one moment of the source, however long they take."""

    info: TableInfo

    def chunks(self, by: str, rows: int) -> Iterator[Chunk]:
        """All of the table in chunks of about `rows` rows; the first and the last are open, so that rows that come
        later belong to one as well."""
        ...

    def read(self, chunk: Chunk, form: str) -> Iterator[bytes]:
        """The rows in the server's COPY form, binary or text, without header and trailer. By key: in its order. By
        blocks: in no order that means anything. Each item is one whole row. One read at a time, to its end."""
        ...


class Tables(Protocol):
    """All calls are blocking. `owner` is 12 hexadecimal digits that name one move; what it makes, it may remove."""

    place: str

    def tables(self) -> list[str]:
        """Names as the other calls take them: `table`, or `schema.table` outside the usual schema."""
        ...

    def describe(self, name: str) -> TableInfo:
        """NotFound when there is none, Unsupported for what cannot be moved as one table."""
        ...

    def mark(self, name: str) -> str:
        """What stands for the table of that name now; "" when there is none."""
        ...

    def bytewise(self) -> bool:
        """Whether text is compared by its bytes here unless a column says otherwise."""
        ...

    def version(self) -> str:
        """Of the server, as far as it changes the form of values."""
        ...

    def snapshot(self, name: str) -> AbstractContextManager[TableSnapshot]: ...

    def stage(self, info: TableInfo, owner: str, by: str) -> Staging:
        """Make the empty table, or find the one that an earlier try of this move left. Refused when the table it
        would replace is one that others depend on."""
        ...

    def load(
        self,
        info: TableInfo,
        owner: str,
        chunk: Chunk,
        form: str,
        rows: Iterable[bytes],
        check: Callable[[Iterator[bytes]], None],
    ) -> None:
        """Put one chunk in place of what the staging table holds of it. `check` is handed the chunk as the server
        gives it back; when it raises, nothing was loaded."""
        ...  # fmt: skip

    def staged(self, info: TableInfo, owner: str, chunk: Chunk, form: str) -> Iterator[bytes]:
        """A chunk of the staging table, as `TableSnapshot.read` gives it."""
        ...

    def build(self, info: TableInfo, owner: str) -> None:
        """Constraints, indexes and counters of the staging table. Those that are there are left."""
        ...

    def swap(self, info: TableInfo, owner: str, replaces: str = "") -> None:
        """The staging table takes the name, in one transaction: readers see the old table or the whole new one. The
        old table is kept aside for `restore`, unless its mark is `replaces`. Rights on it are given on the new one."""
        ...

    def bind(self, name: str, references: Sequence[Definition]) -> list[str]:
        """Add the foreign keys; for each that cannot be, its name and why."""
        ...

    def restore(self, name: str, owner: str, mark: str) -> bool:
        """Drop the table of this mark and give the name back to the one before. False, and nothing done, when
        another table has the name."""
        ...

    def discard(self, owner: str) -> None:
        """Drop the staging table. Silent when there is none."""
        ...

    def settle(self, owner: str) -> None:
        """Drop the table that was kept aside. Silent when there is none."""
        ...
