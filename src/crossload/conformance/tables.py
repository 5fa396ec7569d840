"""The conformance suite of the Tables port: two places of one dialect, a table carried from the one to the other."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from crossload.conformance.case import (
    Case,
    Collection,
    NotOffered,
    expect,
    expect_equal,
    expect_error,
)
from crossload.ports.errors import AccessDenied, Invalid, NotFound, NotSignedIn, Stale, Unavailable, Unsupported
from crossload.ports.tables import Chunk, TableInfo, Tables

__all__ = ["CASES", "Case", "TablesBench"]

_PLAIN = """create table {} (id integer primary key, name text not null, amount numeric(12, 3), at timestamp)"""
_FILL = """insert into {} select n, 'name ' || n, n / 7.0, timestamp '2024-02-29 12:00:00' + n * interval '1 second'
           from generate_series(1, {}) n"""


@dataclass(slots=True)
class TablesBench:
    """`source` and `target` give a new Tables of two places. `ask` runs SQL at the place named "source" or "target" as
    somebody who may do everything there, and gives the rows back. Optional doors to the target, as for stores."""

    source: Callable[[], Tables]
    target: Callable[[], Tables]
    ask: Callable[[str, str], list[tuple[Any, ...]]]
    reader: Callable[[], Tables] | None = None
    unsigned: Callable[[], Tables] | None = None
    absent: Callable[[], Tables] | None = None
    prefix: str = field(default_factory=lambda: f"conf_{secrets.token_hex(4)}")
    made: list[str] = field(default_factory=list)
    owners: list[str] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def table(self, rows: int = 0, shape: str = _PLAIN, fill: str = _FILL) -> str:
        """A table at the source under a name nobody else uses."""
        name = f"{self.prefix}_{next(self._numbers)}"
        self.made.append(name)
        self.ask("source", shape.format(name))
        if rows:
            self.ask("source", fill.format(name, rows))
        return name

    def owner(self) -> str:
        self.owners.append(secrets.token_hex(6))
        return self.owners[-1]

    def close(self) -> None:
        target = self.target()
        for owner in self.owners:
            target.discard(owner)
            target.settle(owner)
        for name, side in itertools.product(self.made, ("source", "target")):
            self.ask(side, f"drop table if exists {name} cascade")


TABLES = Collection[TablesBench]()
case = TABLES.case


def _accept(back: Iterator[bytes]) -> None:
    for _ in back:
        pass


def _carry(
    bench: TablesBench, name: str, *, by: str = "key", form: str = "binary", rows: int = 100, replaces: str = ""
) -> tuple[TableInfo, str, str]:
    """The whole way. Returns what was carried, the move's owner, and the mark of what it made."""
    source, target, owner = bench.source(), bench.target(), bench.owner()
    with source.snapshot(name) as snapshot:
        info = snapshot.info
        mark = target.stage(info, owner, by).mark
        for chunk in list(snapshot.chunks(by, rows)):
            sent = list(snapshot.read(chunk, form))
            back: list[bytes] = []
            target.load(info, owner, chunk, form, sent, back.extend)
            same = (b"".join(back) == b"".join(sent)) if by == "key" else (sorted(back) == sorted(sent))
            expect(same, f"chunk {chunk.number} by {by}: the target gives back other rows than it was sent")
    target.build(info, owner)
    target.swap(info, owner, replaces)
    return info, owner, mark


def _rows(bench: TablesBench, side: str, name: str) -> list[tuple[Any, ...]]:
    return bench.ask(side, f"select * from {name} order by 1")  # noqa: S608 - a name of our own making


@case
def rows_arrive_equal(bench: TablesBench) -> None:
    """A table carried by key or by blocks, in binary or as text, has the same rows at the target."""
    for by, form in itertools.product(("key", "blocks"), ("binary", "text")):
        name = bench.table(500)
        _carry(bench, name, by=by, form=form)
        expect_equal(_rows(bench, "target", name), _rows(bench, "source", name), f"rows by {by} as {form}")


