"""The manifest: what arrived, checkable by anybody with standard tools."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crossload.engines.mover.manifest import (
    LINE_BYTES_MAX,
    lines_of,
    manifest_line,
    missing_lines,
    read_manifest,
    root_of,
    sums_line,
    write_manifest,
)
from crossload.engines.mover.merkle import merkle_root
from crossload.estate.digest import canonical_json
from crossload.ledger.journal import Entry

AWKWARD = [
    "plain.txt", "with space", " leading space", "trailing space ", "-rf", "--check", "new\nline", "back\\slash",
    "carriage\rreturn", "\\n is not a newline", "tab\there", "quote'\"quote", "*", "$(true)", "ünï", "日本語", "😀",
    "a/b/c", "percent%20", "#comment", "end\n",
]  # fmt: skip


def entry(key: str, data: bytes, **more: object) -> Entry:
    return Entry(key, len(data), "etag", "done", sha256=hashlib.sha256(data).hexdigest(), **more)  # type: ignore[arg-type]


def in_order(keys: list[str]) -> list[str]:
    return sorted(keys, key=str.encode)


def test_sha256sum_checks_it_whatever_the_names(tmp_path: Path) -> None:
    for key in AWKWARD:
        path = tmp_path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(key.encode() * 3)
    report = write_manifest((entry(key, key.encode() * 3) for key in in_order(AWKWARD)), tmp_path / ".manifest")
    check = ["sha256sum", "-c", "--strict", "--quiet", str(report.sums_path)]
    good = subprocess.run(check, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (good.returncode, good.stdout, good.stderr) == (0, "", "")
    (tmp_path / "back\\slash").write_bytes(b"other")
    bad = subprocess.run(check, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert bad.returncode == 1
    assert "FAILED" in bad.stdout


def test_the_lines_are_those_that_sha256sum_writes(tmp_path: Path) -> None:
    names = [name for name in AWKWARD if "/" not in name]
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    done = subprocess.run(["sha256sum", "--", *names], cwd=tmp_path, capture_output=True, check=True)
    ours = "".join(sums_line(hashlib.sha256(name.encode()).hexdigest(), name) for name in names)
    assert done.stdout.decode() == ours


def test_root_and_totals(tmp_path: Path) -> None:
    entries = [entry(key, key.encode() * 3) for key in in_order(AWKWARD)]
    report = write_manifest(entries, tmp_path)
    assert report.objects == len(AWKWARD)
    assert report.size_bytes == sum(len(key.encode()) * 3 for key in AWKWARD)
    assert report.root == merkle_root(manifest_line(item) for item in entries).hex() == root_of(report.path)
    read = list(read_manifest(report.path))
    assert read == [{"key": e.key, "size_bytes": e.size_bytes, "sha256": e.sha256} for e in entries]


def test_two_copies_of_the_same_data_have_one_root(tmp_path: Path) -> None:
    """Etags, uploads and trust are one target's business; the root is the data's."""
    first = [entry(key, b"x", target_etag="a", trust="stored") for key in in_order(AWKWARD)]
    second = [entry(key, b"x", target_etag="b", trust="reread", losses="tags") for key in in_order(AWKWARD)]
    assert write_manifest(first, tmp_path / "1").root == write_manifest(second, tmp_path / "2").root
    assert (tmp_path / "1/manifest.jsonl").read_bytes() == (tmp_path / "2/manifest.jsonl").read_bytes()


def test_the_root_is_a_known_value(tmp_path: Path) -> None:
    """Written down, so that no later version changes what evidence of today says."""
    entries = [entry("a", b""), entry("b/ü", b"hello")]
    line = b'{"key":"b/\xc3\xbc","sha256":"%s","size_bytes":5}' % hashlib.sha256(b"hello").hexdigest().encode()
    assert manifest_line(entries[1]) == line
    root = "f8641836a07c299c6dbee9d998ec0a1407623d7f33abd8e33f12781aad114479"
    assert write_manifest(entries, tmp_path).root == root


@pytest.mark.parametrize("sha256", ["", "abc"])
def test_nothing_counts_as_copied_without_a_digest(tmp_path: Path, sha256: str) -> None:
    write_manifest([entry("a", b"1")], tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    bad = Entry("b", 1, "etag", "done", sha256=sha256)
    with pytest.raises(ValueError, match="b has no sha256"):
        write_manifest([entry("a", b"1"), bad], tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.name in before} == before


def test_a_changed_line_changes_the_root(tmp_path: Path) -> None:
    report = write_manifest([entry(f"{n:03d}", b"%d" % n) for n in range(50)], tmp_path)
    text = report.path.read_bytes()
    generator = random.Random(7)
    for _ in range(50):
        at = generator.randrange(len(text))
        changed = bytearray(text)
        changed[at] ^= 0x20
        if bytes(changed).rstrip(b"\n") == text.rstrip(b"\n"):
            continue
        report.path.write_bytes(changed)
        assert root_of(report.path) != report.root


def test_an_empty_copy_has_the_empty_root(tmp_path: Path) -> None:
    report = write_manifest([], tmp_path)
    assert report.root == hashlib.sha256(b"").hexdigest() == root_of(report.path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.sets(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30), max_size=12))
def test_any_key_is_one_line(tmp_path: Path, keys: set[str]) -> None:
    report = write_manifest([entry(key, b"") for key in in_order(list(keys))], tmp_path)
    lines = report.path.read_bytes().splitlines()
    assert [json.loads(line)["key"] for line in lines] == in_order(list(keys))
    assert report.sums_path.read_bytes().count(b"\n") == len(keys)


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(0, 2**80))
def test_a_line_is_canonical_json(key: str, size_bytes: int) -> None:
    item = Entry(key, size_bytes, "etag", "done", sha256="0" * 64)
    assert manifest_line(item) == canonical_json({"key": key, "size_bytes": size_bytes, "sha256": "0" * 64})


def peak_bytes(folder: Path, count: int) -> int:
    sha256 = "ab" * 32
    tracemalloc.start()
    write_manifest((Entry(f"{n:09d}", n, "e", "done", sha256=sha256) for n in range(count)), folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_lines(tmp_path: Path) -> None:
    peak_bytes(tmp_path, 10)
    assert peak_bytes(tmp_path, 20_000) - peak_bytes(tmp_path, 1_000) < 20_000


def test_a_line_without_end_comes_in_pieces(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(b"x" * (LINE_BYTES_MAX + 5) + b"\nlast\n")
    assert [len(piece) for piece in lines_of(tmp_path / "long")] == [LINE_BYTES_MAX, 6, 5]


def test_lines_that_others_do_not_know_are_found_in_passing(tmp_path: Path) -> None:
    """Side by side, in order, whichever side ends first."""
    entries = [Entry(key, 1, "e", sha256="0" * 64) for key in ("a", "b", "c/d", "ü", "🚀")]
    path = write_manifest(entries, tmp_path).path
    assert list(missing_lines(path, ["a", "aa", "b", "c/d", "z", "ü", "🚀", "🚀x"])) == []
    assert list(missing_lines(path, ["b", "ü"])) == ["a", "c/d", "🚀"]
    assert list(missing_lines(path, [])) == ["a", "b", "c/d", "ü", "🚀"]
