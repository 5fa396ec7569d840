"""docs/proof.md is for people without Crossload: its script and its commands are run here as they are printed."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from crossload.engines.mover.inclusion import SignedFolder
from crossload.engines.mover.manifest import write_manifest
from crossload.engines.mover.signing import PublicKey, SigningKey, sign_manifest
from crossload.ledger.journal import Entry

KEYS = [
    "-rf",
    "a b",
    "back\\slash",
    "carriage\rreturn",
    "new\nline",
    'quo"te',
    "ünï/日本語",
    *(f"p{n:02d}" for n in range(30)),
]
Edit = Callable[[list[bytes]], list[bytes]]


def block(repository: Path, language: str) -> str:
    """The only block of that language on the page."""
    page = (repository / "docs" / "proof.md").read_text(encoding="utf-8")
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return found


def sign(folder: Path, keys: list[str]) -> PublicKey:
    entries = (
        Entry(key, len(key.encode()), "etag", "done", sha256=hashlib.sha256(key.encode()).hexdigest())
        for key in sorted(keys, key=str.encode)
    )
    report, key = write_manifest(entries, folder), SigningKey(Ed25519PrivateKey.generate())
    sign_manifest(report, folder, key, "team.example/move/docs")
    return key.public


class Verifier:
    """The page's script, and the key that the signer told."""

    def __init__(self, repository: Path, home: Path) -> None:
        self.script, self.key = home / "verify.py", home / "signer.pem"
        self.script.write_text(block(repository, "python"), encoding="utf-8")

    def run(self, what: Path) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-I", "-W", "error::SyntaxWarning", self.script, what, self.key],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout


@pytest.fixture
def verifier(repository: Path, tmp_path: Path) -> Verifier:
    return Verifier(repository, tmp_path)


@pytest.fixture
def folder(tmp_path: Path, verifier: Verifier) -> Path:
    verifier.key.write_bytes(sign(tmp_path / "docs", KEYS).pem())
    return tmp_path / "docs"


def test_the_script_is_short_and_needs_nothing(repository: Path) -> None:
    script = block(repository, "python")
    assert script.count("\n") <= 20
    assert max(map(len, script.splitlines())) <= 120
    imported = script.splitlines()[0].removeprefix("import ").split(", ")
    assert set(imported) <= sys.stdlib_module_names
    assert script.count("import ") == 1
    assert "assert" not in script, "python -O would leave it out"


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 7, 8, 9, 31, 37])
def test_it_says_good_of_what_is_good(verifier: Verifier, tmp_path: Path, count: int) -> None:
    verifier.key.write_bytes(sign(tmp_path / "f", KEYS[:count]).pem())
    assert verifier.run(tmp_path / "f") == (0, f"good: {count}\n")


