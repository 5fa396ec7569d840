"""An index as Parquet: every bit, every digest, and a run that was killed goes on where its files end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from memory_vectors import MemoryVectors, point

from crossload.engines.mover.vectors import ParquetIndex, digest_index, export_index, import_index
from crossload.ports.errors import DigestMismatch, Invalid, NotFound
from crossload.ports.vectors import Block, IndexInfo, VectorRow

INFO = IndexInfo("docs", 3, 100, "l2", "hnsw", {"m": "8"}, "all-MiniLM-L6-v2", "c9745ed1")


def rows(count: int = 100) -> list[VectorRow]:
    odd = [point(-0.0, 1e-45, 3.4e38), point(1 / 3, -2.5, 0)]
    return [VectorRow(f"é-{n:04d}", odd[n % 2], {"n": n, "text": 'a "quoted" 🚀'}) for n in range(count)]


@pytest.fixture
def store() -> MemoryVectors:
    made = MemoryVectors("a")
    made.fill(INFO, rows())
    return made


def test_there_and_back_is_bit_equal(store: MemoryVectors, tmp_path: Path) -> None:
    done = export_index(store, "docs", tmp_path, part_rows=30)
    assert (done.parts, done.resumed_rows, done.written_rows) == (4, 0, 100)
    assert done.digest == digest_index(store, "docs") == digest_index(ParquetIndex(tmp_path), "docs")
    target = MemoryVectors("b")
    info, sent = import_index(tmp_path, target)
    assert info == INFO
    assert sent == done.digest == digest_index(target, "docs")
    assert target.built == ["docs"]
    import_index(tmp_path, target, "other")
    assert digest_index(target, "other") == sent


def test_the_files_say_what_they_hold(store: MemoryVectors, tmp_path: Path) -> None:
    from pyarrow import parquet

    done = export_index(store, "docs", tmp_path, part_rows=30)
    said = json.loads((tmp_path / "index.json").read_text())
    assert {key: said[key] for key in ("dimension", "metric", "kind", "model", "model_revision", "source", "rows")} == {
        "dimension": 3, "metric": "l2", "kind": "hnsw", "model": "all-MiniLM-L6-v2", "model_revision": "c9745ed1",
        "source": "a", "rows": 100,
    }  # fmt: skip
    assert said["bits_sha256"] == done.digest.bits
    first = parquet.ParquetFile(tmp_path / "part-000000.parquet")
    column = first.metadata.row_group(0).column(1)
    assert (column.compression, "BYTE_STREAM_SPLIT" in column.encodings) == ("ZSTD", True)
    assert max(first.metadata.row_group(n).num_rows for n in range(first.num_row_groups)) <= store.together
    assert json.loads(first.schema_arrow.metadata[b"crossload"])["model"] == "all-MiniLM-L6-v2"
    assert first.schema_arrow.names == ["id", "values", "metadata"]


class Breaks(MemoryVectors):
    """Gives up after some blocks, once."""

    after_blocks = 9

    def export(self, name: str, *, after: str = "", wire: str = "") -> Iterator[Block]:
        for number, block in enumerate(super().export(name, after=after)):
            if number == self.after_blocks:
                self.after_blocks = -1
                raise ConnectionError("gone")
            yield block


def broken_off(folder: Path) -> Breaks:
    source = Breaks("a")
    source.fill(INFO, rows())
    with pytest.raises(ConnectionError):
        export_index(source, "docs", folder, part_rows=20)
    assert sorted(path.name for path in folder.iterdir()) == [f"part-00000{n}.parquet" for n in range(3)]
    with pytest.raises(NotFound, match="no finished index"):
        ParquetIndex(folder)
    return source


def test_a_run_that_broke_off_goes_on_after_the_last_part(tmp_path: Path) -> None:
    source = broken_off(tmp_path)
    source.exports.clear()
    done = export_index(source, "docs", tmp_path, part_rows=20)
    assert (done.resumed_rows, done.written_rows) == (60, 40)
    assert source.exports == ["é-0059", ""], "from the last whole part on, and then one look at all for the digest"
    assert digest_index(ParquetIndex(tmp_path), "docs") == digest_index(source, "docs")


def test_a_source_that_changed_meanwhile_is_written_anew(tmp_path: Path) -> None:
    source = broken_off(tmp_path)
    source.rows["docs"][0] = replace(source.rows["docs"][0], payload={"n": "changed"})
    done = export_index(source, "docs", tmp_path, part_rows=20)
    assert (done.resumed_rows, done.digest) == (0, digest_index(source, "docs"))
    assert digest_index(ParquetIndex(tmp_path), "docs") == done.digest


@pytest.mark.parametrize("what", ["cut short", "another index", "a gap"])
def test_parts_that_are_no_good_are_not_gone_on_from(tmp_path: Path, what: str) -> None:
    source = broken_off(tmp_path)
    if what == "cut short":
        part = tmp_path / "part-000001.parquet"
        part.write_bytes(part.read_bytes()[:-10])
    elif what == "another index":
        source.infos["docs"] = replace(INFO, model="another")
    else:
        (tmp_path / "part-000001.parquet").unlink()
    done = export_index(source, "docs", tmp_path, part_rows=20)
    assert done.resumed_rows == 0
    assert digest_index(ParquetIndex(tmp_path), "docs") == digest_index(source, "docs")


def test_a_changed_file_is_not_loaded(store: MemoryVectors, tmp_path: Path) -> None:
    export_index(store, "docs", tmp_path, part_rows=30)
    target = MemoryVectors("b")
    target.fill(INFO, rows(1))
    part = tmp_path / "part-000002.parquet"
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    with pytest.raises(DigestMismatch):
        import_index(tmp_path, target)
    assert target.rows["docs"] == rows(1)
    part.unlink()
    with pytest.raises(DigestMismatch):
        import_index(tmp_path, target)
    (tmp_path / "index.json").write_text("{}")
    with pytest.raises(Invalid):
        ParquetIndex(tmp_path)


def test_an_index_without_rows(tmp_path: Path) -> None:
    store = MemoryVectors("a")
    store.fill(INFO, [])
    assert export_index(store, "docs", tmp_path).parts == 0
    target = MemoryVectors("b")
    import_index(tmp_path, target)
    assert target.describe("docs").rows == 0


CHILD = """
import sys, time
sys.path[:0] = [{here!r}]
from test_vectors_parquet import INFO, rows
from memory_vectors import MemoryVectors
from crossload.engines.mover.vectors import export_index, move_index, ParquetIndex
from pathlib import Path

