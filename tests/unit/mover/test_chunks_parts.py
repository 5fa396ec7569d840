"""The pieces below a patch: headers, words, cuts, samples, and what they say when an extra is missing."""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from patch_files import applied, noise, patched, safetensors

from crossload.engines.mover.chunks import words
from crossload.engines.mover.chunks.content import Ahead, Content
from crossload.engines.mover.chunks.cutting import CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, Table, cut
from crossload.engines.mover.chunks.packing import STORED, Packer, Way
from crossload.engines.mover.chunks.sampling import SAMPLE_BYTES, pays, sample
from crossload.engines.mover.chunks.tensors import HEADER_BYTES_MAX, read_header
from crossload.ports.errors import Invalid, Unsupported

MIB = 2**20


# -- safetensors -----------------------------------------------------------------------------------------------------


def test_a_header_is_read_in_the_order_of_the_bytes() -> None:
    data = safetensors([("b", "BF16", [2, 3], bytes(12)), ("a", "F64", [], bytes(8)), ("none", "F32", [0], b"")], x="y")
    header = read_header(Content.of(data))
    assert [(item.name, item.dtype, item.shape, item.word_bytes) for item in header.tensors] == [
        ("b", "BF16", (2, 3), 2),
        ("a", "F64", (), 8),
    ]
    assert header.tensors[0].start == header.size_bytes == len(data) - 20
    assert header.tensors[1].start + header.tensors[1].size_bytes == len(data)


def test_types_of_less_than_a_byte_and_of_tomorrow_are_carried() -> None:
    data = safetensors([("q", "F4", [3, 4], bytes(6)), ("r", "F6_E2M3", [4], bytes(3)), ("s", "Q9_NEW", [4], bytes(7))])
    assert [item.word_bytes for item in read_header(Content.of(data)).tensors] == [1, 1, 1]


def broken(entry: Any, tail: bytes = bytes(8)) -> bytes:
    text = json.dumps({"w": entry}).encode() if not isinstance(entry, bytes) else entry
    return len(text).to_bytes(8, "little") + text + tail


GOOD = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "data",
    [
        b"", b"short", bytes(64), (2**62).to_bytes(8, "little") + b"{}", (HEADER_BYTES_MAX + 1).to_bytes(8, "little"),
        broken(b"[1]"), broken(b"{"), broken(b"\xff\xff"), broken(b"[" * 100_000), broken(None), broken([1, 2]),
        broken({**GOOD, "shape": [3]}), broken({**GOOD, "shape": [-2]}), broken({**GOOD, "shape": ["2"]}),
        broken({**GOOD, "shape": [True, 2]}), broken({**GOOD, "shape": 2}), broken({**GOOD, "dtype": 7}),
        broken({**GOOD, "data_offsets": [8, 0]}), broken({**GOOD, "data_offsets": [0, 16]}),
        broken({**GOOD, "data_offsets": [0]}), broken({**GOOD, "data_offsets": [0.0, 8.0]}),
        broken(GOOD, bytes(9)), broken(GOOD, bytes(7)), broken({**GOOD, "data_offsets": [1, 9]}, bytes(9)),
        broken(json.dumps({"a": GOOD, "b": {**GOOD, "data_offsets": [4, 12]}}).encode(), bytes(12)),
    ],
)  # fmt: skip
def test_anything_else_is_told_apart(data: bytes) -> None:
    with pytest.raises(Invalid, match="not safetensors"):
        read_header(Content.of(data))
    assert read_header(Content.of(broken(GOOD))).tensors[0].size_bytes == 8


@given(st.binary(max_size=300))
def test_no_bytes_break_the_header_reader(data: bytes) -> None:
    with pytest.raises(Invalid):
        read_header(Content.of(len(data).to_bytes(8, "little") + data))


