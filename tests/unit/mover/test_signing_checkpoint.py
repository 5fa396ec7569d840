"""Checkpoints: the form that log tools and openssl read, keys that stay secret, and crashes between the files."""

from __future__ import annotations

import base64
import hashlib
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from crossload.engines.mover.manifest import ManifestReport, root_of, write_manifest
from crossload.engines.mover.signing import (
    Checkpoint,
    PublicKey,
    SigningKey,
    origin_of,
    parse_checkpoint,
    pinned_fingerprint,
    read_public_key,
    sign_manifest,
    signing_key,
)
from crossload.ledger.journal import Entry
from crossload.ports.errors import Invalid

ORIGIN = "team.example/move/docs"
FILES = {"checkpoint", "checkpoint.body", "checkpoint.sig", "checkpoint.pub.pem"}


def entries(count: int, salt: str = "") -> list[Entry]:
    sha256 = [hashlib.sha256(f"{salt}{n}".encode()).hexdigest() for n in range(count)]
    return [Entry(f"{n:05d}", n, "etag", "done", sha256=sha256[n]) for n in range(count)]


def new_key() -> SigningKey:
    return SigningKey(Ed25519PrivateKey.generate())


def pem_of(private: Any, passphrase: bytes = b"") -> str:
    how = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how).decode()


def signed(folder: Path, key: SigningKey, count: int = 10, salt: str = "") -> tuple[ManifestReport, Checkpoint]:
    report = write_manifest(entries(count, salt), folder)
    return report, sign_manifest(report, folder, key, ORIGIN)


# -- the form --------------------------------------------------------------------------------------------------------


def test_the_published_example_of_signed_notes() -> None:
    """The key, text and signature with which implementations of signed notes are tested."""
    key = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    text = b"If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
    line = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
    public = PublicKey(base64.b64decode(key.split("+", 2)[2])[1:])
    blob = base64.b64decode(line)
    assert public.verifier_key("PeterNeumann") == key
    assert blob[:4] == public.key_id("PeterNeumann")
    assert public.signed(blob[4:], text)
    assert not public.signed(blob[4:], text + b"\n")
    assert not public.signed(blob[3:], text)


def test_the_note_line_by_line(tmp_path: Path) -> None:
    key = new_key()
    report, made = signed(tmp_path, key)
    text = (tmp_path / "checkpoint").read_text(encoding="utf-8")
    origin, size, root, blank, line, end = text.split("\n")
    assert (origin, size, blank, end) == (ORIGIN, "10", "", "")
    assert base64.b64decode(root).hex() == report.root
    dash, name, blob = line.split(" ")
    assert (dash, name) == ("—", ORIGIN)
    data = base64.b64decode(blob)
    raw = key.public.raw
    assert data[:4] == hashlib.sha256(ORIGIN.encode() + b"\n\x01" + raw).digest()[:4]
    assert data[4:] == (tmp_path / "checkpoint.sig").read_bytes()
    assert text.encode().startswith((tmp_path / "checkpoint.body").read_bytes() + b"\n")
    read = parse_checkpoint(text.encode())
    assert read == made
    assert (read.note, read.signature_of(key.public)) == (text.encode(), data[4:])
    assert read.signature_of(new_key().public) is None


def openssl(folder: Path, key: str = "checkpoint.pub.pem") -> int:
    words = f"openssl pkeyutl -verify -pubin -inkey {key} -rawin -in checkpoint.body -sigfile checkpoint.sig"
    return subprocess.run(words.split(), cwd=folder, capture_output=True, check=False).returncode


def test_plain_openssl_verifies_it(tmp_path: Path) -> None:
    key = new_key()
    signed(tmp_path, key)
    assert openssl(tmp_path) == 0
    (tmp_path / "other.pem").write_bytes(new_key().public.pem())
    assert openssl(tmp_path, "other.pem") != 0
    body = tmp_path / "checkpoint.body"
    body.write_bytes(body.read_bytes().replace(b"\n10\n", b"\n11\n"))
    assert openssl(tmp_path) != 0


def test_openssl_and_we_agree_on_key_and_fingerprint(tmp_path: Path) -> None:
    """A key that openssl made signs, and its public half is the one that openssl gives."""
    private = tmp_path / "proof.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
    public = signing_key(tmp_path, f"file:{private}").public
    pem = subprocess.run(["openssl", "pkey", "-in", private, "-pubout"], capture_output=True, check=True).stdout
    der = subprocess.run(
        ["openssl", "pkey", "-in", private, "-pubout", "-outform", "DER"], capture_output=True, check=True
    ).stdout
    assert (public.pem(), public.der()) == (pem, der)
    assert public.fingerprint == f"sha256:{hashlib.sha256(der).hexdigest()}"
    assert read_public_key(pem) == public


