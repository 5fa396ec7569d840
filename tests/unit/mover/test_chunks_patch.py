"""Patches between two versions of a file: exact, small, and for the right base only."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import pickle
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patch_files import Parts, applied, noise, patched, safetensors

from crossload.engines.mover.chunks import patch as patching
from crossload.engines.mover.chunks.content import Content
from crossload.engines.mover.chunks.patch import apply_patch, make_patch
from crossload.ports.errors import DigestMismatch, Invalid, PreconditionFailed, Refused, Unsupported

MIB = 2**20


def weights(count: int, seed: int) -> tuple[bytes, bytes]:
    """bf16 words, and the same after a full fine-tune: 31.5 % of them differ."""
    chance = np.random.default_rng(seed)
    plain = chance.standard_normal(count, dtype="f4") * np.float32(0.02)
    moved = plain * (np.float32(1) + np.float32(0.00222) * chance.standard_normal(count, dtype="f4"))

    def bf16(values: Any) -> bytes:
        bits = values.astype("<f4").view("<u4")
        return (((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")).tobytes()

    return bf16(plain), bf16(moved)


@pytest.mark.parametrize("method", ["tensors", "chunks"])
def test_a_full_fine_tune_is_a_quarter_or_less(method: str) -> None:
    pairs = [weights(2 * MIB, seed) for seed in range(2)]
    words = [np.frombuffer(side, "u2") for side in pairs[0]]
    assert 0.30 < np.mean(words[0] != words[1]) < 0.33
    base, new = (
        safetensors([(f"l{n}", "BF16", [2 * MIB], pair[side]) for n, pair in enumerate(pairs)]) for side in (0, 1)
    )
    report, patch = patched(base, new, method=method)
    assert applied(base, patch) == new
    assert report.method == method
    assert report.share is not None
    assert 0.05 < report.share <= 0.25
    assert report.patch_size_bytes == len(patch)
    assert report.xored_bytes >= 4 * MIB


def test_what_stays_what_changes_what_comes_and_what_goes() -> None:
    old: Parts = [
        ("a.same", "F32", [65536], noise(262144, 1)),
        ("b.nudged", "F32", [65536], noise(262144, 2)),
        ("c.gone", "F16", [128], noise(256, 3)),
        ("d.retyped", "F32", [64], noise(256, 4)),
        ("e.grown", "U8", [200_000], noise(200_000, 5)),
    ]
    nudged = bytearray(old[1][3])
    nudged[1000] ^= 1
    fresh: Parts = [
        ("z.first", "U8", [5], b"fresh"),
        ("e.grown", "U8", [200_004], noise(200_000, 5) + b"more"),
        ("b.nudged", "F32", [65536], bytes(nudged)),
        ("d.retyped", "F16", [128], noise(256, 4)),
        ("a.same", "F32", [65536], noise(262144, 1)),
        ("empty", "F32", [0, 7], b""),
    ]
    base, new = safetensors(old), safetensors(fresh, note="another header")
    report, patch = patched(base, new)
    assert applied(base, patch) == new
    assert (report.tensors_unchanged, report.tensors_changed, report.tensors_reshaped) == (1, 1, 2)
    assert (report.tensors_new, report.tensors_removed) == (1, 1)
    assert report.copied_bytes + report.xored_bytes + report.fresh_bytes == report.new_size_bytes == len(new)
    assert report.base_sha256 == hashlib.sha256(base).hexdigest()
    assert report.new_sha256 == hashlib.sha256(new).hexdigest()
    assert len(patch) < 4000
    assert json.loads(json.dumps(report.to_json()))["method"] == "tensors"


def test_a_renamed_model_is_referenced() -> None:
    old: Parts = [(f"layer{n}", "BF16", [65536], noise(131072, n)) for n in range(5)]
    base = safetensors(old)
    new = safetensors([(f"model.{name}", dtype, shape, data) for name, dtype, shape, data in old])
    report, patch = patched(base, new)
    assert applied(base, patch) == new
    assert (report.tensors_new, report.tensors_removed, report.copied_bytes) == (5, 5, 5 * 131072)
    assert len(patch) < 2000


def test_an_equal_file_is_one_reference() -> None:
    base = safetensors([("w", "F32", [2**18], noise(MIB))])
    report, patch = patched(base, base)
    assert applied(base, patch) == base
    assert (report.operations, report.copied_bytes) == (1, len(base))
    assert len(patch) < 600


def test_a_mebibyte_inserted_costs_about_a_mebibyte() -> None:
    data, extra = noise(24 * MIB, 1), noise(MIB, 2)
    new = data[: 10 * MIB + 77] + extra + data[10 * MIB + 77 :]
    report, patch = patched(data, new)
    assert report.method == "chunks"
    assert applied(data, patch) == new
    assert MIB <= len(patch) < 4 * MIB
    rows = 24 * 1024
    old: Parts = [("emb", "U8", [rows, 1024], data), ("head", "U8", [4096], noise(4096, 3))]
    grown: Parts = [("emb", "U8", [rows + 1024, 1024], new), old[1]]
    report, patch = patched(safetensors(old), safetensors(grown))
    assert applied(safetensors(old), patch) == safetensors(grown)
    assert (report.method, report.tensors_reshaped) == ("tensors", 1)
    assert MIB <= len(patch) < 4 * MIB


def test_rewritten_after_an_insertion_is_compared_at_the_moved_place() -> None:
    """Unknown formats keep their layout: bytes behind an insertion are packed against those that they come from."""
    data, extra = noise(16 * MIB, 1), noise(MIB, 2)
    tail = bytearray(data[10 * MIB :])
    tail[::50_000] = bytes(byte ^ 1 for byte in tail[::50_000])
    new = data[: 4 * MIB] + extra + data[4 * MIB : 10 * MIB] + bytes(tail)
    report, patch = patched(data, new)
    assert applied(data, patch) == new
    assert report.xored_bytes > 5 * MIB
    assert len(patch) < 4 * MIB


@pytest.mark.parametrize("base", [b"", b"x", noise(300_000)])
@pytest.mark.parametrize("new", [b"", b"y", noise(300_000), noise(200_000, 9)])
def test_files_of_any_size(base: bytes, new: bytes) -> None:
    report, patch = patched(base, new)
    assert applied(base, patch) == new
    assert (report.share is None) == (not new)


# -- random files ----------------------------------------------------------------------------------------------------

WORDS = {"F32": 4, "BF16": 2, "U8": 1, "F64": 8, "F8_E4M3": 1}


@st.composite
def files(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A base, and a new version of it by a few edits; now and then one of the two is no safetensors at all."""

    def tensor(name: str) -> tuple[str, str, list[int], bytes]:
        dtype = draw(st.sampled_from(sorted(WORDS)))
        shape = draw(st.lists(st.integers(0, 9), max_size=2))
        count = WORDS[dtype]
        for side in shape:
            count *= side
        return name, dtype, shape, draw(st.binary(min_size=count, max_size=count))

    names = draw(st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=5))
    old = [tensor(name) for name in names]
    fresh: Parts = []
    for name, dtype, shape, data in draw(st.permutations(old)):
        match draw(st.sampled_from(["keep", "flip", "drop", "rename", "replace"])):
            case "keep":
                fresh.append((name, dtype, shape, data))
            case "flip" if data:
                flipped = bytearray(data)
                flipped[draw(st.integers(0, len(data) - 1))] ^= draw(st.integers(1, 255))
                fresh.append((name, dtype, shape, bytes(flipped)))
            case "rename":
                fresh.append((f"x.{name}", dtype, shape, data))
            case "replace":
                fresh.append(tensor(name))
            case _:
                pass
    base, new = safetensors(old), safetensors(fresh, **draw(st.sampled_from([{}, {"note": "n"}])))
    cut = draw(st.sampled_from(["", "", "base", "new"]))
    return (base[:-1] if cut == "base" else base), (new[:-1] if cut == "new" else new)