@case
def awkward_values_survive(bench: TablesBench) -> None:
    """Null, empty text, quotes, tabs, line ends, emoji, NaN, infinities, extreme dates and bytes stay as they are."""
    shape = "create table {} (id integer primary key, a text, b double precision, c date, d bytea, e numeric)"
    name = bench.table(shape=shape)
    values = [
        "1, null, null, null, null, null", r"2, '', 'NaN', 'infinity', '\x', 'NaN'",
        r"""3, E'tab\t "quoted" back\\slash \\N\nend\r\n ''single'' 🚀', '-Infinity', '-infinity', '\x00ff0a', 0""",
        r"4, '\.', -0.0, '4713-01-01 BC', '\x5c2e', 1e-20",
        "5, 'NULL', 1.7976931348623157e308, '5874897-12-31', null, -1",
        "6, 'third', 0.1, '2024-02-29', null, 123456789012345678901234567890.123456789",
    ]  # fmt: skip
    for line in values:
        bench.ask("source", f"insert into {name} values ({line})")  # noqa: S608 - as above
    for form in ("binary", "text"):
        _carry(bench, name, form=form, rows=2)
        query = f"select id, a, b::text, c::text, d, e::text from {name} order by 1"  # noqa: S608 - as above
        expect_equal(bench.ask("target", query), bench.ask("source", query), f"values as {form}")


@case
def chunks_cut_the_table_once(bench: TablesBench) -> None:
    """Chunks hold every row once; by key they are in key order and all but the last have the wanted size."""
    name = bench.table(1050)
    with bench.source().snapshot(name) as snapshot:
        chunks = list(snapshot.chunks("key", 100))
        counts = [len(list(snapshot.read(chunk, "text"))) for chunk in chunks]
        expect_equal(counts, [100] * 10 + [50], "rows in each chunk by key")
        rows = [row for chunk in chunks for row in snapshot.read(chunk, "text")]
        ids = [int(row.split(b"\t")[0]) for row in rows]
        expect_equal(ids, list(range(1, 1051)), "ids in order")
        blocks = list(snapshot.chunks("blocks", 300))
        rows = [row for chunk in blocks for row in snapshot.read(chunk, "text")]
        expect_equal(sorted(int(row.split(b"\t")[0]) for row in rows), list(range(1, 1051)), "ids by blocks")
        expect((chunks[0].after, chunks[-1].upto) == (None, None), "the ends are open")


@case
def keys_of_two_columns_are_one_order(bench: TablesBench) -> None:
    """Chunks of a table with a key of two columns, one of them text, cut it once."""
    shape = "create table {} (a integer, b varchar(20), primary key (a, b))"
    fill = "insert into {} select n % 10, 'it''s ' || n from generate_series(1, {}) n"
    name = bench.table(200, shape, fill)
    info = bench.source().describe(name)
    expect_equal(info.primary_key, ("a", "b"), "key")
    _carry(bench, name, by="key" if info.key_order == "all" else "blocks", rows=7)
    if bench.source().bytewise() and bench.target().bytewise():
        _carry(bench, name, by="key", rows=7)
    query = f"select * from {name} order by a, b"  # noqa: S608 - as above
    expect_equal(bench.ask("target", query), bench.ask("source", query), "rows")


@case
def a_snapshot_is_one_moment(bench: TablesBench) -> None:
    """Rows written after a snapshot began are not in it, nor do rows deleted since leave it."""
    name = bench.table(300)
    with bench.source().snapshot(name) as snapshot:
        chunks = list(snapshot.chunks("key", 100))
        first = list(snapshot.read(chunks[0], "text"))
        bench.ask("source", f"delete from {name} where id > 150")  # noqa: S608 - as above
        bench.ask("source", f"insert into {name} values (1000, 'late', 1, null)")  # noqa: S608 - as above
        rest = [row for chunk in chunks[1:] for row in snapshot.read(chunk, "text")]
        expect_equal(len(first) + len(rest), 300, "rows of the snapshot")
    with bench.source().snapshot(name) as snapshot:
        expect_equal(len(list(snapshot.read(Chunk(0, "key"), "text"))), 151, "rows of a new snapshot")


@case
def definitions_and_counters_come_over(bench: TablesBench) -> None:
    """Key, unique and check constraints, indexes, defaults, generated columns, identity and serial go on."""
    shape = """create table {} (id integer generated by default as identity primary key, no serial,
        name varchar(30) not null default 'none', amount numeric(9, 2) check (amount >= 0), code text unique,
        twice integer generated always as (no * 2) stored)"""
    name = bench.table(50, shape, "insert into {} (amount, code) select n, 'c' || n from generate_series(1, {}) n")
    bench.ask("source", f"create index {name}_part on {name} (lower(name), amount desc) where amount > 10")
    bench.ask("source", f"comment on table {name} is 'said'")
    _carry(bench, name)
    here, there = bench.source().describe(name), bench.target().describe(name)
    unsized = replace(there, rows_estimate=here.rows_estimate, size_bytes=here.size_bytes)
    expect_equal(unsized, here, "description")
    bench.ask("target", f"insert into {name} (amount, code) values (1, 'new')")  # noqa: S608 - as above
    query = f"select id, no, name, twice from {name} where code = 'new'"  # noqa: S608 - as above
    expect_equal(bench.ask("target", query), [(51, 51, "none", 102)], "the next row")


