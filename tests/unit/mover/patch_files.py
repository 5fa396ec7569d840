"""Small safetensors files and patches of them, for the tests of chunks."""

from __future__ import annotations

import json
import random
from typing import Any

from crossload.engines.mover.chunks.content import Content
from crossload.engines.mover.chunks.patch import PatchReport, apply_patch, make_patch

Parts = list[tuple[str, str, list[int], bytes]]


def safetensors(parts: Parts, **metadata: str) -> bytes:
    """(name, dtype, shape, bytes) in the order in which they lie in the file."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    at = 0
    for name, dtype, shape, data in parts:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(data for *_, data in parts)


def noise(size_bytes: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size_bytes)


def patched(base: bytes, new: bytes, **options: Any) -> tuple[PatchReport, bytes]:
    out: list[bytes] = []
    report = make_patch(Content.of(base), Content.of(new), out.append, **options)
    return report, b"".join(out)


def applied(base: bytes, patch: bytes, **options: Any) -> bytes:
    out: list[bytes] = []
    apply_patch(Content.of(base), Content.of(patch), out.append, **options)
    return b"".join(out)