def test_signatures_of_others_below_ours_are_kept(tmp_path: Path) -> None:
    key = new_key()
    _, made = signed(tmp_path, key)
    witness = "— witness.example " + base64.b64encode(b"\x04" * 76).decode() + "\n"
    read = parse_checkpoint(made.note + witness.encode())
    assert read.signature_of(key.public) == made.signature_of(key.public)
    assert read.note == made.note + witness.encode()


def test_the_first_line_of_a_key_decides(tmp_path: Path) -> None:
    key = new_key()
    _, made = signed(tmp_path, key)
    ((name, blob),) = made.signatures
    bad = Checkpoint(made.origin, made.tree_size, made.root, ((name, blob[:4] + b"\0" * 64), (name, blob)))
    assert parse_checkpoint(bad.note).signature_of(key.public) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: text[:-1],
        lambda text: text.replace("\n\n", "\n"),
        lambda text: text.replace("\n10\n", "\n010\n"),
        lambda text: text.replace("\n10\n", "\n-10\n"),
        lambda text: text.replace("\n10\n", "\n١٠\n"),
        lambda text: text.replace("\n10\n", "\n10\nextension\n"),
        lambda text: text.replace("=\n\n", "\n\n"),
        lambda text: text.replace("=\n\n", "==\n\n"),
        lambda text: text.replace("—", "-"),
        lambda text: text.replace("— ", "—  "),
        lambda text: text.replace(ORIGIN + "\n", "two words\n", 1),
        lambda text: text.replace(ORIGIN + "\n", "a+b\n", 1),
        lambda text: text.replace(ORIGIN + "\n", "\n", 1),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text + text.splitlines(keepends=True)[-1] * 100,
        lambda text: text + "x" * 70_000,
        lambda text: text + "\udcff",
    ],
)
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, change: Callable[[str], str]) -> None:
    _, made = signed(tmp_path, new_key())
    text = made.note.decode()
    assert change(text) != text
    with pytest.raises(Invalid, match="no checkpoint"):
        parse_checkpoint(change(text).encode(errors="surrogateescape"))


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with pytest.raises(Invalid):
        parse_checkpoint(data)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), min_size=1, max_size=3))
def test_any_names_make_an_origin(names: list[str]) -> None:
    made = Checkpoint(origin_of(*names), 0, "00" * 32, (("x", b"12345"),))
    assert parse_checkpoint(made.note) == made


@pytest.mark.parametrize("origin", ["", "two words", "a+b", "a\nb", "ünï", "a\u2028b", "x" * 513])
def test_a_bad_origin_is_refused_and_nothing_is_written(tmp_path: Path, origin: str) -> None:
    report = write_manifest(entries(3), tmp_path)
    with pytest.raises(Invalid, match="origin"):
        sign_manifest(report, tmp_path, new_key(), origin)
    assert not FILES & {path.name for path in tmp_path.iterdir()}


# -- keys ------------------------------------------------------------------------------------------------------------


def test_a_key_by_reference(tmp_path: Path) -> None:
    private = Ed25519PrivateKey.generate()
    (tmp_path / "key.pem").write_text(pem_of(private))
    by_file = signing_key(tmp_path, f"file:{tmp_path / 'key.pem'}")
    by_env = signing_key(tmp_path, "env:PROOF", {"PROOF": pem_of(private)})
    by_both = signing_key(tmp_path, "env:PROOF", {"PROOF": f"file:{tmp_path / 'key.pem'}"})
    assert by_file.public == by_env.public == by_both.public == SigningKey(private).public
    assert not (tmp_path / "keys").exists()


def test_bad_keys_are_named_and_never_quoted(tmp_path: Path) -> None:
    good = pem_of(Ed25519PrivateKey.generate())
    secret = good.splitlines()[1]
    cases = {
        "value": good,
        "env:ABSENT": "",
        f"file:{tmp_path / 'absent.pem'}": "",
        "env:TORN": good[:-40],
        "env:LOCKED": pem_of(Ed25519PrivateKey.generate(), b"passphrase"),
        "env:RSA": pem_of(generate_private_key(65537, 2048)),
        "env:PUBLIC": new_key().public.pem().decode(),
        "env:TEXT": "hunter2",
    }
    for reference, value in cases.items():
        environment = {reference[4:]: value} if reference.startswith("env:") and value else {}
        asked = value if reference == "value" else reference
        with pytest.raises(Invalid) as caught:
            signing_key(tmp_path, asked, environment)
        told = f"{caught.value} {caught.value.hint} {caught.value.__cause__!r}"
        assert secret not in told
        assert "hunter2" not in told
        assert "openssl genpkey" in caught.value.hint
        assert reference == "value" or reference.partition(":")[2] in told


def test_a_key_does_not_print_itself() -> None:
    private = Ed25519PrivateKey.generate()
    assert repr(SigningKey(private)) == "SigningKey()"


def test_the_workspaces_own_key_is_made_once(tmp_path: Path) -> None:
    first = signing_key(tmp_path / "new" / "workspace")
    path = tmp_path / "new" / "workspace" / "keys" / "proof.pem"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [item.name for item in path.parent.iterdir()] == ["proof.pem"]
    before = path.read_bytes()
    assert signing_key(tmp_path / "new" / "workspace").public == first.public
    assert path.read_bytes() == before


