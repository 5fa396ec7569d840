"""Patches that are cut, flipped, spliced or made by an enemy: an error or the right file, never a wrong one."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from patch_files import Parts, applied, noise, patched, safetensors
from zstandard import ZstdCompressor

from crossload.engines.mover.chunks.container import MAGIC
from crossload.ports.errors import CrossloadError, DigestMismatch, Invalid, Refused, Unsupported

OLD: Parts = [("a", "F32", [100], noise(400, 1)), ("b", "BF16", [300], bytes(600)), ("c", "U8", [90], noise(90, 5))]
NEW: Parts = [OLD[2], ("a", "F32", [100], noise(400, 2)), ("b", "BF16", [300], b"\0\0\1" * 200)]
BASE, FRESH = safetensors(OLD), safetensors(NEW)
PATCHES = [patched(BASE, FRESH, method=method)[1] for method in ("tensors", "chunks")]


def either_right_or_refused(patch: bytes) -> bool:
    """True when it was applied."""
    try:
        assert applied(BASE, patch) == FRESH
    except CrossloadError:
        return False
    return True


@pytest.mark.parametrize("patch", PATCHES, ids=["tensors", "chunks"])
def test_every_truncation_is_told(patch: bytes) -> None:
    assert applied(BASE, patch) == FRESH
    for length in range(len(patch)):
        with pytest.raises(Invalid, match="the patch is damaged") as caught:
            applied(BASE, patch[:length])
        assert "again" in caught.value.hint


@pytest.mark.parametrize("patch", PATCHES, ids=["tensors", "chunks"])
def test_every_flipped_byte_is_told(patch: bytes) -> None:
    for at in range(len(patch)):
        flipped = bytearray(patch)
        flipped[at] ^= 1 << at % 8
        assert not either_right_or_refused(bytes(flipped)), f"byte {at}"


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(PATCHES),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 2000), st.binary(max_size=20)), min_size=1, max_size=4),
)
def test_no_splice_gives_a_wrong_file(patch: bytes, cuts: list[tuple[int, int, bytes]]) -> None:
    for start, length, put in cuts:
        patch = patch[:start] + put + patch[start + length :]
    either_right_or_refused(patch)


def test_records_of_two_patches_do_not_mix() -> None:
    """Each record keeps its digest; what they make together does not have the end's."""
    other = patched(BASE, safetensors([*NEW[:2], ("b", "BF16", [300], b"\0\0\2" * 200)]))[1]
    ours = PATCHES[0]
    assert len(other) == len(ours)
    tail = ours.rindex(b'{"new":{"sha256"') - 37
    with pytest.raises(DigestMismatch):
        applied(BASE, other[:tail] + ours[tail:])


def test_more_behind_the_end_is_told() -> None:
    with pytest.raises(Invalid, match="behind its end"):
        applied(BASE, PATCHES[0] + b"\0")


# -- made by an enemy: every digest is right -------------------------------------------------------------------------


def record(kind: bytes, told: Any, *frames: bytes) -> bytes:
    text = told if isinstance(told, bytes) else json.dumps(told).encode()
    return kind + len(text).to_bytes(4, "little") + hashlib.sha256(text).digest() + text + b"".join(frames)


def head(size: Any, **more: Any) -> bytes:
    base = {"size": len(BASE), "sha256": hashlib.sha256(BASE).hexdigest()}
    told = {"method": "chunks", "base": base, "new": {"size": size}} | more
    return MAGIC + (1).to_bytes(4, "little") + record(b"H", told)


def end(data: bytes = b"", operations: Any = 1) -> bytes:
    return record(b"E", {"new": {"sha256": hashlib.sha256(data).hexdigest()}, "operations": operations})


def frame(data: bytes, **more: Any) -> dict[str, Any]:
    return {"size": 100, "frame": len(data), "sha256": hashlib.sha256(data).hexdigest()} | more


def page(operation: Any, *frames: bytes) -> bytes:
    return record(b"P", {"operations": [operation]}, *frames)


PLAIN = bytes(range(100))
ZERO = ZstdCompressor(level=1).compress(bytes(100))
BOMB = ZstdCompressor(level=1).compress(bytes(200 * 2**20))
UNSIZED = ZstdCompressor(level=1, write_content_size=False).compress(bytes(100))


def test_the_builder_of_enemies_can_be_honest() -> None:
    assert applied(BASE, head(100) + page(frame(PLAIN), PLAIN) + end(PLAIN)) == PLAIN
    assert applied(BASE, head(100) + page(frame(ZERO, zstd=True), ZERO) + end(bytes(100))) == bytes(100)
    assert applied(BASE, head(100) + page({"size": 100, "base": 3}) + end(BASE[3:103])) == BASE[3:103]


