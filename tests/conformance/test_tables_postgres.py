"""PgTables from the lab's cloud A to its cloud B: the suite, and what only this server has."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from crossload.conformance.tables import CASES, Case, TablesBench
from crossload.engines.mover.chunks_journal import ChunkJournal
from crossload.engines.mover.tables import TableOptions, move_table, prove_table, settle_table, undo_table
from crossload.estate.place import Place
from crossload.lab import Lab
from crossload.ports.errors import AccessDenied, DigestMismatch, Refused, Unsupported
from crossload.ports.provider import Settings
from crossload.providers.postgres.tables import PgTables, open_tables

Ask = Callable[[str, str], list[tuple[Any, ...]]]


def tables_at(url: str) -> PgTables:
    connection = {"url": url}
    return open_tables(Settings(Place("db", "postgres", "here", "DE", connection), connection, {}))


def wrong_passfile(url: str, folder: Path) -> str:
    passfile = folder / "pgpass"
    passfile.write_text("127.0.0.1:*:*:*:wrong\n")
    passfile.chmod(0o600)
    return url.partition("?")[0] + f"?passfile={passfile}"


@pytest.fixture(scope="module")
def urls(conformance_lab: Lab, need: Callable[..., None]) -> dict[str, str]:
    need("postgres-a", "postgres-b")
    env = conformance_lab.env()
    return {
        "source": env["CROSSLOAD_LAB_PG_A_SEED"], "target": env["CROSSLOAD_LAB_PG_B"],
        "reader": env["CROSSLOAD_LAB_PG_B_AUDITOR"], "app": env["CROSSLOAD_LAB_PG_B_APP"],
    }  # fmt: skip


@pytest.fixture(scope="module")
def ask(urls: dict[str, str]) -> Iterator[Ask]:
    held = {side: psycopg.connect(urls[side], autocommit=True) for side in ("source", "target", "app")}

    def run(side: str, text: str) -> list[tuple[Any, ...]]:
        cursor = held[side].execute(text.encode())
        return cursor.fetchall() if cursor.description else []

    yield run
    for connection in held.values():
        connection.close()


@pytest.fixture(scope="module")
def bench(
    urls: dict[str, str], ask: Ask, tmp_path_factory: pytest.TempPathFactory, dead_port: int
) -> Iterator[TablesBench]:
    intruder = wrong_passfile(urls["target"], tmp_path_factory.mktemp("pg"))
    made = TablesBench(
        source=lambda: tables_at(urls["source"]),
        target=lambda: tables_at(urls["target"]),
        ask=ask,
        reader=lambda: tables_at(urls["reader"]),
        unsigned=lambda: tables_at(intruder),
        absent=lambda: tables_at(f"postgresql://nobody@127.0.0.1:{dead_port}/helpdesk"),
    )
    yield made
    made.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_postgres_tables(case: Case[TablesBench], bench: TablesBench, keeps: Callable[..., None]) -> None:
    keeps(case, bench, {})


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[ChunkJournal]:
    with ChunkJournal(tmp_path / "chunks.db") as made:
        yield made


def rows(ask: Ask, side: str, name: str) -> list[tuple[Any, ...]]:
    return ask(side, f"select * from {name} order by 1")


def rooms(ask: Ask, owner: str) -> list[tuple[Any, ...]]:
    return ask("target", f"select nspname from pg_namespace where nspname like 'crossload_{owner}%'")


SMALL = TableOptions(chunk_rows=100)


def test_a_move_proves_itself_and_a_second_finds_nothing_to_do(
    bench: TablesBench, ask: Ask, journal: ChunkJournal
) -> None:
    name, source, target = bench.table(950), bench.source(), bench.target()
    report = move_table(source, target, name, journal, SMALL)
    assert (report.status, report.rows, report.chunks, report.chunks_sent) == ("moved", 950, 10, 10)
    assert report.form == "binary" and report.by == "key" and len(report.root) == 64
    proof = prove_table(target, name, journal)
    assert proof["wrong"] == [] and proof["rows"] == 950 and proof["chunks_merkle_root"] == report.root
    assert proof["root_as_recorded"] and proof["ours"]
    again = move_table(source, target, name, journal, SMALL)
    assert (again.status, again.chunks_sent, again.root) == ("unchanged", 0, report.root)
    json.dumps(again.to_json())
    ask("target", f"update {name} set amount = 0 where id = 555")
    assert prove_table(target, name, journal)["wrong"] == [5]
    assert rooms(ask, journal.owner) == []


def test_a_delta_replaces_the_table_and_undo_goes_back_to_the_beginning(
    bench: TablesBench, ask: Ask, journal: ChunkJournal
) -> None:
    name, source, target = bench.table(300), bench.source(), bench.target()
    ask("target", f"create table {name} (id integer primary key, was text)")
    ask("target", f"insert into {name} values (1, 'there before')")
    move_table(source, target, name, journal, SMALL)
    ask("source", f"delete from {name} where id between 101 and 150")
    report = move_table(source, target, name, journal, SMALL)
    assert (report.status, report.rows) == ("moved", 250)
    assert rows(ask, "target", name) == rows(ask, "source", name)
    ask("target", f"update {name} set name = 'users were here' where id = 1")
    assert undo_table(target, name, journal).startswith("kept")
    with pytest.raises(Refused, match="users write"):
        move_table(source, target, name, journal, TableOptions(chunk_rows=100, target_is_home=True))
    ask("target", f"update {name} set name = 'name 1' where id = 1")
    owner = journal.owner
    assert "has its name again" in undo_table(target, name, journal)
    assert rows(ask, "target", name) == [(1, "there before")]
    assert rooms(ask, owner) == []


def test_settled_moves_leave_nothing_behind(bench: TablesBench, ask: Ask, journal: ChunkJournal) -> None:
    name, target = bench.table(10), bench.target()
    ask("target", f"create table {name} (id integer)")
    move_table(bench.source(), target, name, journal)
    assert len(rooms(ask, journal.owner)) == 1
    settle_table(target, journal)
    assert rooms(ask, journal.owner) == []


def test_an_equal_table_that_is_not_ours_is_found_and_left(
    bench: TablesBench, ask: Ask, journal: ChunkJournal, tmp_path: Path
) -> None:
    name, source, target = bench.table(40), bench.source(), bench.target()
    with ChunkJournal(tmp_path / "other.db") as other:
        move_table(source, target, name, other, SMALL)
    assert move_table(source, target, name, journal, SMALL).status == "unchanged"
    assert undo_table(target, name, journal).startswith("left")
    assert len(rows(ask, "target", name)) == 40


def test_tables_without_a_key_and_with_awkward_types_go_as_text_by_blocks(
    bench: TablesBench, ask: Ask, journal: ChunkJournal
) -> None:
    name = bench.table(shape="create table {} (a regclass, b int4range, c text)")
    ask("source", f"insert into {name} select 'pg_class', int4range(n, n + 5), repeat('x', 900) || n % 7"
                  " from generate_series(1, 500) n")  # fmt: skip
    ask("source", f"analyze {name}")
    report = move_table(bench.source(), bench.target(), name, journal, TableOptions(chunk_rows=50))
    assert (report.rows, report.by, report.form) == (500, "blocks", "text")
    assert report.chunks > 5 and "a regclass" in report.form_reason
    query = f"select a::text, b::text, c, count(*) from {name} group by 1, 2, 3 order by 1, 2, 3"
    assert ask("target", query) == ask("source", query)
    assert move_table(bench.source(), bench.target(), name, journal, SMALL).status == "unchanged"
    ask("target", f"update {name} set c = 'y' where b = int4range(3, 8)")
    assert prove_table(bench.target(), name, journal)["wrong"] == [0]


def test_collated_keys_are_cut_by_blocks(bench: TablesBench, ask: Ask, journal: ChunkJournal) -> None:
    """A text key with a language's order: the two sides need not agree on what comes next."""
    name = bench.table(200, 'create table {} (k text collate "pg_c_utf8" primary key)',
                       "insert into {} select 'k' || n from generate_series(1, {}) n")  # fmt: skip
    report = move_table(bench.source(), bench.target(), name, journal, SMALL)
    assert (report.by, report.rows) == ("blocks", 200)
    assert bench.target().describe(name).columns[0].collation == "pg_catalog.pg_c_utf8"