CASES: dict[str, tuple[str, Edit]] = {
    "changed line": ("manifest.jsonl", lambda x: [*x[:4], x[4].replace(b'"size_bytes":', b'"size_bytes":1'), *x[5:]]),
    "changed digest": ("manifest.jsonl", lambda x: [x[0].replace(b"0", b"1"), *x[1:]]),
    "changed key": ("manifest.jsonl", lambda x: [*x[:-1], x[-1].replace(b'"key":"', b'"key":"z')]),
    "swapped lines": ("manifest.jsonl", lambda x: [x[1], x[0], *x[2:]]),
    "missing first line": ("manifest.jsonl", lambda x: x[1:]),
    "missing line": ("manifest.jsonl", lambda x: [*x[:9], *x[10:]]),
    "missing last line": ("manifest.jsonl", lambda x: x[:-1]),
    "added line": ("manifest.jsonl", lambda x: [*x, x[-1]]),
    "added blank line": ("manifest.jsonl", lambda x: [*x, b"\n"]),
    "truncated in a line": ("manifest.jsonl", lambda x: [*x[:-1], x[-1][:-30]]),
    "truncated by a byte": ("manifest.jsonl", lambda x: [*x[:-1], x[-1][:-1]]),
    "empty": ("manifest.jsonl", lambda x: []),
    "two lines made one": ("manifest.jsonl", lambda x: [x[0][:-1], *x[1:]]),
    "note's size": ("checkpoint", lambda x: [x[0], b"36\n", *x[2:]]),
    "note's origin": ("checkpoint", lambda x: [b"other\n", *x[1:]]),
    "note truncated": ("checkpoint", lambda x: x[:-1]),
    "note's signature": ("checkpoint", lambda x: [*x[:-1], x[-1][:-12] + b"AAAAAAAAAA=\n"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_it_fails_on_what_was_tampered_with(verifier: Verifier, folder: Path, case: str) -> None:
    name, edit = CASES[case]
    path = folder / name
    before = path.read_bytes()
    path.write_bytes(b"".join(edit(before.splitlines(keepends=True))))
    assert path.read_bytes() != before
    code, said = verifier.run(folder)
    assert (code, said) == (1, "")
    path.write_bytes(before)
    assert verifier.run(folder)[0] == 0, "it failed for another reason"


def test_it_fails_under_another_key(verifier: Verifier, folder: Path, tmp_path: Path) -> None:
    """Also when the manifest is whole and well signed, by somebody else."""
    shutil.rmtree(folder)
    other = sign(folder, KEYS)
    assert verifier.run(folder) == (1, "")
    verifier.key.write_bytes(other.pem())
    assert verifier.run(folder)[0] == 0


def test_it_fails_on_missing_files(verifier: Verifier, folder: Path) -> None:
    for name in ("manifest.jsonl", "checkpoint"):
        (folder / name).rename(folder / "away")
        assert verifier.run(folder) == (1, "")
        (folder / "away").rename(folder / name)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 37])
def test_it_checks_the_proof_of_one_object(verifier: Verifier, tmp_path: Path, count: int) -> None:
    verifier.key.write_bytes(sign(tmp_path / "f", KEYS[:count]).pem())
    for key in {KEYS[0], KEYS[count // 2], KEYS[count - 1]}:
        proof = SignedFolder(tmp_path / "f").include(key)
        (tmp_path / "p.json").write_text(json.dumps(proof.to_json()))
        code, said = verifier.run(tmp_path / "p.json")
        assert (code, said) == (0, f"good: {proof.line}\n")


def test_it_fails_on_a_tampered_proof(verifier: Verifier, folder: Path, tmp_path: Path) -> None:
    good = SignedFolder(folder).include("p07").to_json()
    file = tmp_path / "p.json"
    index, path = good["leaf_index"], good["path"]
    for changed in (
        {"line": good["line"].replace("p07", "p08")}, {"line": good["line"] + "\n"}, {"line": ""},
        {"leaf_index": index + 1}, {"leaf_index": index ^ 4}, {"leaf_index": -1}, {"leaf_index": index + 64},
        {"path": path[1:]}, {"path": path[:-1]}, {"path": path[::-1]}, {"path": [*path, path[0]]}, {"path": []},
        {"checkpoint": good["checkpoint"].replace("\n37\n", "\n38\n")}, {"checkpoint": good["checkpoint"][:-20]},
    ):  # fmt: skip
        file.write_text(json.dumps({**good, **changed}))
        assert verifier.run(file) == (1, ""), changed
    file.write_text(json.dumps(good)[:-5])
    assert verifier.run(file) == (1, "")
    file.write_text(json.dumps(good))
    assert verifier.run(file)[0] == 0
    sign(tmp_path / "other", KEYS)
    shutil.copy(tmp_path / "other" / "checkpoint.pub.pem", verifier.key)
    assert verifier.run(file) == (1, "")


def test_the_commands_of_the_page_work_as_printed(repository: Path, folder: Path, verifier: Verifier) -> None:
    missing = [tool for tool in ("openssl", "jq", "sha256sum", "cmp", "python3") if not shutil.which(tool)]
    if missing:
        pytest.skip(f"this machine lacks {', '.join(missing)}")
    shutil.copy(verifier.script, folder)
    command = ["bash", "-e", "-o", "pipefail", "-c", block(repository, "sh")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    fingerprint = SignedFolder(folder).show()["fingerprint"]
    assert f"{fingerprint.removeprefix('sha256:')}  -" in done.stdout
    assert "Signature Verified Successfully" in done.stdout
    assert f"good: {len(KEYS)}" in done.stdout
    size_bytes = sum(len(key.encode()) for key in KEYS)
    assert json.loads(done.stdout[done.stdout.index("{") :]) == {"objects": len(KEYS), "size_bytes": size_bytes}
    sums = folder / "SHA256SUMS"
    sums.write_bytes(sums.read_bytes().replace(b"a", b"b", 1))
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1, "SHA256SUMS differs from the manifest, and `cmp` must say so"


def test_the_data_is_checked_by_sha256sum(folder: Path, tmp_path: Path) -> None:
    for key in KEYS:
        path = tmp_path / "mounted" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(key.encode())
    command = ["sha256sum", "-c", "--strict", "--quiet", str(folder / "SHA256SUMS")]
    assert subprocess.run(command, cwd=tmp_path / "mounted", capture_output=True, check=False).returncode == 0
    (tmp_path / "mounted" / "p07").write_bytes(b"flipped")
    assert subprocess.run(command, cwd=tmp_path / "mounted", capture_output=True, check=False).returncode == 1