# -- words -----------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=200), st.sampled_from([1, 2, 4, 8]))
def test_shuffles_are_undone_and_equal_with_and_without_numpy(data: bytes, width: int) -> None:
    other = bytes(reversed(data))
    fast = [bytes(words.shuffle(data, width)), bytes(words.unshuffle(data, width)), bytes(words.xor(data, other))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "vectorised", lambda: None)
        slow = [bytes(words.shuffle(data, width)), bytes(words.unshuffle(data, width)), bytes(words.xor(data, other))]
        assert bytes(words.unshuffle(words.shuffle(data, width), width)) == data
    assert fast == slow
    assert bytes(words.unshuffle(words.shuffle(data, width), width)) == data
    assert bytes(words.xor(words.xor(data, other), other)) == data


def test_planes_are_what_they_say() -> None:
    assert bytes(words.shuffle(b"aAbBcCx", 2)) == b"abcABCx"
    with pytest.raises(ValueError, match="XOR"):
        words.xor(b"a", b"ab")


def test_a_patch_is_the_same_with_and_without_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = noise(100_000, 1), bytearray(noise(100_000, 1))
    new[::7] = bytes(len(new[::7]))
    base, fresh = safetensors([("w", "F32", [25_000], old)]), safetensors([("w", "F32", [25_000], bytes(new))])
    with_numpy = patched(base, fresh)[1]
    monkeypatch.setattr(words, "vectorised", lambda: None)
    assert patched(base, fresh)[1] == with_numpy
    assert applied(base, with_numpy) == fresh


# -- packing ---------------------------------------------------------------------------------------------------------


def test_the_smallest_way_is_taken() -> None:
    packer, plain = Packer(), noise(200_000, 1)
    near = bytearray(plain)
    near[::20] = bytes(len(near[::20]))
    assert packer.choose(plain, None, (1, 4))[0] == STORED
    assert packer.choose(bytes(100_000), None, (1, 4))[0] == Way()
    assert packer.choose(plain, bytes(near), (1,))[0] == Way(xor=True)
    counting = b"".join(noise(1, n) + b"\1\2\3" for n in range(50_000))
    assert packer.choose(counting, None, (1, 4))[0] == Way(width=4)


def test_a_way_that_no_longer_pays_is_dropped() -> None:
    packer, plain = Packer(), noise(200_000, 1)
    first = packer.pack(bytes(200_000), None, (1,))
    assert first.way == Way()
    second = packer.pack(plain, None, (1,), first)
    assert (second.way, second.frame) == (STORED, plain)
    third = packer.pack(plain, plain[:-1] + b"x", (1,), first)
    assert third.way == Way(xor=True)
    assert packer.pack(plain, None, (1,), third).way == STORED


# -- cuts ------------------------------------------------------------------------------------------------------------


def test_cuts_cover_all_bytes_and_follow_the_content() -> None:
    data = noise(20 * MIB, 4)
    chunks = [(chunk.start, bytes(chunk.data), chunk.sha256()) for chunk in cut(Content.of(data))]
    assert b"".join(piece for _, piece, _ in chunks) == data
    assert [start for start, _, _ in chunks] == [sum(len(p) for _, p, _ in chunks[:n]) for n in range(len(chunks))]
    assert all(CHUNK_BYTES_MIN <= len(piece) <= CHUNK_BYTES_MAX for _, piece, _ in chunks[:-1])
    assert all(digest == hashlib.sha256(piece).digest() for _, piece, digest in chunks)
    moved = {chunk.sha256() for chunk in cut(Content.of(b"in front" + data))}
    assert len({digest for *_, digest in chunks} - moved) <= 2
    inner = [bytes(chunk.data) for chunk in cut(Content.of(data), 5 * MIB, 3 * MIB)]
    assert b"".join(inner) == data[5 * MIB : 8 * MIB]
    assert next(iter(cut(Content.of(data), 5 * MIB, 3 * MIB))).start == 5 * MIB
    assert list(cut(Content.of(b""))) == []


def test_a_cutter_passes_its_readers_error_on() -> None:
    with pytest.raises(Invalid, match="came at"):
        list(cut(Content(lambda _start, _length: b"", 100)))


def test_a_table_takes_no_more_than_it_may() -> None:
    table = Table(2)
    for n in range(3):
        table.add(bytes([n]) * 32, n * 10, 4 * MIB)
    assert [table.find(bytes([n]) * 32, 4 * MIB) for n in range(3)] == [0, 10, None]
    assert table.find(bytes(32), 5) is None