def test_processes_that_race_for_the_key_get_the_same(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from crossload.engines.mover import signing;"
        "import cryptography.hazmat.primitives.asymmetric.ed25519;"
        "print('ready', flush=True); sys.stdin.readline();"
        "print(signing.signing_key(Path(sys.argv[1])).public.fingerprint)"
    )
    for turn in range(3):
        workspace = tmp_path / str(turn)
        racing = [
            subprocess.Popen(
                [sys.executable, "-c", code, workspace], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for _ in range(4)
        ]
        assert all(process.stdout and process.stdout.readline() == "ready\n" for process in racing)
        for process in racing:
            assert process.stdin
            process.stdin.write("\n")
            process.stdin.flush()
        found = [process.communicate(timeout=60)[0].strip() for process in racing]
        assert set(found) == {signing_key(workspace).public.fingerprint}
        assert [item.name for item in (workspace / "keys").iterdir()] == ["proof.pem"]


def test_a_pin_is_a_fingerprint_or_a_file(tmp_path: Path) -> None:
    public = new_key().public
    (tmp_path / "pub.pem").write_bytes(public.pem())
    assert pinned_fingerprint(str(tmp_path / "pub.pem")) == public.fingerprint
    assert pinned_fingerprint("sha256:" + public.fingerprint[7:].upper()) == public.fingerprint
    with pytest.raises(FileNotFoundError):
        pinned_fingerprint("sha256:12")
    (tmp_path / "pub.pem").write_bytes(b"nothing")
    with pytest.raises(Invalid, match="no ed25519 public key"):
        pinned_fingerprint(str(tmp_path / "pub.pem"))


# -- writing ---------------------------------------------------------------------------------------------------------


def state(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir() if path.name in FILES}


def test_signing_the_same_again_changes_nothing(tmp_path: Path) -> None:
    key = new_key()
    signed(tmp_path, key)
    before = state(tmp_path)
    assert set(before) == FILES
    signed(tmp_path, key)
    assert state(tmp_path) == before


def test_another_manifest_withdraws_the_checkpoint(tmp_path: Path) -> None:
    signed(tmp_path, new_key())
    write_manifest(entries(10), tmp_path)
    assert set(state(tmp_path)) == FILES
    write_manifest(entries(11), tmp_path)
    assert state(tmp_path) == {}


def fits_or_verifies_not(folder: Path) -> str:
    """ "signed" or "unsigned"; fails when anything verifies that does not fit the manifest beside it."""
    held = {name: data for name, (data, _) in state(folder).items()}
    root = root_of(folder / "manifest.jsonl")
    size = (folder / "manifest.jsonl").read_bytes().count(b"\n")
    if "checkpoint.pub.pem" not in held:
        return "unsigned"
    public = read_public_key(held["checkpoint.pub.pem"])
    if "checkpoint.body" in held and public.signed(held.get("checkpoint.sig", b""), held["checkpoint.body"]):
        _, told, encoded, _ = held["checkpoint.body"].decode().split("\n")
        assert (int(told), base64.b64decode(encoded).hex()) == (size, root)
    if "checkpoint" not in held:
        return "unsigned"
    note = parse_checkpoint(held["checkpoint"])
    assert note.signature_of(public)
    assert (note.tree_size, note.root) == (size, root)
    assert set(held) == FILES, "the note comes last"
    return "signed"


def killed_at(step: int, work: Callable[[], object]) -> bool:
    """Run `work` in a process of its own that SIGKILL ends before its `step`-th change of the disk; False when it came
    to its end before that."""
    child = os.fork()
    if child == 0:
        try:
            left = [step]

            def deadly(original: Callable[..., Any]) -> Callable[..., Any]:
                def call(*arguments: Any, **named: Any) -> Any:
                    left[0] -= 1
                    if left[0] < 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return original(*arguments, **named)

                return call

            for name in ("replace", "unlink", "fsync"):
                setattr(os, name, deadly(getattr(os, name)))
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("same_key", [True, False])
@pytest.mark.parametrize("same_data", [True, False])
def test_a_kill_between_any_two_files_leaves_nothing_false(tmp_path: Path, same_key: bool, same_data: bool) -> None:
    first = new_key()
    second = first if same_key else new_key()
    salt = "" if same_data else "other"
    seen: set[str] = set()
    step, killed = 0, True
    while killed:
        folder = tmp_path / str(step)
        signed(folder, first)
        killed = killed_at(step, lambda folder=folder: signed(folder, second, 12 if salt else 10, salt))
        seen.add(fits_or_verifies_not(folder))
        signed(folder, second, 12 if salt else 10, salt)
        assert fits_or_verifies_not(folder) == "signed"
        step += 1
    assert seen == ({"signed"} if same_key and same_data else {"signed", "unsigned"})
    assert step > (5 if same_key and same_data else 12)
