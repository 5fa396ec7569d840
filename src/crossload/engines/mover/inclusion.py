"""Proof to others: a folder with a signed manifest checked as a whole, and one object proved by a small file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from crossload.engines.mover.manifest import (
    BODY,
    CHECKPOINT,
    MANIFEST,
    PUBLIC_KEY,
    SIGNATURE,
    SUMS,
    canonical_line,
    lines_of,
    sums_line,
)
from crossload.engines.mover.merkle import MerkleTree, PathTree, leaf_hash, root_from_path
from crossload.engines.mover.signing import (
    Checkpoint,
    PublicKey,
    parse_checkpoint,
    pinned_fingerprint,
    read_public_key,
)
from crossload.ports.errors import DigestMismatch, Invalid, NotFound

_PROBLEMS_MAX = 20
_PROOF_BYTES_MAX = 2**22
_HEX = set("0123456789abcdef")
_PLAIN = re.compile(rb'\{"key":"([^"\\\x00-\x1f]*)","sha256":"([0-9a-f]{64})","size_bytes":(0|[1-9][0-9]{0,18})\}\n')
_T = TypeVar("_T")


@dataclass(slots=True)
class ManifestCheck:
    """`problems` names the first of them, `more` counts the rest. `root` is that of the lines as they are; `origin`
    and `fingerprint` are "" when the checkpoint or its key cannot be read. `pinned` when the key was compared."""

    origin: str = ""
    objects: int = 0
    size_bytes: int = 0
    root: str = ""
    fingerprint: str = ""
    pinned: bool = False
    problems: list[str] = field(default_factory=list)
    more: int = 0

    @property
    def good(self) -> bool:
        return not self.problems

    def wrong(self, text: str) -> None:
        if len(self.problems) < _PROBLEMS_MAX:
            self.problems.append(text)
        else:
            self.more += 1

    def to_json(self) -> dict[str, Any]:
        return {"good": self.good, **asdict(self)}


@dataclass(frozen=True, slots=True)
class Inclusion:
    """One object of a signed manifest. `line` is its line without the newline, `path` the audit path of RFC 6962 from
    the leaf up, in hexadecimal, `checkpoint` the signed note: nothing else is needed but the signer's public key."""

    line: str
    leaf_index: int
    tree_size: int
    path: tuple[str, ...]
    checkpoint: str

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "path": list(self.path)}

    @property
    def entry(self) -> dict[str, Any]:
        """{key, size_bytes, sha256} as the line says it. Raises ValueError."""
        return _entry(self.line.encode())