ENEMIES: dict[str, Callable[[], bytes]] = {
    "bomb": lambda: head(100) + page(frame(BOMB, zstd=True, size=100), BOMB) + end(bytes(100)),
    "large bomb": lambda: head(2**40) + page(frame(BOMB, zstd=True, size=200 * 2**20), BOMB) + end(),
    "no size in the frame": lambda: head(100) + page(frame(UNSIZED, zstd=True), UNSIZED) + end(bytes(100)),
    "two frames": lambda: head(100) + page(frame(ZERO * 2, zstd=True), ZERO * 2) + end(bytes(100)),
    "no zstd": lambda: head(100) + page(frame(PLAIN, zstd=True), PLAIN) + end(PLAIN),
    "cut zstd": lambda: head(100) + page(frame(ZERO[:-1], zstd=True), ZERO[:-1]) + end(bytes(100)),
    "behind the base": lambda: head(100) + page({"size": 100, "base": len(BASE) - 99}) + end(),
    "before the base": lambda: head(100) + page({"size": 100, "base": -1}) + end(),
    "huge place": lambda: head(100) + page({"size": 100, "base": 2**70}) + end(),
    "more than said": lambda: head(99) + page({"size": 100, "base": 0}) + end(BASE[:100]),
    "less than said": lambda: head(101) + page({"size": 100, "base": 0}) + end(BASE[:100]),
    "no operations": lambda: head(0) + record(b"P", {"operations": []}) + end(b"", 0),
    "too many": lambda: head(9999) + record(b"P", {"operations": [{"size": 1, "base": 0}] * 3000}) + end(b"", 3000),
    "wrong count": lambda: head(100) + page({"size": 100, "base": 0}) + end(BASE[:100], 2),
    "nothing of nothing": lambda: head(100) + page({"size": 100}) + end(),
    "size zero": lambda: head(100) + page({"size": 0, "base": 0}) + end(),
    "size true": lambda: head(1) + page({"size": True, "base": 0}) + end(BASE[:1]),
    "size text": lambda: head(100) + page({"size": "100", "base": 0}) + end(),
    "size float": lambda: head(100) + page({"size": 100.0, "base": 0}) + end(BASE[:100]),
    "width three": lambda: head(100) + page(frame(PLAIN, width=3), PLAIN) + end(PLAIN),
    "width list": lambda: head(100) + page(frame(PLAIN, width=[2]), PLAIN) + end(PLAIN),
    "zstd a word": lambda: head(100) + page(frame(PLAIN, zstd="yes"), PLAIN) + end(PLAIN),
    "frame longer than its bytes": lambda: head(50) + page(frame(PLAIN, size=50), PLAIN) + end(PLAIN[:50]),
    "digest no hex": lambda: head(100) + page(frame(PLAIN, sha256="../" * 21 + "x"), PLAIN) + end(PLAIN),
    "digest of another frame": lambda: head(100) + page(frame(PLAIN), PLAIN[::-1]) + end(PLAIN),
    "operation a list": lambda: head(100) + page([100, 0]) + end(),
    "page a list": lambda: head(100) + record(b"P", []) + end(),
    "no json": lambda: head(100) + record(b"P", b"{") + end(),
    "no utf-8": lambda: head(100) + record(b"P", b'"\xff"') + end(),
    "deep json": lambda: head(100) + record(b"P", b"[" * 100_000) + end(),
    "long number": lambda: head(100) + record(b"P", b'{"operations":[{"size":' + b"9" * 5000 + b"}]}") + end(),
    "unknown record": lambda: head(100) + record(b"X", {}) + end(),
    "a second head": lambda: head(100) + head(100)[12:] + end(),
    "no head": lambda: MAGIC + (1).to_bytes(4, "little") + end(),
    "head without base": lambda: head(100, base=None) + end(),
    "head with a negative size": lambda: head(-1) + end(),
    "head with a size of text": lambda: head("1") + end(),
    "end without digest": lambda: head(0) + record(b"E", {"operations": 0}),
    "huge record": lambda: head(100) + b"P" + (2**32 - 1).to_bytes(4, "little") + bytes(32),
    "not ours": lambda: b"PK\3\4" + bytes(100),
    "empty": lambda: b"",
}  # fmt: skip


@pytest.mark.parametrize("name", ENEMIES)
def test_an_enemys_patch_is_refused(name: str) -> None:
    patch = ENEMIES[name]()
    tracemalloc.start()
    try:
        with pytest.raises(Invalid):
            applied(BASE, patch, new_size_bytes_max=2**50)
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    finally:
        tracemalloc.stop()


def test_a_small_patch_makes_no_endless_file() -> None:
    """References cost nothing: the sum is bounded before the first byte is written."""
    with pytest.raises(Refused, match="allowed"):
        applied(BASE, head(2**50) + page({"size": len(BASE), "base": 0}) + end())


def test_a_later_version_or_method_is_told_apart_from_damage() -> None:
    with pytest.raises(Unsupported, match="version 2"):
        applied(BASE, MAGIC + (2).to_bytes(4, "little") + end())
    with pytest.raises(Unsupported, match="method"):
        applied(BASE, head(0, method="sorcery") + end(b"", 0))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2000) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
ODD = st.dictionaries(st.sampled_from(["size", "base", "frame", "sha256", "zstd", "width"]), VALUES)


@settings(max_examples=300, deadline=None)
@given(VALUES | ODD.map(lambda told: frame(PLAIN) | told), VALUES, VALUES)
def test_no_signed_nonsense_ends_in_another_error(operation: Any, size: Any, count: Any) -> None:
    for patch in (
        head(100) + page(operation, PLAIN) + end(PLAIN),
        head(size) + page(frame(PLAIN), PLAIN) + end(PLAIN),
        head(100) + page(frame(PLAIN), PLAIN) + end(PLAIN, count),
    ):
        try:
            assert applied(BASE, patch) in (PLAIN, BASE[:100])
        except CrossloadError:
            pass
