"""What a GGUF model file says about itself, from its header only. Source: the GGUF specification, version 3.

magic "GGUF", version u32, tensor count u64, key count u64, then keys: name (u64 length), type u32, value"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossload.ports.errors import Invalid

Read = Callable[[int, int], bytes]  # offset, length -> at most that many bytes
_CHUNK_BYTES = 4 * 2**20
_HEADER_BYTES_MAX = 256 * 2**20
_ARRAYS_KEPT_MAX = 64
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 32: "BF16",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class GgufInfo:
    """None or "" where the file does not say. `template_sha256` is of the chat template's text, `tokenizer_sha256` of
    the tokenizer's own keys as they stand in the file."""

    architecture: str
    name: str
    context: int | None
    quantisation: str
    parameters: int | None
    template_sha256: str
    tokenizer_sha256: str
    tensors: int


def read_gguf(path: Path) -> GgufInfo:
    """Raises Invalid when it is no GGUF file, OSError."""
    with path.open("rb") as file:

        def read(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)

        return parse_gguf(read)


def parse_gguf(read: Read) -> GgufInfo:
    """From any ranged reader, so that an artifact in a bucket needs not be downloaded whole."""
    cursor = _Cursor(read)
    if cursor.take(4) != b"GGUF":
        raise Invalid("not a GGUF file")
    version, tensors, count = cursor.number("<I"), cursor.number("<Q"), cursor.number("<Q")
    if version not in (2, 3):
        raise Invalid(f"GGUF version {version} is not known")
    keys: dict[str, Any] = {}
    tokenizer = hashlib.sha256()
    for _ in range(count):
        start = cursor.offset
        name = cursor.text()
        keys[name] = cursor.value(cursor.number("<I"))
        if name.startswith("tokenizer.ggml."):
            tokenizer.update(cursor.since(start))
        cursor.forget()
    architecture = str(keys.get("general.architecture", ""))
    template = keys.get("tokenizer.chat_template")
    file_type = keys.get("general.file_type")
    return GgufInfo(
        architecture=architecture,
        name=str(keys.get("general.name", "")),
        context=keys.get(f"{architecture}.context_length"),
        quantisation="" if file_type is None else _FILE_TYPES.get(file_type, f"type {file_type}"),
        parameters=keys.get("general.parameter_count"),
        template_sha256="" if template is None else hashlib.sha256(str(template).encode()).hexdigest(),
        tokenizer_sha256=tokenizer.hexdigest() if "tokenizer.ggml.model" in keys else "",
        tensors=tensors,
    )


class _Cursor:
    """Walks the header; keeps the bytes of the key that is being read, so that they can be hashed."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._data = b""
        self._base = 0
        self.offset = 0

    def take(self, length: int) -> bytes:
        if length < 0 or self.offset + length > _HEADER_BYTES_MAX:
            raise Invalid("the GGUF header has no end")
        end = self.offset + length - self._base
        while len(self._data) < end:
            more = self._read(self._base + len(self._data), max(_CHUNK_BYTES, end - len(self._data)))
            if not more:
                raise Invalid("the GGUF header is cut short")
            self._data += more
        found = self._data[self.offset - self._base : end]
        self.offset += length
        return found

    def since(self, offset: int) -> bytes:
        return self._data[offset - self._base : self.offset - self._base]

    def forget(self) -> None:
        if self.offset - self._base > _CHUNK_BYTES:
            self._data = self._data[self.offset - self._base :]
            self._base = self.offset

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self) -> str:
        return self.take(self.number("<Q")).decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            raise Invalid(f"unknown GGUF value type {kind}")
        inner, count = self.number("<I"), self.number("<Q")
        if inner in _SCALARS:
            self.take(struct.calcsize(_SCALARS[inner]) * count)
            return None
        found = [self.value(inner) for _ in range(count)]
        return found if count <= _ARRAYS_KEPT_MAX else None
