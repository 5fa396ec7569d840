"""A signed folder checked as a whole, one object proved by a small file, and the verbs that do both."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from crossload.engines.mover.inclusion import SignedFolder, check_inclusion, read_line
from crossload.engines.mover.manifest import ManifestReport, canonical_line, manifest_line, sums_line, write_manifest
from crossload.engines.mover.signing import SigningKey, sign_manifest
from crossload.ledger.journal import Entry
from crossload.ports.errors import DigestMismatch, Invalid, NotFound

ORIGIN = "team.example/move/docs"
AWKWARD = ["-rf", "a b", "back\\slash", 'quo"te', "ünï/日本語", "new\nline", "cr\rx", "z\u2028z", "x" * 1000, "{}"]
KEY = SigningKey(Ed25519PrivateKey.generate())


def entry(key: str) -> Entry:
    return Entry(key, len(key), "etag", "done", sha256=hashlib.sha256(key.encode()).hexdigest())


def write(folder: Path, keys: list[str], key: SigningKey = KEY) -> ManifestReport:
    report = write_manifest((entry(name) for name in sorted(keys, key=str.encode)), folder)
    sign_manifest(report, folder, key, ORIGIN)
    return report


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "docs", [*AWKWARD, *(f"part-{n:03d}" for n in range(30))])
    return tmp_path / "docs"


def change(path: Path, edit: Callable[[list[bytes]], list[bytes]]) -> None:
    path.write_bytes(b"".join(edit(path.read_bytes().splitlines(keepends=True))))


# -- the whole folder ------------------------------------------------------------------------------------------------


def test_a_good_folder(folder: Path) -> None:
    found = SignedFolder(folder).check(KEY.public.fingerprint)
    assert (found.good, found.problems, found.more, found.pinned) == (True, [], 0, True)
    assert (found.origin, found.objects, found.fingerprint) == (ORIGIN, 40, KEY.public.fingerprint)
    assert found.size_bytes == sum(len(key) for key in AWKWARD) + 30 * 8
    shown = SignedFolder(folder).show()
    assert shown["root"] == found.root
    assert (shown["origin"], shown["objects"], shown["signature"]) == (ORIGIN, 40, "good")
    assert shown["verifier_key"].startswith(f"{ORIGIN}+")


def test_an_empty_manifest_is_good(tmp_path: Path) -> None:
    write(tmp_path, [])
    assert SignedFolder(tmp_path).check().good
    with pytest.raises(NotFound):
        SignedFolder(tmp_path).include("a")


TAMPERED: dict[str, tuple[str, Callable[[list[bytes]], list[bytes]], str]] = {
    "changed digest": ("manifest.jsonl", lambda x: [*x[:3], x[3].replace(b"a", b"b"), *x[4:]], "signs 40 objects"),
    "changed size": ("manifest.jsonl", lambda x: [x[0].replace(b'"size_bytes":', b'"size_bytes":1'), *x[1:]], "root"),
    "swapped": ("manifest.jsonl", lambda x: [x[1], x[0], *x[2:]], "does not come after"),
    "missing line": ("manifest.jsonl", lambda x: x[:-1], "has 39"),
    "doubled line": ("manifest.jsonl", lambda x: [*x, x[-1]], "does not come after"),
    "no last newline": ("manifest.jsonl", lambda x: [*x[:-1], x[-1][:-1]], "cut off"),
    "cut": ("manifest.jsonl", lambda x: [*x[:-1], x[-1][:-20]], "line 40"),
    "empty": ("manifest.jsonl", lambda x: [], "has 0"),
    "blank line": ("manifest.jsonl", lambda x: [*x, b"\n"], "line 41"),
    "carriage returns": ("manifest.jsonl", lambda x: [line.replace(b"\n", b"\r\n") for line in x], "canonical"),
    "two keys": ("manifest.jsonl", lambda x: [b'{"key":"a",' + x[0][1:], *x[1:]], "canonical"),
    "no utf-8": ("manifest.jsonl", lambda x: [b"\xff\n", *x[1:]], "line 1"),
    "deep": ("manifest.jsonl", lambda x: [b"[" * 100_000 + b"\n", *x[1:]], "line 1"),
    "lone surrogate": ("manifest.jsonl", lambda x: [x[0].replace(b'"key":"', b'"key":"\\ud800'), *x[1:]], "line 1"),
    "no digest": ("manifest.jsonl", lambda x: [b'{"key":"-","size_bytes":0}\n', *x[1:]], "no sha256"),
    "sum changed": ("SHA256SUMS", lambda x: [x[0].replace(b"a", b"b"), *x[1:]], "SHA256SUMS differs"),
    "sum missing": ("SHA256SUMS", lambda x: x[:-1], "at line 40"),
    "sum added": ("SHA256SUMS", lambda x: [*x, x[-1]], "goes on"),
    "sums swapped": ("SHA256SUMS", lambda x: [x[1], x[0], *x[2:]], "at line 1"),
    "note size": ("checkpoint", lambda x: [x[0], b"41\n", *x[2:]], "not signed by"),
    "note origin": ("checkpoint", lambda x: [b"other\n", *x[1:]], "not signed by"),
    "note without signature": ("checkpoint", lambda x: x[:-1], "no checkpoint"),
    "body": ("checkpoint.body", lambda x: [b"x", *x[1:]], "checkpoint.body is missing, or"),
    "signature": ("checkpoint.sig", lambda x: [b"".join(x)[:-1] + b"!"], "checkpoint.sig is missing, or"),
    "key": ("checkpoint.pub.pem", lambda x: [SigningKey(Ed25519PrivateKey.generate()).public.pem()], "not signed by"),
    "no key": ("checkpoint.pub.pem", lambda x: [b"nothing\n"], "no ed25519 public key"),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_a_difference_is_named(folder: Path, case: str) -> None:
    name, edit, told = TAMPERED[case]
    before = (folder / name).read_bytes()
    change(folder / name, edit)
    assert (folder / name).read_bytes() != before
    found = SignedFolder(folder).check()
    assert not found.good
    assert told in "\n".join(found.problems)


@pytest.mark.parametrize(
    "name", ["SHA256SUMS", "checkpoint", "checkpoint.body", "checkpoint.sig", "checkpoint.pub.pem"]
)
def test_a_missing_file_is_a_difference(folder: Path, name: str) -> None:
    (folder / name).unlink()
    found = SignedFolder(folder).check()
    assert any(problem.startswith(name) for problem in found.problems), found.problems


def test_a_folder_without_manifest_is_wrong_usage(folder: Path) -> None:
    (folder / "manifest.jsonl").unlink()
    with pytest.raises(Invalid, match=r"no manifest\.jsonl"):
        SignedFolder(folder)


def test_a_manifest_signed_anew_by_another_is_good_only_without_a_pin(folder: Path) -> None:
    """Why the fingerprint must come over another channel."""
    other = SigningKey(Ed25519PrivateKey.generate())
    write(folder, ["forged"], other)
    assert SignedFolder(folder).check().good
    found = SignedFolder(folder).check(KEY.public.fingerprint)
    assert [problem for problem in found.problems if "not the key that was pinned" in problem]


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(0, 2**70))
def test_a_line_that_we_write_is_read(key: str, size_bytes: int) -> None:
    """By the quick way and by the slow one."""
    sha256 = hashlib.sha256(key.encode()).hexdigest()
    line = manifest_line(Entry(key, size_bytes, "etag", "done", sha256=sha256)) + b"\n"
    assert read_line(line) == (key.encode(), sums_line(sha256, key).encode(), size_bytes)


@given(st.data())
def test_a_line_is_read_as_json_reads_it_or_not_at_all(data: st.DataObject) -> None:
    line = bytearray(manifest_line(entry("ü-x/1")) + b"\n")
    for _ in range(data.draw(st.integers(1, 3))):
        line[data.draw(st.integers(0, len(line) - 1))] = data.draw(
            st.sampled_from([*b'"\\{},:-0 \n\r\x00u', 0xC3, 0xED])
        )
    try:
        key, ours, size_bytes = read_line(bytes(line))
    except ValueError:
        return
    value = json.loads(line)
    assert (key.decode(), size_bytes) == (value["key"], value["size_bytes"])
    assert ours == sums_line(value["sha256"], value["key"]).encode()
    assert canonical_line(value) + b"\n" == line


def test_many_problems_are_counted(tmp_path: Path) -> None:
    write(tmp_path, [f"{n:04d}" for n in range(500)])
    change(tmp_path / "manifest.jsonl", lambda lines: [line.replace(b":", b": ") for line in lines])
    found = SignedFolder(tmp_path).check()
    assert len(found.problems) == 20
    assert found.more == 500 + 1 - 20


# -- one object ------------------------------------------------------------------------------------------------------


def as_bytes(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize("count", [*range(1, 18), 31, 32, 33, 64, 70])
def test_every_object_of_every_size(tmp_path: Path, count: int) -> None:
    keys = sorted(
        [*AWKWARD[: count // 2], *(f"n{n}" for n in range(count - len(AWKWARD[: count // 2])))], key=str.encode
    )
    write(tmp_path, keys)
    for index, key in enumerate(keys):
        proof = SignedFolder(tmp_path).include(key)
        assert (proof.leaf_index, proof.tree_size, proof.entry["key"]) == (index, len(keys), key)
        read, problems = check_inclusion(as_bytes(proof.to_json()), KEY.public.pem())
        assert (read, problems) == (proof, [])


def test_the_key_decides_not_what_looks_like_it(tmp_path: Path) -> None:
    """A key may hold the bytes of another key's line."""
    tricky = '"key":"b"'
    write(tmp_path, [tricky, "b", "bb"])
    assert SignedFolder(tmp_path).include("b").entry["key"] == "b"
    assert SignedFolder(tmp_path).include(tricky).entry["key"] == tricky


