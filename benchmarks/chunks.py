"""How small a patch between two checkpoints is, and what it costs, against zstd alone and FastCDC alone.

    python benchmarks/chunks.py [--tensors 24] [--tensor-mib 8] [--memory-mib 768]

Writes benchmarks/results/chunks.json and prints the table. All peers run here, in the same process, on the same bytes.
CPU is the process's own time, which a busy machine slows less than the clock on the wall."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from rows import Row, row, write

from crossload.engines.mover.chunks.content import Content
from crossload.engines.mover.chunks.cutting import cut
from crossload.engines.mover.chunks.packing import compressor
from crossload.engines.mover.chunks.patch import apply_patch, make_patch
from crossload.engines.mover.chunks.sampling import pays, sample

GIB = 2**30
NUDGED_SHARE = 0.315  # of the words of a checkpoint differ after a full fine-tune
COLUMNS = 1024
SHARE = "% of bytes"


# -- checkpoints -----------------------------------------------------------------------------------------------------


def bf16(weights: Any) -> Any:
    """Rounded to nearest even, as training does it."""
    bits = weights.astype("<f4").view("<u4")
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def nudged(weights: Any, noise: Any, *, relative: bool) -> Any:
    """The weights moved so far that NUDGED_SHARE of their bf16 words differ; the step is found by halving."""

    def by(step: float, every: int = 1) -> Any:
        some, moves = weights[::every], noise[::every] * np.float32(step)
        return bf16(some * (1 + moves) if relative else some + moves)

    before, low, high = bf16(weights[::16]), 0.0, 0.1
    for _ in range(18):
        step = (low + high) / 2
        low, high = (step, high) if np.mean(before != by(step, 16)) < NUDGED_SHARE else (low, step)
    return by(high)


def write_safetensors(path: Path, rows: dict[str, int], words_of: Callable[[str], Any], note: str = "") -> Path:
    """`rows` of 1,024 bf16 words for each name; one tensor at a time is in memory."""
    header: dict[str, Any] = {"__metadata__": {"note": note}} if note else {}
    at = 0
    for name, count in rows.items():
        header[name] = {"dtype": "BF16", "shape": [count, COLUMNS], "data_offsets": [at, at + 2 * count * COLUMNS]}
        at += 2 * count * COLUMNS
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for name in rows:
            out.write(words_of(name).tobytes())
    return path


def drawn(seed: str, rows: int) -> Any:
    """The same normal float32 numbers for the same seed."""
    return np.random.default_rng(list(seed.encode())).standard_normal((rows, COLUMNS), dtype="f4")


@contextmanager
def opened(path: Path) -> Iterator[Content]:
    handle = os.open(path, os.O_RDONLY)
    try:
        yield Content(lambda start, length: os.pread(handle, length, start), path.stat().st_size)
    finally:
        os.close(handle)


# -- what is measured ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Made:
    share: float  # percent of the new file
    make_cpu: float  # seconds per GiB of the new file
    apply_cpu: float


def ours(base: Path, new: Path, method: str = "") -> Made:
    """Make the patch, apply it, and compare the bytes: a patch that is not exact ends the benchmark."""
    patch, result = base.with_suffix(".patch"), base.with_suffix(".result")
    with opened(base) as old, opened(new) as fresh, patch.open("wb") as out:
        began = time.process_time()
        report = make_patch(old, fresh, out.write, method=method)
        make_cpu = time.process_time() - began
    with opened(base) as old, opened(patch) as small, result.open("wb") as out:
        began = time.process_time()
        sha256 = apply_patch(old, small, out.write)
        apply_cpu = time.process_time() - began
    with result.open("rb") as one, new.open("rb") as two:
        digests = {hashlib.file_digest(one, "sha256").hexdigest(), hashlib.file_digest(two, "sha256").hexdigest()}
    if digests != {sha256}:
        raise SystemExit(f"{new.name}: the patch is not exact")
    gib = report.new_size_bytes / GIB
    made = Made(100 * patch.stat().st_size / report.new_size_bytes, make_cpu / gib, apply_cpu / gib)
    patch.unlink()
    result.unlink()
    return made


def zstd_alone(new: Path) -> tuple[float, float]:
    """(percent of the bytes, CPU seconds per GiB) of zstd -1 over the new file."""
    zstd, size = compressor().compressobj(), 0
    began = time.process_time()
    with opened(new) as content:
        for block in content.blocks():
            size += len(zstd.compress(block))
        size += len(zstd.flush())
        took = time.process_time() - began
        return 100 * size / content.size_bytes, took / content.size_bytes * GIB


def fastcdc_alone(base: Path, new: Path) -> tuple[float, float]:
    """(percent of the bytes in chunks that the base has not, CPU seconds per GiB cut and hashed)."""
    began = time.process_time()
    with opened(base) as old, opened(new) as fresh:
        known = {chunk.sha256() for chunk in cut(old)}
        missing = sum(len(chunk.data) for chunk in cut(fresh) if chunk.sha256() not in known)
        took = time.process_time() - began
        return 100 * missing / fresh.size_bytes, took / (old.size_bytes + fresh.size_bytes) * GIB


def zstd_patch_from(base: Path, new: Path) -> float | None:
    """Percent of the bytes of `zstd -1 --patch-from`; None without the program."""
    if not shutil.which("zstd"):
        return None
    out = new.with_suffix(".zst")
    command = ["zstd", "-1", "-q", "-f", "--long=31", f"--patch-from={base}", str(new), "-o", str(out)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        return None
    share = 100 * out.stat().st_size / new.stat().st_size
    out.unlink()
    return share


_CHILD = """
import os, sys
from pathlib import Path
from crossload.engines.mover.chunks import cutting, packing, patch, words
from crossload.engines.mover.chunks.content import Content
words.vectorised(), packing.Unpacker(), cutting._cutter()
def peak():
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1024
def content(path):
    handle = os.open(path, os.O_RDONLY)
    return Content(lambda start, length: os.pread(handle, length, start), os.stat(path).st_size)