def test_rights_of_the_old_table_and_of_new_tables_are_given(
    bench: TablesBench, ask: Ask, journal: ChunkJournal, tmp_path: Path
) -> None:
    fresh, old = bench.table(3), bench.table(3)
    move_table(bench.source(), bench.target(), fresh, journal)
    assert len(rows(ask, "app", fresh)) == 3, "default privileges of the schema"
    ask("target", f"create table {old} (id integer)")
    ask("target", f"revoke all on {old} from app; grant select on {old} to public")
    with ChunkJournal(tmp_path / "old.db") as other:
        move_table(bench.source(), bench.target(), old, other)
    query = f"select has_table_privilege('app', '{old}', 'select'), has_table_privilege('app', '{old}', 'insert')"
    assert ask("target", query) == [(True, False)]


def test_a_table_that_others_depend_on_is_not_replaced(bench: TablesBench, ask: Ask, journal: ChunkJournal) -> None:
    name, target = bench.table(3), bench.target()
    ask("target", f"create table {name} (id integer); create view {name}_seen as select id from {name}")
    with pytest.raises(Refused, match=f"view {name}_seen"):
        move_table(bench.source(), target, name, journal)
    ask("target", f"drop view {name}_seen; alter table {name} enable row level security")
    with pytest.raises(Refused, match="row security"):
        move_table(bench.source(), target, name, journal)