class SignedFolder:
    """A folder with manifest.jsonl, SHA256SUMS and the checkpoint's files. Raises Invalid when no manifest is there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = folder / MANIFEST
        if not self.manifest.is_file():
            raise Invalid(f"there is no {MANIFEST} in {folder}", hint="name the folder that the copy's manifest is in")

    def show(self) -> dict[str, Any]:
        """What the checkpoint says, without reading the manifest. Raises Invalid when there is none."""
        note, public = self._signed()
        return {
            "origin": note.origin, "objects": note.tree_size, "root": note.root,
            "fingerprint": public.fingerprint, "verifier_key": public.verifier_key(note.origin),
            "signature": "good" if note.signature_of(public) else "bad",
        }  # fmt: skip

    def check(self, pin: str = "") -> ManifestCheck:
        """Whether root, signature and SHA256SUMS agree with the manifest, in one pass over it. `pin` is the signer's
        public key as he told it: a PEM file, or `sha256:FINGERPRINT`. Raises Invalid for a bad pin."""
        wanted = pinned_fingerprint(pin) if pin else ""
        found = ManifestCheck(pinned=bool(pin))
        note = _tried(found, CHECKPOINT, self._note)
        public = _tried(found, PUBLIC_KEY, self._public)
        self._check_lines(found)
        if public is not None:
            found.fingerprint = public.fingerprint
            if wanted and public.fingerprint != wanted:
                found.wrong(f"{PUBLIC_KEY} is not the key that was pinned: {public.fingerprint}, not {wanted}")
        if note is None:
            return found
        found.origin = note.origin
        if (note.tree_size, note.root) != (found.objects, found.root):
            found.wrong(
                f"{CHECKPOINT} signs {note.tree_size} objects with root {note.root}; "
                f"{MANIFEST} has {found.objects} with root {found.root}"
            )
        signature = note.signature_of(public) if public is not None else None
        if public is not None and signature is None:
            found.wrong(f"{CHECKPOINT} is not signed by the key in {PUBLIC_KEY}")
        for name, content in ((BODY, note.body), (SIGNATURE, signature)):
            if content is not None and _bytes_of(self.folder / name) != content:
                found.wrong(f"{name} is missing, or is not that of {CHECKPOINT}")
        return found

    def include(self, key: str) -> Inclusion:
        """The proof of one object, in one pass and in memory that does not grow with the manifest. Raises NotFound for
        a key that is not in it, DigestMismatch when the checkpoint does not sign this manifest."""
        note, public = self._signed()
        if note.signature_of(public) is None:
            raise DigestMismatch(f"{CHECKPOINT} is not signed by the key in {PUBLIC_KEY}", hint="crossload proof check")
        try:
            part = canonical_line({"key": key})[1:-1]
        except UnicodeEncodeError:
            raise NotFound("a name that is no Unicode is not in a manifest") from None
        tree, wanted = PathTree(), b""
        for line in lines_of(self.manifest):
            leaf = line.removesuffix(b"\n")
            this = not wanted and part in leaf and _key_of(leaf) == key
            if this:
                wanted = leaf
            tree.add(leaf, wanted=this)
        if (tree.leaves, tree.root().hex()) != (note.tree_size, note.root):
            raise DigestMismatch(f"{CHECKPOINT} does not sign this {MANIFEST}", hint="crossload proof check")
        if tree.index is None:
            raise NotFound(f"{key} is not in the manifest", hint="`jq -r .key manifest.jsonl` lists the keys")
        path = tuple(item.hex() for item in tree.path())
        return Inclusion(wanted.decode(), tree.index, tree.leaves, path, note.note.decode())

    def _note(self) -> Checkpoint:
        return parse_checkpoint((self.folder / CHECKPOINT).read_bytes())

    def _public(self) -> PublicKey:
        return read_public_key((self.folder / PUBLIC_KEY).read_bytes())

    def _signed(self) -> tuple[Checkpoint, PublicKey]:
        try:
            return self._note(), self._public()
        except FileNotFoundError as error:
            raise Invalid(
                f"the manifest in {self.folder} is not signed", hint="`crossload apply` writes and signs it anew"
            ) from error

    def _check_lines(self, found: ManifestCheck) -> None:
        """Every line is whole, canonical and in order, and SHA256SUMS says the same in other words."""
        tree, sums = MerkleTree(), _sums(self.folder / SUMS)
        before, sums_agree = b"", True
        for number, line in enumerate(lines_of(self.manifest), 1):
            leaf = line.removesuffix(b"\n")
            tree.add(leaf)
            theirs = next(sums, None)
            try:
                key, ours, size_bytes = read_line(line)
            except ValueError as error:
                found.wrong(f"{MANIFEST} line {number}: {error}")
                continue
            found.size_bytes += size_bytes
            if number > 1 and key <= before:
                found.wrong(f"{MANIFEST} line {number}: its key does not come after the one before")
            before = key
            if sums_agree and theirs != ours:
                sums_agree = False
                found.wrong(f"{SUMS} differs from {MANIFEST} at line {number}")
        if sums_agree and next(sums, None) is not None:
            found.wrong(f"{SUMS} goes on after the last line of {MANIFEST}")
        found.objects, found.root = tree.leaves, tree.root().hex()


def read_inclusion(data: bytes) -> Inclusion:
    """Read what `include` gave. Raises Invalid when it is something else."""
    names = {item.name for item in fields(Inclusion)}
    try:
        value = json.loads(data) if len(data) <= _PROOF_BYTES_MAX else None
    except (ValueError, RecursionError):
        value = None
    kinds = {"line": str, "leaf_index": int, "tree_size": int, "path": list, "checkpoint": str}
    if not isinstance(value, dict) or set(value) != names or any(type(value[n]) is not k for n, k in kinds.items()):
        raise Invalid(f"this is no proof of inclusion: expected JSON with {', '.join(sorted(names))}")
    if any(not isinstance(item, str) for item in value["path"]):
        raise Invalid("this is no proof of inclusion: its path is not a list of hashes")
    return Inclusion(value["line"], value["leaf_index"], value["tree_size"], tuple(value["path"]), value["checkpoint"])


def check_inclusion(data: bytes, pem: bytes) -> tuple[Inclusion, list[str]]:
    """(what the bytes of a proof say, what is wrong with it by the signer's public key). Raises Invalid when either is
    something else. The proof comes from a stranger."""
    proof = read_inclusion(data)
    return proof, _wrong_with(proof, read_public_key(pem))


def _wrong_with(proof: Inclusion, public: PublicKey) -> list[str]:
    """Nothing when the key has signed a manifest that has the proof's line."""
    problems: list[str] = []
    try:
        note = parse_checkpoint(proof.checkpoint.encode())
        path = [bytes.fromhex(item) for item in proof.path]
        leaf = proof.line.encode()
        _entry(leaf)
    except (Invalid, ValueError) as error:
        return [str(error)]
    if note.signature_of(public) is None:
        problems.append(f"the checkpoint is not signed by {public.fingerprint}")
    if note.tree_size != proof.tree_size:
        problems.append(f"the checkpoint signs {note.tree_size} objects, the proof speaks of {proof.tree_size}")
    root = root_from_path(leaf_hash(leaf), proof.leaf_index, note.tree_size, path)
    if any(len(item) != 32 for item in path) or root is None or root.hex() != note.root:
        problems.append("the path does not lead from the line to the signed root")
    return problems


def read_line(line: bytes) -> tuple[bytes, bytes, int]:
    """(key, its line in SHA256SUMS, size in bytes) of a whole line of a manifest. Raises ValueError when it is not
    canonical, lacks something, or is cut off."""
    plain = _PLAIN.fullmatch(line)
    if plain is not None:  # nearly every line: what needs no escape is canonical as it stands, at a third of the cost
        key, sha256, digits = plain.groups()
        key.decode()
        return key, b"%b  %b\n" % (sha256, key), int(digits)
    leaf = line.removesuffix(b"\n")
    entry = _entry(leaf)
    if leaf == line:
        raise ValueError("cut off")
    if canonical_line(entry) != leaf:
        raise ValueError("no canonical JSON")
    return entry["key"].encode(), sums_line(entry["sha256"], entry["key"]).encode(), entry["size_bytes"]


def _entry(leaf: bytes) -> dict[str, Any]:
    """A manifest line's value. Raises ValueError when it lacks what every line has."""
    try:
        value = json.loads(leaf)
    except RecursionError:
        value = None
    if not isinstance(value, dict):
        raise ValueError("no JSON object")
    key, size_bytes, sha256 = (value.get(name) for name in ("key", "size_bytes", "sha256"))
    if not isinstance(key, str) or type(size_bytes) is not int or size_bytes < 0:
        raise ValueError("no key, or no size")
    if not isinstance(sha256, str) or len(sha256) != 64 or not set(sha256) <= _HEX:
        raise ValueError("no sha256")
    return value


def _key_of(leaf: bytes) -> str | None:
    try:
        return _entry(leaf)["key"]
    except ValueError:
        return None


def _sums(path: Path) -> Iterator[bytes]:
    try:
        yield from lines_of(path)
    except FileNotFoundError:
        return


def _bytes_of(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _tried(found: ManifestCheck, name: str, read: Callable[[], _T]) -> _T | None:
    """What `read` gives, or None and a problem."""
    try:
        return read()
    except FileNotFoundError:
        found.wrong(f"{name} is missing: the manifest is not signed")
    except Invalid as error:
        found.wrong(f"{name}: {error}")
    return None
