"""Signing the root of a manifest: a checkpoint as transparency logs write it (C2SP tlog-checkpoint in a signed note),
and the same as plain files for openssl. Keys are ed25519."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from crossload.engines.mover.manifest import (
    BODY,
    CHECKPOINT,
    PUBLIC_KEY,
    SIGNATURE,
    ManifestReport,
    checkpoint_body,
    sync_folder,
    withdraw_checkpoint,
)
from crossload.estate.secret import ReferenceUnresolved, is_reference, resolve
from crossload.estate.whole import write_whole
from crossload.ports.errors import Invalid

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_ED25519 = b"\x01"  # the signature type's byte in a signed note
_ORIGIN = re.compile(r"[!-*,-~]{1,512}")  # visible ASCII without `+`, which separates the parts of a verifier key
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_NOTE_BYTES_MAX, _SIGNATURES_MAX = 2**16, 100
_MAKE_A_KEY = "`openssl genpkey -algorithm ed25519 -out proof.pem` makes one"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """`raw` is the 32 bytes of RFC 8032."""

    raw: bytes

    def der(self) -> bytes:
        """SubjectPublicKeyInfo, as `openssl pkey -pubin -outform DER` gives it (RFC 8410)."""
        return bytes.fromhex("302a300506032b6570032100") + self.raw

    def pem(self) -> bytes:
        return b"-----BEGIN PUBLIC KEY-----\n" + base64.b64encode(self.der()) + b"\n-----END PUBLIC KEY-----\n"

    @property
    def fingerprint(self) -> str:
        """sha256:HEX of the DER form: what is told over another channel."""
        return f"sha256:{hashlib.sha256(self.der()).hexdigest()}"

    def key_id(self, name: str) -> bytes:
        """The four bytes by which a signed note tells keys apart. No security lies in them."""
        return hashlib.sha256(name.encode() + b"\n" + _ED25519 + self.raw).digest()[:4]

    def verifier_key(self, name: str) -> str:
        """The key as log tools take it: NAME+ID+KEY."""
        return f"{name}+{self.key_id(name).hex()}+{base64.b64encode(_ED25519 + self.raw).decode()}"

    def signed(self, signature: bytes, body: bytes) -> bool:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, body)
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key in memory, for as long as one manifest is signed."""

    private: Ed25519PrivateKey = field(repr=False)

    @property
    def public(self) -> PublicKey:
        return PublicKey(self.private.public_key().public_bytes_raw())

    def sign(self, body: bytes) -> bytes:
        return self.private.sign(body)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`root` is hexadecimal. `signatures` are (key name, four bytes of key id and the signature), ours first; others,
    such as witnesses', may follow."""

    origin: str
    tree_size: int
    root: str
    signatures: tuple[tuple[str, bytes], ...] = ()

    @property
    def body(self) -> bytes:
        """What is signed."""
        return checkpoint_body(self.origin, self.tree_size, self.root)

    @property
    def note(self) -> bytes:
        """The file `checkpoint`."""
        lines = (f"— {name} {base64.b64encode(blob).decode()}\n" for name, blob in self.signatures)
        return self.body + b"\n" + "".join(lines).encode()

    def signature_of(self, public: PublicKey) -> bytes | None:
        """The 64 bytes that this key has signed the body with; None when it has not. The first line that names the
        key decides, as in other readers of notes."""
        wanted = public.key_id(self.origin)
        for name, blob in self.signatures:
            if name == self.origin and blob[:4] == wanted:
                return blob[4:] if public.signed(blob[4:], self.body) else None
        return None


def parse_checkpoint(data: bytes) -> Checkpoint:
    """Read a signed note whose text is a checkpoint without extension lines. Nothing is verified here. Raises Invalid
    naming what is wrong with it."""
    try:
        if len(data) > _NOTE_BYTES_MAX:
            raise ValueError("it is too long")
        body, blank, signatures = data.decode().rpartition("\n\n")
        lines = body.split("\n")
        if not blank or len(lines) != 3:
            raise ValueError("expected origin, size and root, a blank line, and signatures")
        origin, size, root = lines
        if not _ORIGIN.fullmatch(origin):
            raise ValueError("its origin is not visible ASCII without `+`")
        if not _SIZE.fullmatch(size):
            raise ValueError("its tree size is no number")
        found = tuple(_signature(line) for line in signatures.removesuffix("\n").split("\n"))
        if not signatures.endswith("\n") or len(found) > _SIGNATURES_MAX:
            raise ValueError("its last line has no end, or it has too many")
        return Checkpoint(origin, int(size), _exactly(root, 32).hex(), found)
    except ValueError as error:  # binascii.Error and UnicodeDecodeError are such
        raise Invalid(f"this is no checkpoint: {error}") from error