def test_rows_hidden_from_us_are_an_error_and_not_left_out(
    bench: TablesBench, ask: Ask, urls: dict[str, str], journal: ChunkJournal
) -> None:
    name = bench.table(3)
    ask("source", f"alter table {name} enable row level security; alter table {name} force row level security")
    ask("source", f"create policy p on {name} using (id = 1)")
    with pytest.raises(AccessDenied, match="row-level security"):
        move_table(bench.source(), bench.target(), name, journal)


def test_a_partitioned_table_is_named_as_such(bench: TablesBench, ask: Ask, journal: ChunkJournal) -> None:
    name = bench.table(shape="create table {} (id integer) partition by range (id)")
    with pytest.raises(Unsupported, match="partitioned"):
        move_table(bench.source(), bench.target(), name, journal)


def test_what_is_left_behind_is_named(bench: TablesBench, ask: Ask, journal: ChunkJournal) -> None:
    name = bench.table(3)
    ask("source", f"comment on column {name}.name is 'x'; alter table {name} set (fillfactor = 70)")
    report = move_table(bench.source(), bench.target(), name, journal)
    assert report.left == ["1 column comment(s)", "storage settings"]


def test_schemas_beside_the_usual_one(bench: TablesBench, ask: Ask, journal: ChunkJournal) -> None:
    for side in ("source", "target"):
        ask(side, "drop schema if exists beside cascade; create schema beside")
    ask("source", 'create table beside."odd.Name" ("a b" integer primary key, "c""d" text)')
    ask("source", "insert into beside.\"odd.Name\" values (1, 'x'), (2, null)")
    try:
        assert move_table(bench.source(), bench.target(), "beside.odd.Name", journal).rows == 2
        assert ask("target", 'select * from beside."odd.Name" order by 1') == [(1, "x"), (2, None)]
        assert "beside.odd.Name" in bench.target().tables()
    finally:
        for side in ("source", "target"):
            ask(side, "drop schema if exists beside cascade")


class Liar(PgTables):
    """Changes one value on its way into the server."""

    def load(self, info: Any, owner: Any, chunk: Any, form: Any, rows: Any, check: Any) -> None:
        def bent() -> Iterator[bytes]:
            for row in rows:
                yield row.replace(b"name 150", b"name 151")

        super().load(info, owner, chunk, form, bent(), check)


def test_a_value_that_changes_on_the_way_stops_the_move(
    bench: TablesBench, ask: Ask, urls: dict[str, str], journal: ChunkJournal
) -> None:
    name = bench.table(290)
    place = Place("db", "postgres", "here", "DE", {"url": urls["target"]})
    liar = Liar(Settings(place, place.connection, {}))
    with pytest.raises(DigestMismatch, match="chunk 1"):
        move_table(bench.source(), liar, name, journal, SMALL)
    assert bench.target().mark(name) == ""
    report = move_table(bench.source(), bench.target(), name, journal, SMALL)
    assert (report.rows, report.chunks_sent) == (290, 2), "the first chunk was there"