@pytest.mark.parametrize("key", ["", "part-", "part-0000", "PART-000", "\udcff", "a\0b"])
def test_a_key_that_is_not_there(folder: Path, key: str) -> None:
    with pytest.raises(NotFound):
        SignedFolder(folder).include(key)


# Without its last newline the manifest has the same lines; that it was cut off is for `check` to say.
LINES_CHANGED = [case for case, (name, _, _) in TAMPERED.items() if name == "manifest.jsonl" and "newline" not in case]


@pytest.mark.parametrize("case", LINES_CHANGED)
def test_no_proof_from_a_tampered_manifest(folder: Path, case: str) -> None:
    change(folder / "manifest.jsonl", TAMPERED[case][1])
    with pytest.raises(DigestMismatch, match="does not sign this"):
        SignedFolder(folder).include("part-007")


def test_no_proof_without_a_good_signature(folder: Path) -> None:
    change(folder / "checkpoint", TAMPERED["note size"][1])
    with pytest.raises(DigestMismatch, match="not signed by the key"):
        SignedFolder(folder).include("part-007")
    (folder / "checkpoint").unlink()
    with pytest.raises(Invalid, match="not signed"):
        SignedFolder(folder).include("part-007")
    with pytest.raises(Invalid, match="not signed"):
        SignedFolder(folder).show()