class Slow(MemoryVectors):
    def export(self, name, *, after="", wire=""):
        for block in super().export(name, after=after):
            time.sleep(0.02)
            yield block

source = Slow("a", together=5)
source.fill(INFO, rows(2000))
{work}
"""


def killed(work: str, until: Path, count: int) -> None:
    """Run the work in a process of its own, and kill -9 it when so many files are there."""
    code = CHILD.format(here=str(Path(__file__).parent), work=work)
    with subprocess.Popen([sys.executable, "-c", code]) as child:
        end = time.monotonic() + 60
        while len(list(until.glob("**/*"))) < count:
            assert child.poll() is None, "it was done before we could kill it"
            assert time.monotonic() < end
            time.sleep(0.01)
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL


def test_kill_9_in_the_middle_of_an_export(tmp_path: Path) -> None:
    killed(f"export_index(source, 'docs', Path({str(tmp_path)!r}), part_rows=50)", tmp_path, 5)
    kept = len(list(tmp_path.glob("part-*.parquet")))
    assert 3 <= kept < 40
    source = MemoryVectors("a")
    source.fill(INFO, rows(2000))
    done = export_index(source, "docs", tmp_path, part_rows=50)
    assert done.resumed_rows == 50 * kept
    assert done.resumed_rows + done.written_rows == 2000
    assert not list(tmp_path.glob(".part-*"))
    assert digest_index(ParquetIndex(tmp_path), "docs") == digest_index(source, "docs") == done.digest


def test_kill_9_in_the_middle_of_a_load(tmp_path: Path) -> None:
    """The store shows the old rows until the new ones are whole; the next run ends equal."""
    from crossload import wiring
    from crossload.engines.mover.vectors import move_index
    from crossload.estate.place import Place
    from crossload.ports.provider import Settings

    connection = {"uri": str(tmp_path)}
    place = Place("b", "lancedb", "here", "DE", connection)
    target = wiring.provider("lancedb").open("vectors", Settings(place, connection, {}))
    target.load(INFO, [Block.of(rows(1))])
    opened = f"Settings(Place('b', 'lancedb', 'here', 'DE', {connection!r}), {connection!r}, {{}})"
    lines = (
        "from crossload import wiring",
        "from crossload.estate.place import Place",
        "from crossload.ports.provider import Settings",
        f"move_index(source, wiring.provider('lancedb').open('vectors', {opened}), 'docs')",
    )
    killed("\n".join(lines), tmp_path, len(list(tmp_path.glob("**/*"))) + 1)
    assert target.describe("docs").rows == 1
    source = MemoryVectors("a")
    source.fill(INFO, rows(2000))
    _, sent = move_index(source, target, "docs", build=False)
    assert digest_index(target, "docs") == sent == digest_index(source, "docs")
