"""Avro files: what is read is written again, and damage is named."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossload.engines.mover.lake.avro import AvroFile, Branch, read_avro, write_avro
from crossload.ports.errors import Invalid, Unsupported

SCHEMA: dict[str, Any] = {
    "type": "record", "name": "r", "fields": [
        {"name": "n", "type": "long"}, {"name": "s", "type": ["null", "string"]}, {"name": "f", "type": "double"},
        {"name": "x", "type": {"type": "fixed", "name": "four", "size": 4}}, {"name": "again", "type": "four"},
        {"name": "l", "type": {"type": "array", "items": "bytes"}},
        {"name": "m", "type": {"type": "map", "values": "int"}},
        {"name": "u", "type": ["null", "string", "long"]}, {"name": "b", "type": "boolean"},
        {"name": "e", "type": {"type": "enum", "name": "colour", "symbols": ["red", "blue"]}},
    ],
}  # fmt: skip
LONG = st.integers(-(2**63), 2**63 - 1)
RECORD = st.fixed_dictionaries({
    "n": LONG, "s": st.none() | st.text(), "f": st.floats(allow_nan=False), "x": st.binary(min_size=4, max_size=4),
    "again": st.binary(min_size=4, max_size=4), "l": st.lists(st.binary(max_size=20)),
    "m": st.dictionaries(st.text(), st.integers(-(2**31), 2**31 - 1)),
    "u": st.builds(Branch, st.just(0), st.none()) | st.builds(Branch, st.just(1), st.text())
    | st.builds(Branch, st.just(2), LONG),
    "b": st.booleans(), "e": st.integers(0, 1),
})  # fmt: skip


def made(codec: str, blocks: list[list[Any]]) -> AvroFile:
    meta = {"avro.schema": json.dumps(SCHEMA).encode(), "avro.codec": codec.encode(), "kept": b"\x00\xff"}
    return AvroFile(meta, bytes(range(16)), SCHEMA, blocks)


@given(st.sampled_from(["null", "deflate", "zstandard"]), st.lists(st.lists(RECORD, max_size=3), max_size=3))
def test_what_is_written_is_read(codec: str, blocks: list[list[Any]]) -> None:
    pytest.importorskip("zstandard")
    file = made(codec, blocks)
    data = write_avro(file)
    assert read_avro(data) == file
    assert write_avro(read_avro(data)) == data


def test_negative_block_counts_are_understood() -> None:
    record = {"type": "record", "name": "r", "fields": [{"name": "l", "type": {"type": "array", "items": "int"}}]}
    file = AvroFile({"avro.schema": json.dumps(record).encode()}, bytes(16), record, [])
    body = b"\x03\x04\x02\x04\x00"  # -2 items in 2 bytes, 1, 2, end
    assert list(read_avro(write_avro(file) + b"\x02" + bytes((len(body) * 2,)) + body + bytes(16)).records()) == [
        {"l": [1, 2]}
    ]


@pytest.mark.parametrize("cut", [1, 10, 60, -1, -17])
def test_a_file_that_was_cut_is_damaged(cut: int) -> None:
    record = {"n": 1, "s": "x", "f": 0.5, "x": b"abcd", "again": b"abcd", "l": [], "m": {}, "u": Branch(0, None),
              "b": True, "e": 0}  # fmt: skip
    with pytest.raises(Invalid):
        read_avro(write_avro(made("deflate", [[record]]))[:cut])


def test_a_wrong_sync_marker_and_other_codecs_are_named() -> None:
    data = bytearray(write_avro(made("null", [[]])))
    data[-1] ^= 1
    with pytest.raises(Invalid, match="does not end"):
        read_avro(bytes(data))
    with pytest.raises(Unsupported, match="snappy"):
        read_avro(write_avro(made("null", [[]])).replace(b"\x08null", b"\x0csnappy"))
