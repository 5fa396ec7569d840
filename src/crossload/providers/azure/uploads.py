"""Uploads in parts over block blobs.

Azure has no upload of its own to name: blocks wait, uncommitted, beside a blob. So an upload is a small blob under a
prefix that lists leave out; it says what the object will be, and abort deletes it. A block's id says which upload,
which part, where, and the CRC-64 of its bytes, all in a fixed width: what the server has can be asked, and two uploads
of one key never mix."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from awscrt import checksums

from crossload.ports.errors import Invalid, NotFound
from crossload.ports.store import Bytes, Part

PREFIX = ".crossload/uploads/"
_TOKEN_LETTERS = 12
_ID_LETTERS = _TOKEN_LETTERS + 5 + 12 + 16  # Azure allows 64 before base64


@dataclass(frozen=True, slots=True)
class Block:
    """Block ids have one width for all blocks of a blob, or the service refuses them."""

    upload: str
    number: int
    offset_bytes: int
    crc64: str

    @property
    def id(self) -> str:
        return f"{self.upload}{self.number:05d}{self.offset_bytes:012x}{self.crc64}"

    @classmethod
    def read(cls, text: str) -> Block | None:
        if len(text) != _ID_LETTERS:
            return None
        token, rest = text[:_TOKEN_LETTERS], text[_TOKEN_LETTERS:]
        try:
            return cls(token, int(rest[:5]), int(rest[5:17], 16), rest[17:])
        except ValueError:
            return None  # a block somebody else put there


def is_upload(key: str) -> bool:
    return key.startswith(PREFIX)


def crc64(data: Bytes) -> str:
    return f"{checksums.crc64nvme(cast('bytes', data)):016x}"


def begin(container: Any, held: Mapping[str, Any]) -> str:
    upload = secrets.token_hex(_TOKEN_LETTERS // 2)
    container.get_blob_client(_name(upload)).upload_blob(json.dumps(held).encode(), overwrite=False)
    return upload


def meta_of(container: Any, upload: str) -> dict[str, Any]:
    """What begin was given; the SDK's ResourceNotFoundError when the upload is gone."""
    return json.loads(container.get_blob_client(_name(upload)).download_blob().readall())


def expect_open(container: Any, upload: str) -> None:
    """The SDK's ResourceNotFoundError when the upload is gone: its blocks would wait for nobody."""
    container.get_blob_client(_name(upload)).get_blob_properties()


def forget(container: Any, upload: str) -> None:
    """Its blocks are dropped by the service, after a week or with the next commit."""
    container.get_blob_client(_name(upload)).delete_blob()


def parts_of(committed: list[Any], uncommitted: list[Any], upload: str) -> list[Part]:
    """The parts of this upload among a blob's blocks; those committed already count, so that complete may repeat."""
    found: dict[int, Part] = {}
    for item in [*committed, *uncommitted]:
        block = Block.read(str(item.id))
        if block is not None and block.upload == upload:
            found[block.number] = Part(block.number, block.offset_bytes, int(item.size), block.crc64)
    return [found[number] for number in sorted(found)]


def blocks_for(upload: str, parts: list[Part]) -> list[str]:
    """Ids in order. Raises Invalid for an upload without parts."""
    if not parts:
        raise Invalid(f"upload {upload} needs at least one part")
    ordered = sorted(parts, key=lambda part: part.number)
    return [Block(upload, part.number, part.offset_bytes, part.etag).id for part in ordered]


def _name(upload: str) -> str:
    if len(upload) != _TOKEN_LETTERS or not upload.isalnum():
        raise NotFound(f"no open upload {upload!r}")
    return f"{PREFIX}{upload}.json"