def child(urls: dict[str, str], name: str, path: Path, pause: float) -> subprocess.Popen[bytes]:
    """A process of its own that moves the table, slowly enough to be killed in the middle."""
    code = f"""
import time
from pathlib import Path
from crossload.engines.mover.chunks_journal import ChunkJournal
from crossload.engines.mover.tables import TableOptions, TableWatcher, move_table
from crossload.estate.place import Place
from crossload.ports.provider import Settings
from crossload.providers.postgres.tables import open_tables
def at(url):
    return open_tables(Settings(Place("db", "postgres", "here", "DE", {{"url": url}}), {{"url": url}}, {{}}))
watcher = TableWatcher(moved=lambda rows, size: time.sleep({pause}))
with ChunkJournal(Path({str(path)!r})) as journal:
    move_table(at({urls["source"]!r}), at({urls["target"]!r}), {name!r}, journal, TableOptions(chunk_rows=100), watcher)
"""
    return subprocess.Popen([sys.executable, "-c", code])


def loaded(path: Path) -> int:
    if not path.exists():
        return 0
    with ChunkJournal(path) as seen:
        return sum(1 for entry in seen.entries() if entry.digest)


@pytest.mark.parametrize("keyed", [True, False], ids=["by key", "by blocks"])
def test_killed_and_started_again_it_sends_only_the_rest(
    bench: TablesBench, ask: Ask, urls: dict[str, str], tmp_path: Path, keyed: bool
) -> None:
    shape = "create table {} (id integer primary key, v text)" if keyed else "create table {} (id integer, v text)"
    name = bench.table(2000, shape, "insert into {} select n, repeat('v', 100) || n from generate_series(1, {}) n")
    ask("source", f"analyze {name}")
    path, target = tmp_path / "kill.db", bench.target()
    for _ in range(3):
        before = loaded(path)
        process = child(urls, name, path, 0.1)
        deadline = time.monotonic() + 60
        while loaded(path) < before + 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert loaded(path) >= before + 3
        assert target.mark(name) == "", "readers see nothing of it"
    with ChunkJournal(path) as journal:
        there = loaded(path)
        report = move_table(bench.source(), target, name, journal, SMALL)
        assert report.rows == 2000 and report.chunks > 12
        assert report.chunks_sent <= report.chunks - there
        assert rows(ask, "target", name) == rows(ask, "source", name)
        assert prove_table(target, name, journal)["wrong"] == []


def test_a_source_that_changes_while_we_are_dead_is_carried_as_it_is_now(
    bench: TablesBench, ask: Ask, urls: dict[str, str], tmp_path: Path
) -> None:
    name, path = bench.table(1000), tmp_path / "kill.db"
    process = child(urls, name, path, 0.1)
    while loaded(path) < 4:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    ask("source", f"update {name} set name = 'changed' where id = 50; delete from {name} where id = 150")
    ask("source", f"insert into {name} values (-5, 'below', 1, null), (5000, 'above', 1, null)")
    with ChunkJournal(path) as journal:
        report = move_table(bench.source(), bench.target(), name, journal, SMALL)
    assert report.rows == 1001 and report.chunks_sent < report.chunks
    assert rows(ask, "target", name) == rows(ask, "source", name)


def test_killed_between_the_swap_and_its_line_in_the_journal(
    bench: TablesBench, ask: Ask, journal: ChunkJournal
) -> None:
    name = bench.table(30)
    move_table(bench.source(), bench.target(), name, journal, SMALL)
    journal.note(state="built")
    assert move_table(bench.source(), bench.target(), name, journal, SMALL).status == "unchanged"
    assert journal.fact("state") == "swapped"
    assert undo_table(bench.target(), name, journal) == f"dropped {name}"


def test_readers_never_see_half_a_table(bench: TablesBench, ask: Ask, urls: dict[str, str], tmp_path: Path) -> None:
    """Somebody counts all the while: every answer is that of the old table or of the whole new one."""
    import threading

    name = bench.table(2000)
    ask("target", f"create table {name} (id integer primary key)")
    ask("target", f"insert into {name} values (1)")
    seen: set[int] = set()
    failures: list[Exception] = []
    stop = threading.Event()

    def count() -> None:
        with psycopg.connect(urls["target"], autocommit=True) as db:
            while not stop.is_set():
                try:
                    found = db.execute(f"select count(*) from {name}".encode()).fetchone()
                    seen.add(found[0] if found else -1)
                except psycopg.Error as error:
                    failures.append(error)

    thread = threading.Thread(target=count)
    thread.start()
    try:
        with ChunkJournal(tmp_path / "read.db") as journal:
            move_table(bench.source(), bench.target(), name, journal, SMALL)
        time.sleep(0.2)
    finally:
        stop.set()
        thread.join()
    assert (seen, failures) == ({1, 2000}, [])
