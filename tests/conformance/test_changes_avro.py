"""The Avro reader against files of other people's writers, and ours of the test against another reader."""

from __future__ import annotations

import io
import json
import secrets
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

from crossload.ports.errors import Invalid
from crossload.providers.azure.avro import Short, read_blocks, read_header


def number(value: int) -> bytes:
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def text(value: bytes) -> bytes:
    return number(len(value)) + value


def container(schema: Any, blocks: list[tuple[int, bytes]], codec: bytes = b"null") -> bytes:
    sync = secrets.token_bytes(16)
    held = number(2) + text(b"avro.schema") + text(json.dumps(schema).encode()) + text(b"avro.codec") + text(codec)
    out = b"Obj\x01" + held + number(0) + sync
    for count, body in blocks:
        if codec == b"deflate":
            packer = zlib.compressobj(wbits=-15)
            body = packer.compress(body) + packer.flush()
        out += number(count) + text(body) + sync
    return out


def records(data: bytes) -> list[Any]:
    header = read_header(data)
    found, taken = read_blocks(header, data[header.size_bytes :])
    assert header.size_bytes + taken == len(data)
    return found


EVERYTHING: dict[str, Any] = {
    "type": "record", "name": "R", "namespace": "x",
    "fields": [
        {"name": "flag", "type": "boolean"}, {"name": "small", "type": "int"}, {"name": "big", "type": "long"},
        {"name": "f", "type": "float"}, {"name": "d", "type": "double"}, {"name": "raw", "type": "bytes"},
        {"name": "kind", "type": {"type": "enum", "name": "K", "symbols": ["A", "B"]}},
        {"name": "mark", "type": {"type": "fixed", "name": "F", "size": 3}},
        {"name": "many", "type": {"type": "array", "items": {"type": "map", "values": "string"}}},
        {"name": "maybe", "type": ["null", "string", "x.K"]}, {"name": "again", "type": "F"},
    ],
}  # fmt: skip


@pytest.mark.parametrize("codec", [b"null", b"deflate"])
def test_every_type_of_the_format(codec: bytes) -> None:
    body = (
        b"\x01" + number(-7) + number(2**62) + struct.pack("<f", 1.5) + struct.pack("<d", -2.25) + text(b"\x00\xff")
        + number(1) + b"abc" + number(-2) + number(99)
        + (number(1) + text(b"k") + text("ü".encode()) + number(0)) + number(0)
        + number(1) + number(0) + number(0) + number(2) + number(0) + b"xyz"
    )  # fmt: skip
    # The array has a run of two (with its size in bytes, which is skipped), then a run of one, then the end.
    (found,) = records(container(EVERYTHING, [(1, body)], codec))
    assert found == {
        "flag": True, "small": -7, "big": 2**62, "f": 1.5, "d": -2.25, "raw": b"\x00\xff", "kind": "B", "mark": b"abc",
        "many": [{"k": "ü"}, {}, {}], "maybe": "A", "again": b"xyz",
    }  # fmt: skip


def test_a_file_of_another_projects_writer(tmp_path: Path) -> None:
    """pyiceberg writes Avro for its manifests; we read what it wrote."""
    pytest.importorskip("pyiceberg")
    from pyiceberg.avro.file import AvroOutputFile
    from pyiceberg.io.pyarrow import PyArrowFileIO
    from pyiceberg.schema import Schema
    from pyiceberg.typedef import Record
    from pyiceberg.types import BooleanType, ListType, LongType, NestedField, StringType

    schema = Schema(
        NestedField(1, "key", StringType(), required=True), NestedField(2, "size", LongType(), required=False),
        NestedField(3, "there", BooleanType(), required=True),
        NestedField(4, "marks", ListType(5, LongType(), element_required=True), required=False),
    )  # fmt: skip
    path = tmp_path / "theirs.avro"
    rows: list[tuple[Any, ...]] = [("a b/ü", 2**40, True, [1, -2, 3]), ("", None, False, None)]
    out = PyArrowFileIO().new_output(str(path))
    with AvroOutputFile[Record](out, schema, "row", metadata={"write.avro.compression-codec": "null"}) as file:
        file.write_block([Record(*row) for row in rows])
        file.write_block([Record(*rows[0])])
    data = path.read_bytes()
    if read_header(data).codec not in ("null", "deflate"):
        pytest.skip("this release writes a codec that the change feed does not use")
    found = records(data)
    assert [tuple(row.values()) for row in found] == [*rows, rows[0]]


def test_the_sdks_own_reader_reads_the_same() -> None:
    """The SDK carries a reader of its own, not for the public: here it says whether our test files are true."""
    datafile: Any = pytest.importorskip("azure.storage.blob._shared.avro.datafile")
    avro_io: Any = pytest.importorskip("azure.storage.blob._shared.avro.avro_io")
    schema = {"type": "record", "name": "E", "fields": [{"name": "k", "type": "string"}, {"name": "n", "type": "long"}]}
    blocks = [(2, text(b"a") + number(1) + text(b"b") + number(-5)), (1, text(b"c") + number(2**40))]
    data = container(schema, blocks, b"deflate")
    theirs = list(datafile.DataFileReader(io.BytesIO(data), avro_io.DatumReader()))
    assert records(data) == theirs == [{"k": "a", "n": 1}, {"k": "b", "n": -5}, {"k": "c", "n": 2**40}]


def test_a_file_may_end_anywhere() -> None:
    """Whole blocks are given and counted; what is cut waits; nothing is given twice or made up."""
    schema = {"type": "record", "name": "E", "fields": [{"name": "k", "type": "string"}]}
    data = container(schema, [(2, text(b"a") + text(b"b")), (1, text(b"c"))])
    header = read_header(data)
    for end in range(header.size_bytes):
        with pytest.raises(Short):
            read_header(data[:end])
    seen: set[tuple[str, ...]] = set()
    for end in range(header.size_bytes, len(data) + 1):
        first, taken = read_blocks(header, data[header.size_bytes : end])
        rest, more = read_blocks(header, data[header.size_bytes + taken :])
        assert [item["k"] for item in [*first, *rest]] == ["a", "b", "c"]
        assert header.size_bytes + taken + more == len(data)
        seen.add(tuple(item["k"] for item in first))
    assert seen == {(), ("a", "b"), ("a", "b", "c")}


def test_what_is_no_container_or_damaged_is_refused() -> None:
    schema = {"type": "record", "name": "E", "fields": [{"name": "k", "type": "string"}]}
    data = container(schema, [(1, text(b"a"))])
    header = read_header(data)
    with pytest.raises(Invalid):
        read_header(b"PAR1" + data)
    with pytest.raises(Invalid):
        read_header(container(schema, [], b"snappy"))
    with pytest.raises(Invalid):
        read_blocks(header, data[header.size_bytes + 1 :])  # not where a block begins
    with pytest.raises(Invalid):
        read_blocks(header, data[header.size_bytes : -1] + bytes([data[-1] ^ 1]))
    short = container(schema, [(2, text(b"a"))])
    with pytest.raises(Invalid, match="less than it says"):
        read_blocks(read_header(short), short[read_header(short).size_bytes :])