@case
def nothing_shows_before_the_swap(bench: TablesBench) -> None:
    """Until the swap, readers of the target see the old table, and tables() does not list what is being filled."""
    name = bench.table(10)
    bench.ask("target", f"create table {name} (id integer)")
    target, owner = bench.target(), bench.owner()
    with bench.source().snapshot(name) as snapshot:
        info = snapshot.info
        target.stage(info, owner, "key")
        target.load(info, owner, Chunk(0, "key"), "binary", snapshot.read(Chunk(0, "key"), "binary"), _accept)
    target.build(info, owner)
    expect_equal(_rows(bench, "target", name), [], "rows before the swap")
    expect_equal([found for found in target.tables() if found.endswith(name)], [name], "tables listed")
    target.swap(info, owner)
    expect_equal(len(_rows(bench, "target", name)), 10, "rows after the swap")


@case
def a_refused_chunk_is_not_loaded(bench: TablesBench) -> None:
    """When the check raises, or the rows end in an error, nothing of the chunk is in the staging table."""
    name = bench.table(20)
    target, owner, whole = bench.target(), bench.owner(), Chunk(0, "key")

    def refuse(back: Iterator[bytes]) -> None:
        next(back)
        raise Invalid("not what was sent")

    def broken(rows: Sequence[bytes]) -> Iterator[bytes]:
        yield from rows[:5]
        raise Invalid("the source broke off")

    for by in ("key", "blocks"):
        part = replace(whole, by=by)
        with bench.source().snapshot(name) as snapshot:
            info, rows = snapshot.info, list(snapshot.read(part, "binary"))
        target.discard(owner)
        target.stage(info, owner, by)
        with expect_error(Invalid, during="a check that raises"):
            target.load(info, owner, part, "binary", rows, refuse)
        with expect_error(Invalid, during="rows that break off"):
            target.load(info, owner, part, "binary", broken(rows), _accept)
        expect_equal(list(target.staged(info, owner, part, "binary")), [], f"rows staged by {by}")


@case
def a_chunk_may_be_loaded_twice(bench: TablesBench) -> None:
    """By key, a second load replaces the first. By blocks, it is refused as Stale: the chunk is there already."""
    name = bench.table(200)
    target, owner = bench.target(), bench.owner()
    with bench.source().snapshot(name) as snapshot:
        info = snapshot.info
        expect(target.stage(info, owner, "key").made_now, "the first stage makes the table")
        chunks = list(snapshot.chunks("key", 100))
        for chunk in (chunks[1], chunks[0], chunks[1]):
            target.load(info, owner, chunk, "binary", snapshot.read(chunk, "binary"), _accept)
        again = target.stage(info, owner, "key")
        expect(not again.made_now, "the second stage finds it")
        expect_equal(len(list(target.staged(info, owner, Chunk(0, "key"), "binary"))), 200, "rows staged by key")
        target.discard(owner)
        target.stage(info, owner, "blocks")
        part = Chunk(0, "blocks")
        rows = list(snapshot.read(part, "binary"))
        target.load(info, owner, part, "binary", rows, _accept)
        with expect_error(Stale, during="the same chunk by blocks again"):
            target.load(info, owner, part, "binary", rows, _accept)
        expect_equal(target.stage(info, owner, "blocks").loaded, 1, "chunks loaded")
        expect_equal(len(list(target.staged(info, owner, part, "binary"))), 200, "rows staged by blocks")


@case
def build_may_happen_twice(bench: TablesBench) -> None:
    """A second build changes nothing."""
    name = bench.table(5)
    bench.ask("source", f"create index {name}_i on {name} (name)")
    target, owner = bench.target(), bench.owner()
    info = bench.source().describe(name)
    target.stage(info, owner, "blocks")
    target.build(info, owner)
    target.build(info, owner)
    target.swap(info, owner)
    expect_equal(target.describe(name).definitions, info.definitions, "definitions")


@case
def the_old_table_comes_back(bench: TablesBench) -> None:
    """restore drops what the swap brought and gives the name back to the old table, rows and indexes included."""
    name = bench.table(10)
    bench.ask("target", f"create table {name} (id integer primary key, other text default 'kept')")
    bench.ask("target", f"insert into {name} values (7)")  # noqa: S608 - as above
    target = bench.target()
    before = target.describe(name)
    _, owner, mark = _carry(bench, name)
    expect_equal(target.mark(name), mark, "the mark outlives the swap")
    expect(not target.restore(name, owner, "0.0"), "another mark must not be restored")
    expect(target.restore(name, owner, mark), "restore says it did nothing")
    expect_equal(_rows(bench, "target", name), [(7, "kept")], "rows of the old table")
    expect_equal(target.describe(name), before, "description of the old table")
    expect(not target.restore(name, owner, mark), "a second restore must do nothing")


