"""A reader of Avro object containers (Apache Avro 1.8, `Object Container Files`): what the change feed is written in.

A log that grows is read piece by piece: blocks that are whole are given, and the offset behind the last one is where to
go on. Named types of the schema may be used again by name; logical types are left as what they are stored as."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from crossload.ports.errors import Invalid

_MAGIC = b"Obj\x01"
_SYNC_BYTES = 16


class Short(Exception):
    """The bytes end before the value does: more must be read."""


@dataclass(frozen=True, slots=True)
class Header:
    """The container's beginning; `size_bytes` is where its first block starts."""

    schema: Any
    named: Mapping[str, Any]
    codec: str
    sync: bytes
    size_bytes: int


def read_header(data: bytes) -> Header:
    """Raises Short when `data` ends before the header, Invalid when it is no container we can read."""
    if len(data) < len(_MAGIC):
        raise Short
    if not data.startswith(_MAGIC):
        raise Invalid("not an Avro object container")
    at = _Bytes(data, len(_MAGIC), {})
    held: dict[str, bytes] = at.value({"type": "map", "values": "bytes"})
    sync = at.take(_SYNC_BYTES)
    codec = held.get("avro.codec", b"null").decode()
    if codec not in ("null", "deflate"):
        raise Invalid(f"an Avro container compressed with {codec} cannot be read")
    schema = json.loads(held["avro.schema"])
    return Header(schema, dict(_names(schema)), codec, sync, at.position)


def read_blocks(header: Header, data: bytes) -> tuple[list[Any], int]:
    """(records, bytes taken) of the whole blocks that `data` begins with; a block cut short waits for the next read.

    Raises Invalid when a block does not end with the container's mark: then `data` did not begin at a block."""
    records: list[Any] = []
    taken = 0
    while taken < len(data):
        at = _Bytes(data, taken, {})
        try:
            count, size = at.long(), at.long()
            body, mark = at.take(size), at.take(_SYNC_BYTES)
        except Short:
            break
        if mark != header.sync:
            raise Invalid("an Avro block does not end with its container's mark")
        block = _Bytes(zlib.decompress(body, -15) if header.codec == "deflate" else body, 0, header.named)
        try:
            records += [block.value(header.schema) for _ in range(count)]
        except Short as error:
            raise Invalid("an Avro block holds less than it says") from error
        taken = at.position
    return records, taken


def _names(schema: Any, around: str = "") -> Iterator[tuple[str, Any]]:
    """Every named type of a schema, with and without its namespace, which it takes from `around` unless it has its own:
    it may be used by name where the branch that defines it was never taken."""
    if isinstance(schema, list):
        for item in schema:
            yield from _names(item, around)
    elif isinstance(schema, dict):
        if schema.get("type") in ("record", "enum", "fixed"):
            space, _, name = str(schema["name"]).rpartition(".")
            around = space or schema.get("namespace", around)
            yield name, schema
            yield f"{around}.{name}", schema
        for inner in ("type", "items", "values"):
            yield from _names(schema.get(inner), around)
        for item in schema.get("fields", ()):
            yield from _names(item, around)


class _Bytes:
    """A place in bytes, and Avro's binary encoding read from there."""

    def __init__(self, data: bytes, position: int, named: Mapping[str, Any]) -> None:
        self._data, self.position, self._named = data, position, named

    def take(self, size: int) -> bytes:
        end = self.position + size
        if size < 0:
            raise Invalid("an Avro length below zero")
        if end > len(self._data):
            raise Short
        found = self._data[self.position : end]
        self.position = end
        return found

    def long(self) -> int:
        """A zig-zag number of variable length."""
        shift = result = 0
        while True:
            byte = self.take(1)[0]
            result |= (byte & 0x7F) << shift
            if byte < 0x80:
                return (result >> 1) ^ -(result & 1)
            shift += 7
            if shift > 63:
                raise Invalid("an Avro number of more than 64 bits")

    def value(self, schema: Any) -> Any:
        if isinstance(schema, list):
            return self.value(schema[self._index(schema)])
        kind = schema["type"] if isinstance(schema, dict) else schema
        if isinstance(kind, (dict, list)):  # a schema inside the `type` of another
            return self.value(kind)
        if kind in ("record", "enum", "fixed", "array", "map"):
            return self._compound(kind, schema)
        if kind in self._named:
            return self.value(self._named[kind])
        return self._primitive(kind)

    def _index(self, choices: list[Any]) -> int:
        index = self.long()
        if not 0 <= index < len(choices):
            raise Invalid(f"an Avro choice {index} of {len(choices)}")
        return index

    def _primitive(self, kind: str) -> Any:
        match kind:
            case "null":
                return None
            case "boolean":
                return self.take(1) == b"\x01"
            case "int" | "long":
                return self.long()
            case "float":
                return struct.unpack("<f", self.take(4))[0]
            case "double":
                return struct.unpack("<d", self.take(8))[0]
            case "bytes":
                return self.take(self.long())
            case "string":
                return self.take(self.long()).decode("utf-8", "replace")
            case _:
                raise Invalid(f"an Avro type {kind!r} that the schema does not name")

    def _compound(self, kind: str, schema: Any) -> Any:
        match kind:
            case "record":
                return {item["name"]: self.value(item["type"]) for item in schema["fields"]}
            case "enum":
                return schema["symbols"][self._index(schema["symbols"])]
            case "fixed":
                return self.take(schema["size"])
            case "array":
                return self._items(lambda: self.value(schema["items"]))
            case _:
                return dict(self._items(lambda: (self._primitive("string"), self.value(schema["values"]))))

    def _items(self, one: Callable[[], Any]) -> list[Any]:
        """Items in runs: a count, below zero when the run's size in bytes follows; the run of none is the last."""
        found: list[Any] = []
        while count := self.long():
            if count < 0:
                self.long()
            found += [one() for _ in range(abs(count))]
        return found