@pytest.fixture
def tiny_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few bytes, so that small files have many."""
    monkeypatch.setattr(patching, "BLOCK_BYTES", 48)
    monkeypatch.setattr(patching, "PIECE_BYTES_MAX", 20)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files())
@pytest.mark.usefixtures("tiny_blocks")
def test_any_two_files_are_carried_exactly(pair: tuple[bytes, bytes]) -> None:
    base, new = pair
    for method in ("", "chunks"):
        report, patch = patched(base, new, method=method)
        assert applied(base, patch) == new
        assert report.copied_bytes + report.xored_bytes + report.fresh_bytes == len(new)


# -- the right base, and no other ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[bytes, bytes, bytes]]:
    old: Parts = [("a", "F32", [1000], noise(4000, 1)), ("b", "F32", [1000], noise(4000, 2))]
    new: Parts = [old[1], ("a", "F32", [1000], noise(4000, 3))]
    base, fresh = safetensors(old), safetensors(new)
    yield base, fresh, patched(base, fresh)[1]


def test_another_base_is_refused_before_the_first_byte(pair: tuple[bytes, bytes, bytes]) -> None:
    base, _, patch = pair
    wrong = bytearray(base)
    wrong[-1] ^= 1
    for other in (bytes(wrong), base[:-1], base + b"x", b""):
        out: list[bytes] = []
        with pytest.raises(PreconditionFailed, match="another"):
            apply_patch(Content.of(other), Content.of(patch), out.append)
        assert out == []
    with pytest.raises(PreconditionFailed):
        applied(base, patch, base_sha256="0" * 64)


def test_a_base_that_changes_meanwhile_gives_an_error(pair: tuple[bytes, bytes, bytes]) -> None:
    base, _, patch = pair
    wrong = bytes(byte ^ 1 for byte in base)
    with pytest.raises(DigestMismatch, match="sha256"):
        applied(wrong, patch, base_sha256=hashlib.sha256(base).hexdigest())


def test_a_patch_made_of_a_base_that_changed_meanwhile_gives_an_error(pair: tuple[bytes, bytes, bytes]) -> None:
    base, new, _ = pair
    reads = iter(range(10**6))

    def read(start: int, length: int) -> bytes:
        data = base[start : start + length]
        return bytes(byte ^ 1 for byte in data) if next(reads) > 2 else data

    out: list[bytes] = []
    make_patch(Content(read, len(base)), Content.of(new), out.append)
    with pytest.raises(DigestMismatch):
        applied(base, b"".join(out))


def test_what_the_caller_trusts_more_is_heard(pair: tuple[bytes, bytes, bytes]) -> None:
    base, new, patch = pair
    sha256 = hashlib.sha256(new).hexdigest()
    assert applied(base, patch, new_sha256=sha256, new_size_bytes_max=len(new)) == new
    with pytest.raises(Refused, match="expected"):
        applied(base, patch, new_sha256="0" * 64)
    with pytest.raises(Refused, match="allowed"):
        applied(base, patch, new_size_bytes_max=len(new) - 1)


def test_a_reader_that_gives_too_little_is_told(pair: tuple[bytes, bytes, bytes]) -> None:
    base, new, patch = pair
    short = Content(lambda start, length: base[start : start + length - 1], len(base))
    with pytest.raises(Invalid, match="bytes came at"):
        make_patch(short, Content.of(new), lambda _: None)
    with pytest.raises(Invalid, match="bytes came at"):
        apply_patch(short, Content.of(patch), lambda _: None)


def test_a_method_that_does_not_fit_is_told() -> None:
    with pytest.raises(Invalid, match="not safetensors"):
        patched(b"old", b"new", method="tensors")
    with pytest.raises(Unsupported, match="nonsense"):
        patched(b"old", b"new", method="nonsense")


# -- costs -----------------------------------------------------------------------------------------------------------


class Counted:
    """A file of tensors that exists as one tile; counts what is read of it."""

    def __init__(self, header: bytes, tile: bytes, size_bytes: int) -> None:
        self._header, self._tile = header, tile + tile
        self.content = Content(self._read, len(header) + size_bytes)
        self.read_bytes = self.reads = 0

    def _read(self, start: int, length: int) -> bytes:
        self.read_bytes += length
        self.reads += 1
        head, at = self._header[start : start + length], max(0, start - len(self._header))
        out = bytearray(head)
        while len(out) < length:
            step = at % (len(self._tile) // 2)
            piece = self._tile[step : step + min(length - len(out), len(self._tile) // 2)]
            out += piece
            at += len(piece)
        return bytes(out)


@pytest.mark.parametrize("method", ["tensors", "chunks"])
def test_memory_stays_flat(method: str, tmp_path: Path) -> None:
    """96 MiB of tensors, all changed, through at most 48 MiB (64 are allowed for files of any size)."""
    count, size = 3, 32 * MIB
    entries = {
        f"t{n}": {"dtype": "BF16", "shape": [size // 2], "data_offsets": [n * size, (n + 1) * size]}
        for n in range(count)
    }
    text = json.dumps(entries).encode()
    header = len(text).to_bytes(8, "little") + text
    one, two = weights(3_000_000, 1)
    base, new = Counted(header, one, count * size), Counted(header, two, count * size)
    path, result = tmp_path / "patch", tmp_path / "new"
    tracemalloc.start()
    try:
        with path.open("wb") as out:
            make_patch(base.content, new.content, out.write, method=method)
        made = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        read = base.read_bytes, new.read_bytes
        with path.open("rb") as patch, result.open("wb") as out:

            def ranged(start: int, length: int) -> bytes:
                patch.seek(start)
                return patch.read(length)

            apply_patch(base.content, Content(ranged, path.stat().st_size), out.write)
        used = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert made < 48 * MIB
    assert used < 24 * MIB
    assert read[0] <= 2 * base.content.size_bytes + 2 * MIB
    assert read[1] <= new.content.size_bytes + MIB
    assert path.stat().st_size < 0.25 * new.content.size_bytes


def test_many_small_tensors_cost_few_reads() -> None:
    parts: Parts = [(f"norm{n}", "F32", [64], noise(256, n)) for n in range(2000)]
    moved: Parts = [(name, dtype, shape, data[:-1] + b"x") for name, dtype, shape, data in parts]
    base, new = Counted(safetensors(parts), b"x", 0), Counted(safetensors(moved), b"x", 0)
    out: list[bytes] = []
    make_patch(base.content, new.content, out.append)
    assert base.reads + new.reads < 20
    patch = Counted(b"".join(out), b"x", 0)
    apply_patch(base.content, patch.content, lambda _: None)
    assert base.reads + patch.reads < 40


@pytest.mark.parametrize("method", ["tensors", "chunks"])
def test_a_patch_can_be_applied_as_it_arrives(method: str) -> None:
    """Each byte of it is asked for once, in order: whoever has a stream needs no file for it."""
    one, two = weights(3 * MIB, 2)
    base = safetensors([("w", "BF16", [3 * MIB], one), ("v", "U8", [5], b"hello")])
    new = safetensors([("v", "U8", [5], b"hullo"), ("w", "BF16", [3 * MIB], two)])
    stream = io.BytesIO(patched(base, new, method=method)[1])
    size = len(stream.getbuffer())

    def read(start: int, length: int) -> bytes:
        assert start == stream.tell()
        return stream.read(length)

    out: list[bytes] = []
    apply_patch(Content.of(base), Content(read, size), out.append)
    assert b"".join(out) == new


# -- pickles ---------------------------------------------------------------------------------------------------------


class Bite:
    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, ("bitten", "w")


def test_a_pickle_is_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    base, new = pickle.dumps([Bite(), 1]), pickle.dumps([Bite(), 2])
    assert applied(base, patched(base, new)[1]) == new
    assert list(tmp_path.iterdir()) == []


def test_nothing_here_can_load_a_pickle() -> None:
    folder = Path(patching.__file__).parent
    named = {
        name.split(".")[0]
        for path in folder.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert not named & {"pickle", "torch", "joblib", "dill", "marshal", "shelve", "safetensors"}
    assert "hashlib" in named
