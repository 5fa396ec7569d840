"""Uploads in parts on a disk: a folder per upload, a file per part, named by number, offset and digest."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from crossload.estate.whole import write_whole
from crossload.ports.errors import DigestMismatch, Invalid, NotFound
from crossload.ports.store import Bytes, ObjectMeta, Part
from crossload.providers.local.paths import SIDE, make_folders, sync_folder
from crossload.providers.local.sidecar import meta_from_json, meta_to_json

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Upload:
    folder: Path
    id: str

    @classmethod
    def begin(cls, bucket: Path, key: str, meta: ObjectMeta) -> Upload:
        upload = cls._at(bucket, secrets.token_hex(12))
        make_folders(upload.folder, bucket)
        held = {"key": key, "meta": meta_to_json(meta)}
        write_whole(upload.folder / "upload.json", json.dumps(held, ensure_ascii=False, indent=1), durable=True)
        sync_folder(upload.folder)
        return upload

    @classmethod
    def find(cls, bucket: Path, key: str, upload: str) -> Upload:
        """Raises NotFound when it was completed, aborted or never opened."""
        found = cls._at(bucket, upload)
        if not (found.folder / "upload.json").is_file():
            raise NotFound(f"no open upload {upload} of {bucket.name}/{key}")
        return found

    @classmethod
    def _at(cls, bucket: Path, upload: str) -> Upload:
        if not upload.isalnum():
            raise Invalid(f"not an upload id: {upload!r}")
        return cls(bucket / SIDE / "uploads" / upload, upload)

    def meta(self) -> ObjectMeta:
        return meta_from_json(json.loads((self.folder / "upload.json").read_bytes())["meta"])

    def add(self, part: Part, data: Bytes) -> Part:
        digest = hashlib.sha256(data).hexdigest()
        name = f"{part.number:05d}-{part.offset_bytes:016x}-{digest}"
        write_whole(self.folder / name, data, durable=True)
        sync_folder(self.folder)
        for other in self.folder.glob(f"{part.number:05d}-*"):
            if other.name != name:
                other.unlink(missing_ok=True)  # the part was sent before with other bytes: the last word counts
        return Part(part.number, part.offset_bytes, len(data), digest)

    def parts(self) -> list[Part]:
        found: list[Part] = []
        for file in sorted(self.folder.glob("[0-9]*-*-*")):
            number, offset, digest = file.name.split("-")
            found.append(Part(int(number), int(offset, 16), file.stat().st_size, digest))
        return found

    def join(self, parts: list[Part], out: BinaryIO) -> str:
        """Write the parts in order to `out`; the SHA-256 of all. Raises DigestMismatch when the disk changed one."""
        if not parts:
            raise Invalid(f"upload {self.id} needs at least one part")
        whole = hashlib.sha256()
        for part in sorted(parts, key=lambda part: part.number):
            files = list(self.folder.glob(f"{part.number:05d}-*-{part.etag}")) if part.etag.isalnum() else []
            if not files:
                raise Invalid(f"upload {self.id}: part {part.number} is not there as it was sent", hint="send it again")
            own = hashlib.sha256()
            with files[0].open("rb", buffering=0) as source:
                while chunk := source.read(_CHUNK_BYTES):
                    own.update(chunk)
                    whole.update(chunk)
                    out.write(chunk)
            if own.hexdigest() != part.etag:
                raise DigestMismatch(f"upload {self.id}: part {part.number} changed on disk")
        return whole.hexdigest()

    def forget(self) -> None:
        (self.folder / "upload.json").unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)
