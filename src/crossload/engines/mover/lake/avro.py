"""Avro object container files, read and written again without loss (Avro 1.11 specification).

A table format's own reader fits what it reads into the fields it knows; what it does not know would be gone when the
file is written again. Here the file's own schema is the only one there is."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from crossload.ports.errors import Invalid, Unsupported

_MAGIC = b"Obj\x01"


@dataclass(frozen=True, slots=True)
class Branch:
    """A value of a union that has more than one branch beside null."""

    index: int
    value: Any


@dataclass(slots=True)
class AvroFile:
    """`meta` is the header's map, schema and codec included; records keep the file's blocks. Records and maps are
    dicts, arrays lists; `bytes` and `fixed` are bytes."""

    meta: dict[str, bytes]
    sync: bytes
    schema: Any
    blocks: list[list[Any]]

    def records(self) -> Iterator[Any]:
        for block in self.blocks:
            yield from block


def read_avro(data: bytes) -> AvroFile:
    """Raises Invalid for bytes that are no whole Avro file."""
    stream = io.BytesIO(data)
    try:
        if stream.read(4) != _MAGIC:
            raise Invalid("not an Avro file")
        meta: dict[str, bytes] = _read(stream, {"type": "map", "values": "bytes"}, {})
        sync = _exactly(stream, 16)
        schema = json.loads(meta["avro.schema"])
        codec = meta.get("avro.codec", b"null").decode()
        blocks: list[list[Any]] = []
        while stream.tell() < len(data):
            count, size = _long(stream), _long(stream)
            block = io.BytesIO(_unpacked(_exactly(stream, size), codec))
            names: dict[str, Any] = {}
            blocks.append([_read(block, schema, names) for _ in range(count)])
            if block.read(1) or _exactly(stream, 16) != sync:
                raise Invalid("an Avro block does not end where it should")
    except (KeyError, ValueError, EOFError, struct.error, zlib.error, IndexError) as error:
        raise Invalid(f"damaged Avro file: {error}") from error
    return AvroFile(meta, sync, schema, blocks)


def write_avro(file: AvroFile) -> bytes:
    """The same header, sync marker and codec: equal records make equal bytes on every run."""
    out = io.BytesIO()
    out.write(_MAGIC)
    _write(out, {"type": "map", "values": "bytes"}, file.meta, {})
    out.write(file.sync)
    codec = file.meta.get("avro.codec", b"null").decode()
    for records in file.blocks:
        block = io.BytesIO()
        names: dict[str, Any] = {}
        for record in records:
            _write(block, file.schema, record, names)
        packed = _packed(block.getvalue(), codec)
        _put_long(out, len(records))
        _put_long(out, len(packed))
        out.write(packed)
        out.write(file.sync)
    return out.getvalue()


def _exactly(stream: io.BytesIO, size: int) -> bytes:
    data = stream.read(size) if size >= 0 else b""
    if len(data) != size:
        raise EOFError("it ends too early")
    return data


def _long(stream: io.BytesIO) -> int:
    value = shift = 0
    while True:
        byte = _exactly(stream, 1)[0]
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return (value >> 1) ^ -(value & 1)
        shift += 7


def _put_long(out: io.BytesIO, value: int) -> None:
    value = (value << 1) ^ (value >> 63)
    while value & ~0x7F:
        out.write(bytes((value & 0x7F | 0x80,)))
        value >>= 7
    out.write(bytes((value,)))


def _unpacked(data: bytes, codec: str) -> bytes:
    if codec == "null":
        return data
    if codec == "deflate":
        return zlib.decompress(data, -15)
    if codec == "zstandard":
        import zstandard

        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    raise Unsupported(f"Avro files packed with {codec} are not read", hint="null, deflate and zstandard are")


def _packed(data: bytes, codec: str) -> bytes:
    if codec == "null":
        return data
    if codec == "deflate":
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        return packer.compress(data) + packer.flush()
    import zstandard

    return zstandard.ZstdCompressor().compress(data)


def _named(schema: Any, names: dict[str, Any]) -> tuple[str, Any]:
    """(type, its schema); types that are named once are known by their name after."""
    if isinstance(schema, list):
        return "union", schema
    if isinstance(schema, str):
        if schema in names:
            return names[schema]["type"], names[schema]
        return schema, schema
    kind = schema["type"]
    if isinstance(kind, (dict, list)):
        return _named(kind, names)
    if "name" in schema and kind in ("record", "fixed", "enum"):
        names[schema["name"]] = schema
    if kind in names:
        return names[kind]["type"], names[kind]
    return kind, schema


def _read(stream: io.BytesIO, schema: Any, names: dict[str, Any]) -> Any:
    kind, schema = _named(schema, names)
    match kind:
        case "null":
            return None
        case "boolean":
            return _exactly(stream, 1) == b"\x01"
        case "int" | "long" | "enum":
            return _long(stream)
        case "float":
            return struct.unpack("<f", _exactly(stream, 4))[0]
        case "double":
            return struct.unpack("<d", _exactly(stream, 8))[0]
        case "bytes":
            return _exactly(stream, _long(stream))
        case "string":
            return _exactly(stream, _long(stream)).decode()
        case "fixed":
            return _exactly(stream, schema["size"])
        case "record":
            return {field["name"]: _read(stream, field["type"], names) for field in schema["fields"]}
        case "array":
            return [_read(stream, schema["items"], names) for _ in _counted(stream)]
        case "map":
            return {
                _exactly(stream, _long(stream)).decode(): _read(stream, schema["values"], names)
                for _ in _counted(stream)
            }
        case "union":
            index = _long(stream)
            value = _read(stream, schema[index], names)
            return value if len([branch for branch in schema if branch != "null"]) <= 1 else Branch(index, value)
        case _:
            raise Invalid(f"an Avro type that is not known: {kind}")


def _counted(stream: io.BytesIO) -> Iterator[None]:
    while count := _long(stream):
        if count < 0:
            count = -count
            _long(stream)  # the block's bytes, for those who skip it
        for _ in range(count):
            yield None


def _write(out: io.BytesIO, schema: Any, value: Any, names: dict[str, Any]) -> None:
    kind, schema = _named(schema, names)
    match kind:
        case "null":
            pass
        case "boolean":
            out.write(b"\x01" if value else b"\x00")
        case "int" | "long" | "enum":
            _put_long(out, value)
        case "float":
            out.write(struct.pack("<f", value))
        case "double":
            out.write(struct.pack("<d", value))
        case "bytes" | "string":
            data = value.encode() if isinstance(value, str) else value
            _put_long(out, len(data))
            out.write(data)
        case "fixed":
            out.write(value)
        case "record":
            for field in schema["fields"]:
                _write(out, field["type"], value[field["name"]], names)
        case "array" | "map":
            _write_many(out, kind, schema, value, names)
        case "union":
            if isinstance(value, Branch):
                index, value = value.index, value.value
            else:
                index = next(i for i, branch in enumerate(schema) if (branch == "null") == (value is None))
            _put_long(out, index)
            _write(out, schema[index], value, names)
        case _:
            raise Invalid(f"an Avro type that is not known: {kind}")


def _write_many(out: io.BytesIO, kind: str, schema: Any, value: Any, names: dict[str, Any]) -> None:
    if value:
        _put_long(out, len(value))
    for item in value:
        if kind == "map":
            _write(out, "string", item, names)
            _write(out, schema["values"], value[item], names)
        else:
            _write(out, schema["items"], item, names)
    _put_long(out, 0)
