"""The header of a safetensors file: which tensor lies where. Nothing of it is executed, and no tensor is loaded."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from crossload.engines.mover.chunks.content import Content
from crossload.ports.errors import Invalid

HEADER_BYTES_MAX = 4 * 2**20  # the format allows 100 MB; a header costs about ten times its size in memory
_LENGTH_BYTES = 8
# Bits of one element, as the format names them. An unknown type is moved as bytes.
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64,
    "C64": 64,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor's place in the file; `start` counts from the file's first byte."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    size_bytes: int

    @property
    def word_bytes(self) -> int:
        """Bytes of one element; 1 where elements are no whole bytes or of an unknown type."""
        bits = _BITS.get(self.dtype, 8)
        return 4 if self.dtype == "C64" else max(1, bits // 8)


@dataclass(frozen=True, slots=True)
class Header:
    """`size_bytes` counts from the file's first byte to the first tensor's; tensors are in the order of their bytes,
    each begins where the last one ends, and those without bytes are left out."""

    size_bytes: int
    tensors: tuple[Tensor, ...]


def read_header(content: Content) -> Header:
    """Read and check the header. Raises Invalid, which says why, when this is no safetensors file."""
    if content.size_bytes < _LENGTH_BYTES + 2:
        raise Invalid("not safetensors: too short")
    length = int.from_bytes(content.take(0, _LENGTH_BYTES), "little")
    size_bytes = _LENGTH_BYTES + length
    if not 2 <= length <= HEADER_BYTES_MAX or size_bytes > content.size_bytes:
        raise Invalid(f"not safetensors: a header of {length} bytes")
    try:
        entries = json.loads(content.take(_LENGTH_BYTES, length).decode())
    except (ValueError, RecursionError) as error:
        raise Invalid(f"not safetensors: {error}") from error
    if not isinstance(entries, dict):
        raise Invalid("not safetensors: the header is no object")
    entries.pop("__metadata__", None)
    room = content.size_bytes - size_bytes
    found = (_tensor(name, entry, size_bytes, room) for name, entry in entries.items())
    tensors = sorted((item for item in found if item.size_bytes), key=lambda item: item.start)
    end = size_bytes
    for tensor in tensors:
        if tensor.start != end:
            raise Invalid(f"not safetensors: a hole or an overlap before {tensor.name}")
        end += tensor.size_bytes
    if end != content.size_bytes:
        raise Invalid("not safetensors: bytes that belong to no tensor")
    return Header(size_bytes, tuple(tensors))


def _tensor(name: str, entry: Any, header_bytes: int, room: int) -> Tensor:
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (TypeError, KeyError, ValueError) as error:
        raise Invalid(f"not safetensors: {name} has no dtype, shape and data_offsets") from error
    counts = (begin, end, *shape)
    if type(dtype) is not str or any(type(count) is not int or count < 0 for count in counts) or not begin <= end:
        raise Invalid(f"not safetensors: {name} is no tensor")
    if end > room:
        raise Invalid(f"not safetensors: {name} ends behind the file")
    bits = _BITS.get(dtype)
    for count in shape:
        bits = bits * count if bits is not None else None
    if bits is not None and bits != 8 * (end - begin):
        raise Invalid(f"not safetensors: {name} has {end - begin} bytes for its shape")
    return Tensor(name, dtype, shape, header_bytes + begin, end - begin)