def _signature(line: str) -> tuple[str, bytes]:
    parts = line.split(" ")
    if len(parts) != 3 or parts[0] != "—" or not parts[1]:
        raise ValueError("a signature line is not `— NAME BASE64`")
    blob = base64.b64decode(parts[2], validate=True)
    if len(blob) < 5 or base64.b64encode(blob).decode() != parts[2]:
        raise ValueError("a signature is not base64 of an id and a signature")
    return parts[1], blob


def _exactly(text: str, size_bytes: int) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        data = b""
    if len(data) != size_bytes or base64.b64encode(data).decode() != text:
        raise ValueError(f"its root is not base64 of {size_bytes} bytes")
    return data


def origin_of(*parts: str) -> str:
    """An origin from names, such as a migration's and an asset's: what an origin may not hold is percent-encoded."""
    return "/".join(quote(part, safe=":@~") for part in ("crossload", *parts))


def sign_manifest(report: ManifestReport, folder: Path, key: SigningKey, origin: str) -> Checkpoint:
    """Sign what `write_manifest` has just written to `folder`, and write the checkpoint's four files beside it. The
    note comes last, and an older checkpoint is withdrawn first: killed at any point, the files that are there fit the
    manifest or verify under no key. Signing the same again changes nothing. Raises Invalid for a bad origin."""
    if not _ORIGIN.fullmatch(origin):
        raise Invalid(
            f"{origin!r} cannot be the origin of a checkpoint",
            hint="use up to 512 visible ASCII characters without blanks and `+`, such as team.example/migration/asset",
        )
    public, unsigned = key.public, Checkpoint(origin, report.objects, report.root)
    signature = key.sign(unsigned.body)
    made = Checkpoint(origin, report.objects, report.root, ((origin, public.key_id(origin) + signature),))
    files = {PUBLIC_KEY: public.pem(), BODY: made.body, SIGNATURE: signature, CHECKPOINT: made.note}
    if all(_content(folder / name) == content for name, content in files.items()):
        return made
    withdraw_checkpoint(folder)
    for name, content in files.items():
        write_whole(folder / name, content, durable=True)
    sync_folder(folder)
    return made


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


# -- keys ------------------------------------------------------------------------------------------------------------


def signing_key(workspace: Path, reference: str = "", environment: Mapping[str, str] | None = None) -> SigningKey:
    """The key behind a reference (`env:NAME`, `file:PATH`; PEM, PKCS8). Without one, the workspace's own, which is
    made once in keys/proof.pem. Raises Invalid; no message holds a key."""
    if not reference:
        path = workspace.resolve() / "keys" / "proof.pem"
        _make_once(path)
        reference = f"file:{path}"
    if not is_reference(reference):
        raise Invalid("the signing key must be a reference (env:NAME or file:PATH), never a value", hint=_MAKE_A_KEY)
    try:
        text = resolve(reference, environment)
    except ReferenceUnresolved as error:
        raise Invalid(f"there is no signing key: {error}", hint=_MAKE_A_KEY) from error
    return _private_key(text.encode(), reference)


def _private_key(pem: bytes, reference: str) -> SigningKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        loaded = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # not chained: the error may quote what it read
        raise Invalid(f"{reference} is no private key in PEM without a passphrase", hint=_MAKE_A_KEY) from None
    if not isinstance(loaded, Ed25519PrivateKey):
        raise Invalid(f"{reference} is a key, but not an ed25519 one", hint=_MAKE_A_KEY)
    return SigningKey(loaded)


def _make_once(path: Path) -> None:
    """Two processes may come here at once: each makes a whole key under a name of its own, and the first to take the
    real name wins, for both."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    if path.exists():
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(pem)
            out.flush()
            os.fsync(out.fileno())
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(draft)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)


def read_public_key(pem: bytes) -> PublicKey:
    """Raises Invalid when it is no ed25519 public key in PEM."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        loaded = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):  # not chained: it may be a private key that was given by mistake
        loaded = None
    if not isinstance(loaded, Ed25519PublicKey):
        raise Invalid("this is no ed25519 public key in PEM", hint="give the signer's checkpoint.pub.pem")
    return PublicKey(loaded.public_bytes_raw())


def pinned_fingerprint(text: str) -> str:
    """The fingerprint that a user pins: `sha256:HEX` itself, or that of the PEM file which `text` names. Raises
    Invalid, OSError."""
    if re.fullmatch(r"sha256:[0-9a-fA-F]{64}", text):
        return text.lower()
    return read_public_key(Path(text).read_bytes()).fingerprint