def test_reading_ahead_gives_the_same_bytes() -> None:
    data = noise(MIB, 6)
    ahead = Ahead(Content.of(data))
    for start, length in [(0, 10), (10, 5), (5, 3), (300_000, 400_000), (MIB - 4, 4), (20, 262_144), (0, 0)]:
        assert ahead.take(start, length) == data[start : start + length]
    forward, at = Ahead(Content.of(data)), 0
    for length in [1, 4, 32, 262_140, 300_000, 3, 0, 262_144, 5, 200_000]:
        assert forward.take(at, length) == data[at : at + length]
        at += length
    for start, length in [(MIB - 1, 2), (-1, 2), (MIB, 1), (MIB + 5, 3)]:
        with pytest.raises(Invalid):
            ahead.take(start, length)


# -- whether zstd pays -----------------------------------------------------------------------------------------------


def test_a_sample_is_one_mebibyte_from_all_over() -> None:
    data = bytes(8 * MIB) + noise(8 * MIB, 1)
    asked: list[tuple[int, int]] = []

    def read(start: int, length: int) -> bytes:
        asked.append((start, length))
        return data[start : start + length]

    got = sample(read, len(data))
    assert sum(length for _, length in asked) == SAMPLE_BYTES
    assert (min(asked)[0], max(asked)) == (0, (len(data) - 65536, 65536))
    assert got.ratio is not None
    assert 0.45 < got.ratio < 0.55
    assert got.cpu_s_per_gib is not None
    assert got.cpu_s_per_gib > 0


def test_a_sample_of_little_or_nothing() -> None:
    assert sample(lambda _start, _length: b"", 0) == (None, None)
    ratio = sample(Content.of(b"abc" * 1000).read, 3000).ratio
    assert ratio is not None
    assert ratio < 0.05
    with pytest.raises(Invalid):
        sample(lambda _start, _length: b"", 10)


GBIT = 125e6


@pytest.mark.parametrize(
    "ratio, cpu, link, cores, yes",
    [
        (0.20, 3.1, 2.6 * GBIT, 1, True),  # JSON lines: up to about 2.7 Gbit/s for each core
        (0.20, 3.1, 2.9 * GBIT, 1, False),
        (0.20, 3.1, 5.2 * GBIT, 2, True),
        (0.78, 1.9, 4.0 * GBIT, 1, True),  # bf16 weights
        (0.78, 1.9, 4.6 * GBIT, 1, False),
        (0.90, 1.9, 0.1 * GBIT, 1, True),
        (0.91, 1.9, 0.1 * GBIT, 8, False),  # less than a tenth to save
        (1.20, 0.1, 0.1 * GBIT, 8, False),
        (None, None, 0.1 * GBIT, 8, False),
    ],
)
def test_when_it_pays(ratio: float | None, cpu: float | None, link: float, cores: float, yes: bool) -> None:
    assert pays(ratio, cpu, link, cores) is yes


@pytest.mark.parametrize("link, cores", [(0, 1), (-1, 1), (1, 0)])
def test_no_link_is_no_question(link: float, cores: float) -> None:
    with pytest.raises(ValueError, match="more than zero"):
        pays(0.5, 1.0, link, cores)


# -- without the extra -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["zstandard", "pyfastcdc"])
def test_a_missing_extra_is_told(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    patch = patched(b"old", b"new")[1]
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(Unsupported, match=module) as caught:
        patched(b"old", b"new")
    assert caught.value.hint == "pip install 'crossload[move]'"
    if module == "zstandard":
        with pytest.raises(Unsupported, match=module):
            applied(b"old", patch)
        with pytest.raises(Unsupported, match=module):
            sample(Content.of(b"x").read, 1)
    else:
        assert applied(b"old", patch) == b"new"
        base = safetensors([("w", "U8", [3], b"old")])
        new = safetensors([("w", "U8", [3], b"new")])
        assert applied(base, patched(base, new)[1]) == new