def other_line(value: dict[str, Any]) -> dict[str, Any]:
    return {**value, "line": value["line"].replace("part-007", "part-008")}


def other_checkpoint(value: dict[str, Any]) -> dict[str, Any]:
    return {**value, "checkpoint": value["checkpoint"].replace("\n40\n", "\n41\n")}


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (other_line, "does not lead"),
        (other_checkpoint, "not signed by"),
        (lambda v: {**v, "leaf_index": v["leaf_index"] + 1}, "does not lead"),
        (lambda v: {**v, "leaf_index": -1}, "does not lead"),
        (lambda v: {**v, "leaf_index": 2**70}, "does not lead"),
        (lambda v: {**v, "tree_size": 39}, "signs 40 objects"),
        (lambda v: {**v, "path": v["path"][:-1]}, "does not lead"),
        (lambda v: {**v, "path": v["path"][::-1]}, "does not lead"),
        (lambda v: {**v, "path": [*v["path"], v["path"][0]]}, "does not lead"),
        (lambda v: {**v, "path": ["00", *v["path"][1:]]}, "does not lead"),
        (lambda v: {**v, "path": ["no hash", *v["path"][1:]]}, "fromhex"),
        (lambda v: {**v, "line": "{}"}, "no key"),
        (lambda v: {**v, "line": v["line"] + "\n"}, "does not lead"),
        (lambda v: {**v, "line": "\ud800"}, "surrogates"),
        (lambda v: {**v, "checkpoint": ""}, "no checkpoint"),
    ],
)
def test_a_tampered_proof_is_refused(folder: Path, edit: Callable[[dict[str, Any]], dict[str, Any]], told: str) -> None:
    value = SignedFolder(folder).include("part-007").to_json()
    changed = edit(value)
    assert changed != value
    _, problems = check_inclusion(as_bytes(changed), KEY.public.pem())
    assert told in "\n".join(problems)


def test_a_proof_under_another_key_is_refused(folder: Path) -> None:
    data = as_bytes(SignedFolder(folder).include("part-007").to_json())
    other = SigningKey(Ed25519PrivateKey.generate()).public
    assert check_inclusion(data, other.pem())[1] == [f"the checkpoint is not signed by {other.fingerprint}"]


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b"1" * 5000, b'{"line": ' + b" " * 2**22 + b"1}",
        as_bytes({"line": "", "leaf_index": True, "tree_size": 1, "path": [], "checkpoint": ""}),
        as_bytes({"line": "", "leaf_index": 1.0, "tree_size": 1, "path": [], "checkpoint": ""}),
        as_bytes({"line": "", "leaf_index": 0, "tree_size": 1, "path": [1], "checkpoint": ""}),
        as_bytes({"line": "", "leaf_index": 0, "tree_size": 1, "path": [], "checkpoint": "", "key": "x"}),
    ],
)  # fmt: skip
def test_what_is_no_proof_is_refused(data: bytes) -> None:
    with pytest.raises(Invalid, match="no proof of inclusion"):
        check_inclusion(data, KEY.public.pem())