@case
def settle_keeps_the_new_table(bench: TablesBench) -> None:
    """settle drops what was kept aside and nothing else; it and discard may happen twice."""
    name = bench.table(10)
    bench.ask("target", f"create table {name} (id integer)")
    target = bench.target()
    _, owner, mark = _carry(bench, name)
    for _ in range(2):
        target.settle(owner)
        target.discard(owner)
    expect_equal(len(_rows(bench, "target", name)), 10, "rows")
    expect(target.restore(name, owner, mark), "what we made may still be dropped")
    expect_equal(target.mark(name), "", "nothing has the name any more")


@case
def a_second_move_replaces_the_first(bench: TablesBench) -> None:
    """A table whose mark is named as replaced is dropped, and the one before it is what restore brings back."""
    name = bench.table(10)
    bench.ask("target", f"create table {name} (id integer)")
    target = bench.target()
    info, owner, first = _carry(bench, name)
    target.stage(info, owner, "key")
    target.swap(info, owner, first)
    expect(target.restore(name, owner, target.mark(name)), "restore after the second move")
    expect_equal(len(target.describe(name).columns), 1, "columns of the table that was there before both")


@case
def foreign_keys_are_bound_or_named(bench: TablesBench) -> None:
    """Foreign keys are added once both tables are there; those that cannot be are named with the reason."""
    parent = bench.table(5)
    child = bench.table(shape=f"create table {{}} (id integer primary key, up integer references {parent} (id))")
    bench.ask("source", f"insert into {child} values (1, 3), (2, null)")  # noqa: S608 - as above
    info, _, _ = _carry(bench, child)
    references = [item for item in info.definitions if item.kind == "reference"]
    expect_equal(len(references), 1, "foreign keys described")
    missing = bench.target().bind(child, references)
    expect(len(missing) == 1 and references[0].name in missing[0], f"a missing table must be named: {missing}")
    _carry(bench, parent)
    for _ in range(2):
        expect_equal(bench.target().bind(child, references), [], "foreign keys missing")
    expect(references[0] in bench.target().describe(child).definitions, "the foreign key is there")


@case
def missing_table_is_not_found(bench: TablesBench) -> None:
    """describe and snapshot of a table that does not exist raise NotFound; its mark is empty."""
    source, name = bench.source(), f"{bench.prefix}_none"
    with expect_error(NotFound, during="describe"):
        source.describe(name)
    with expect_error(NotFound, during="snapshot"), source.snapshot(name):
        pass
    expect_equal(source.mark(name), "", "mark")


@case
def other_things_are_refused(bench: TablesBench) -> None:
    """A view, and a table described in another dialect, are Unsupported."""
    name = bench.table(3)
    bench.ask("source", f"create view {name}_view as select id from {name}")  # noqa: S608 - as above
    with expect_error(Unsupported, during="describe of a view"):
        bench.source().describe(f"{name}_view")
    info = replace(bench.source().describe(name), dialect="another")
    with expect_error(Unsupported, during="stage of another dialect"):
        bench.target().stage(info, bench.owner(), "key")


@case
def reader_cannot_write(bench: TablesBench) -> None:
    """An identity that may only read gets AccessDenied on stage."""
    if bench.reader is None:
        raise NotOffered("this bench has no identity that may only read")
    name = bench.table(3)
    info = bench.source().describe(name)
    with expect_error(AccessDenied, during="stage by a reader"):
        bench.reader().stage(info, bench.owner(), "key")


@case
def wrong_credentials_are_refused(bench: TablesBench) -> None:
    """Wrong credentials raise NotSignedIn."""
    if bench.unsigned is None:
        raise NotOffered("this bench has no wrong credentials to try")
    with expect_error(NotSignedIn, during="tables with wrong credentials"):
        bench.unsigned().tables()


@case
def silent_server_is_unavailable(bench: TablesBench) -> None:
    """A server that is down raises Unavailable, which may be tried again."""
    if bench.absent is None:
        raise NotOffered("this provider has no server that could be down")
    with expect_error(Unavailable, during="tables of a server that is down"):
        bench.absent().tables()


CASES: tuple[Case[TablesBench], ...] = tuple(TABLES.cases)