begun, (base, new, method, verb, to) = peak(), sys.argv[1:]
with open(to, "wb") as out:
    if verb == "make":
        patch.make_patch(content(base), content(new), out.write, method=method)
    else:
        patch.apply_patch(content(base), content(new), out.write)
print(peak() - begun)
"""


def memory(base: Path, new: Path, method: str) -> tuple[float, float]:
    """(make, apply): MiB of resident memory at the peak, above what the process had after its imports."""
    grown: list[float] = []
    patch, result = base.with_suffix(".patch"), base.with_suffix(".result")
    for verb, first, second, to in (("make", base, new, patch), ("apply", base, patch, result)):
        command = [sys.executable, "-c", _CHILD, str(first), str(second), method, verb, str(to)]
        grown.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    patch.unlink()
    result.unlink()
    return grown[0], grown[1]


# -- the runs --------------------------------------------------------------------------------------------------------


def shares(folder: Path, tensors: int, rows_each: int) -> list[Row]:
    layers = {f"layers.{n}.weight": rows_each for n in range(tensors)}
    base, new = folder / "base", folder / "new"

    def weights(name: str) -> Any:
        return drawn(name, rows_each) * np.float32(0.02)

    write_safetensors(base, layers, lambda name: bf16(weights(name)))
    rows: list[Row] = []
    for kind, relative in (("in proportion to the weight", True), ("of one size", False)):
        differ: list[float] = []

        def moved(name: str, relative: bool = relative, differ: list[float] = differ) -> Any:
            after = nudged(weights(name), drawn(f"{name} moved", rows_each), relative=relative)
            differ.append(float(np.mean(bf16(weights(name)) != after)))
            return after

        write_safetensors(new, layers, moved)
        name = f"full fine-tune, {100 * sum(differ) / tensors:.1f} % of the words differ, steps {kind}"
        made, zstd, chunks = ours(base, new), zstd_alone(new), fastcdc_alone(base, new)
        rows.append(row(f"{name}: patch", made.share, SHARE, "zstd -1 alone", zstd[0], most=25))
        rows.append(row(f"{name}: patch", made.share, SHARE, "FastCDC alone", chunks[0], most=25))
        rows.append(row(f"{name}: patch", made.share, SHARE, "zstd -1 --patch-from", zstd_patch_from(base, new)))
        opaque = ours(base, new, "chunks")
        rows.append(row(f"{name}: by chunks", opaque.share, SHARE, "FastCDC alone", chunks[0], most=25))
        if relative:
            rows.append(row("CPU to make (tensors)", made.make_cpu, "s/GiB", "zstd -1 alone", zstd[1]))
            rows.append(row("CPU to make (chunks)", opaque.make_cpu, "s/GiB", "zstd -1 alone", zstd[1]))
            rows.append(row("CPU to apply", made.apply_cpu, "s/GiB", "zstd -1 alone", zstd[1]))
            rows.append(row("CPU of FastCDC with sha256", chunks[1], "s/GiB", "zstd -1 alone", zstd[1]))

    replaced = list(layers)[::4]

    def some_replaced(name: str) -> Any:
        return bf16(
            (drawn(f"{name} new", rows_each) if name in replaced else drawn(name, rows_each)) * np.float32(0.02)
        )

    write_safetensors(new, layers, some_replaced, note="x" * 70)
    made, chunks = ours(base, new), fastcdc_alone(base, new)
    name = f"{len(replaced)} of {tensors} tensors replaced, header longer: patch"
    rows.append(row(name, made.share, SHARE, "FastCDC alone", chunks[0], most=25))

    middle, half = f"layers.{tensors // 2}.weight", rows_each // 2

    def one_grown(name: str) -> Any:
        plain = bf16(weights(name))
        added = bf16(drawn("added", 512) * np.float32(0.02))
        return np.concatenate([plain[:half], added, plain[half:]]) if name == middle else plain

    write_safetensors(new, layers | {middle: rows_each + 512}, one_grown)
    made, chunks = ours(base, new), fastcdc_alone(base, new)
    name = "1 MiB of rows inserted in a tensor: patch"
    rows.append(row(name, made.share, SHARE, "FastCDC alone", chunks[0], most=2))
    with opened(base) as content, new.open("wb") as out:
        cut_at = content.size_bytes // 3
        for block in content.blocks(0, cut_at):
            out.write(block)
        out.write(np.random.default_rng(1).bytes(2**20))
        for block in content.blocks(cut_at, content.size_bytes - cut_at):
            out.write(block)
    made, chunks = ours(base, new), fastcdc_alone(base, new)
    name = "1 MiB inserted in a file of no known format: patch"
    rows.append(row(name, made.share, SHARE, "FastCDC alone", chunks[0], most=2))
    return rows


def memories(folder: Path, sizes_mib: list[int]) -> list[Row]:
    rows: list[Row] = []
    for size in sizes_mib:
        layers = {f"layers.{n}.weight": 4096 for n in range(size // 8)}
        base = write_safetensors(folder / "base", layers, lambda name: bf16(drawn(name, 4096)))
        new = write_safetensors(folder / "new", layers, lambda name: bf16(drawn(name, 4096) * np.float32(1.001)))
        for method in ("tensors", "chunks"):
            made, applied = memory(base, new, method)
            rows.append(row(f"memory to make, {method}, {size} MiB", made, "MiB", most=64))
            rows.append(row(f"memory to apply, {method}, {size} MiB", applied, "MiB", most=64))
    return rows


def samples() -> list[Row]:
    chance = np.random.default_rng(3)
    lines = b"".join(
        json.dumps(
            {"id": n, "text": " ".join(f"word{k}" for k in chance.integers(0, 3000, 12)), "score": n % 7}
        ).encode()
        + b"\n"
        for n in range(40_000)
    )
    kinds: dict[str, Callable[[], bytes]] = {
        "bf16 weights": lambda: bf16(chance.standard_normal(2**21, dtype="f4") * 0.02).tobytes(),
        "float32 embeddings": lambda: chance.standard_normal(2**20, dtype="f4").tobytes(),
        "JSON lines": lambda: lines,
        "random bytes": lambda: chance.bytes(2**22),
    }
    rows: list[Row] = []
    for name, make in kinds.items():
        data = make()
        got = sample(lambda start, length, data=data: data[start : start + length], len(data))
        whole = len(compressor().compress(data)) / len(data)
        assert got.ratio is not None
        assert got.cpu_s_per_gib is not None
        rows.append(row(f"sample of {name}: ratio", got.ratio, "of bytes", "zstd -1 of the whole", whole))
        for label, link in (("1 Gbit/s", 125e6), ("10 Gbit/s", 1.25e9)):
            yes = pays(got.ratio, got.cpu_s_per_gib, link, 2)
            rows.append(row(f"zstd pays for {name} at {label}, 2 cores", int(yes), "1 yes, 0 no"))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--tensors", type=int, default=24)
    parser.add_argument("--tensor-mib", type=int, default=8)
    parser.add_argument("--memory-mib", type=int, default=768, help="the larger of the two files; the other is 192 MiB")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = shares(folder, wanted.tensors, wanted.tensor_mib * 512)
        rows += memories(folder, [192, wanted.memory_mib])
    rows += samples()
    return write("chunks", rows)


if __name__ == "__main__":
    sys.exit(main())