def test_memory_does_not_grow_with_the_manifest(tmp_path: Path) -> None:
    def peak_bytes(count: int) -> int:
        where = tmp_path / str(count)
        write(where, [f"{n:09d}" for n in range(count)])
        tracemalloc.start()
        assert SignedFolder(where).check().good
        assert SignedFolder(where).include(f"{count // 2:09d}").leaf_index == count // 2
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak_bytes(10)
    assert peak_bytes(8_000) - peak_bytes(1_000) < 20_000


# -- the verbs -------------------------------------------------------------------------------------------------------


@pytest.fixture
def proof(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """proof(*words) -> (exit code, stdout, stderr) of `crossload proof ...`."""
    from crossload.cli import main

    monkeypatch.setitem(main.VERBS, "proof", ("crossload.cli.proof", "Check the signed manifest of a copy."))

    def run(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main.main(["proof", *map(str, words)])
        said = capsys.readouterr()
        return int(str(left.value.code or 0)), said.out, said.err

    return run


Run = Callable[..., tuple[int, str, str]]


def test_show_and_check(folder: Path, proof: Run) -> None:
    code, out, _ = proof("show", folder)
    assert code == 0
    assert KEY.public.fingerprint in out
    assert json.loads(proof("show", folder, "--json")[1])["objects"] == 40
    code, out, err = proof("check", folder)
    assert (code, "good" in out, "ask the signer for the fingerprint" in err) == (0, True, True)
    code, out, err = proof("check", folder, "--key", folder / "checkpoint.pub.pem")
    assert (code, "good" in out, err) == (0, True, "")
    assert json.loads(proof("check", folder, "--json")[1])["good"] is True


def test_check_leaves_with_four_on_a_difference(folder: Path, proof: Run, tmp_path: Path) -> None:
    (tmp_path / "other.pem").write_bytes(SigningKey(Ed25519PrivateKey.generate()).public.pem())
    code, _, err = proof("check", folder, "--key", tmp_path / "other.pem")
    assert (code, "pinned" in err) == (4, True)
    change(folder / "manifest.jsonl", lambda lines: lines[:-1])
    code, out, err = proof("check", folder, "--json")
    assert code == 4
    told = json.loads(out)
    assert (told["good"], told["objects"]) == (False, 39)
    assert told["problems"][0] in err


def test_wrong_usage_leaves_with_two(folder: Path, proof: Run, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("text")
    for words in (
        ["check", tmp_path], ["check", tmp_path / "absent"], ["check", folder, "--key", tmp_path / "text"],
        ["check-inclusion", tmp_path / "text", "--key", folder / "checkpoint.pub.pem"],
        ["check-inclusion", tmp_path / "text"],
    ):  # fmt: skip
        code, out, err = proof(*words)
        assert (code, out, "Traceback" in err) == (2, "", False), words


def test_include_and_check_inclusion(folder: Path, proof: Run, tmp_path: Path) -> None:
    file, public = tmp_path / "proof.json", tmp_path / "signer.pem"
    public.write_bytes((folder / "checkpoint.pub.pem").read_bytes())
    assert proof("include", folder, "ünï/日本語", "-o", file)[:2] == (0, f"{file}\n")
    printed = json.loads(proof("include", folder, "ünï/日本語")[1])
    assert printed == json.loads(file.read_text(encoding="utf-8"))
    assert json.loads(proof("include", "--json", "-o", file, folder, "--", "-rf")[1]) == {"file": str(file)}
    for path in folder.iterdir():
        path.unlink()  # the file alone must do
    code, out, _ = proof("check-inclusion", file, "--key", public)
    assert (code, "-rf" in out, "good" in out) == (0, True, True)
    told = json.loads(proof("check-inclusion", file, "--key", public, "--json")[1])
    assert (told["good"], told["key"], told["origin"]) == (True, "-rf", ORIGIN)
    file.write_text(file.read_text().replace('"leaf_index": 0', '"leaf_index": 1'))
    code, out, err = proof("check-inclusion", file, "--key", public, "--json")
    assert (code, json.loads(out)["good"]) == (4, False)
    assert "does not lead" in err


def test_include_names_what_it_cannot_prove(folder: Path, proof: Run) -> None:
    code, _, err = proof("include", folder, "absent")
    assert (code, "absent is not in the manifest" in err) == (1, True)
    change(folder / "manifest.jsonl", lambda lines: lines[:-1])
    assert proof("include", folder, "a b")[0] == 4


def test_a_name_does_not_drive_the_terminal(tmp_path: Path, proof: Run) -> None:
    write(tmp_path / "f", ["\x1b[2Jx"])
    file = tmp_path / "p.json"
    proof("include", "-o", file, tmp_path / "f", "\x1b[2Jx")
    assert "\x1b" not in proof("check-inclusion", file, "--key", tmp_path / "f" / "checkpoint.pub.pem")[1]
