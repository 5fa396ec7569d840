"""User metadata that Azure cannot hold as it is, written so that it can, and back.

Azure takes names that are C# identifiers and values in ASCII. Names and values that are not are encoded, and a mark of
ours records it, so that metadata of other writers are never decoded by accident."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote, unquote

MARK = "crossload_encoded"
_PLAIN_NAME = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*\Z")
_PLAIN_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?\Z")


def encode(user: Mapping[str, str]) -> dict[str, str]:
    """Metadata as Azure takes them. The same when all names are identifiers and all values plain ASCII."""
    names = any(not _PLAIN_NAME.match(name) or name == MARK for name in user)
    values = any(not _PLAIN_VALUE.match(value) for value in user.values())
    if not names and not values:
        return dict(user)
    out = {
        (_encode_name(name) if names else name): (quote(value, safe=" /:;,=+@&()") if values else value)
        for name, value in user.items()
    }
    if values:  # a header's value neither begins nor ends with a space, and an empty one gets lost
        out = {name: f"v{value}." for name, value in out.items()}
    return {**out, MARK: "".join(("n" if names else "", "v" if values else ""))}


def decode(held: Mapping[str, str]) -> dict[str, str]:
    """What `encode` was given, and everything else as it is, with lower-case names."""
    user = {name.lower(): value for name, value in held.items()}
    mark = user.get(MARK)
    if mark not in ("n", "v", "nv"):
        return user
    del user[MARK]
    if "v" in mark:
        user = {name: unquote(value[1:-1]) for name, value in user.items()}
    if "n" in mark:
        user = {_decode_name(name): value for name, value in user.items()}
    return user


def _encode_name(name: str) -> str:
    letters = [
        "__" if letter == "_" else letter if letter.isascii() and letter.isalnum() else _hexed(letter)
        for letter in name
    ]
    if letters and letters[0].isdigit():
        letters[0] = _hexed(letters[0])
    return "".join(letters)


def _hexed(letter: str) -> str:
    return "".join(f"_{byte:02x}" for byte in letter.encode())


def _decode_name(text: str) -> str:
    raw = re.sub(
        rb"__|_([0-9a-f]{2})", lambda m: b"_" if m[0] == b"__" else bytes.fromhex(m[1].decode()), text.encode()
    )
    return raw.decode("utf-8", "replace")
