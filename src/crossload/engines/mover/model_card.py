"""A model as files plus rows: what a listing holds, in which layout, and what a registry would have to know of it."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import IO, Any, cast

from crossload.ports.store import ObjectInfo

# Reader: (key, start, length) -> bytes, fewer than asked for at the end.
Reader = Callable[[str, int, int], bytes]

STEP_BYTES = 8 * 2**20
TEXT_BYTES_MAX = 256 * 2**10
MEMBERS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file. `same_as` is the key of an earlier file with the same bytes, "" for the first: it moves once."""

    key: str
    size_bytes: int
    sha256: str
    same_as: str = ""


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One row of a registry. `kind` is revision | experiment | run | logged-model | registered-model | model-version |
    package, in the order in which a target needs them; `fields` are JSON-shaped, in the layout's own words."""

    kind: str
    name: str
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelCard:
    """`layout` is hub | mlflow | archive | files. `left_out` are files that are nobody's content (locks, half-done
    downloads). `problems` are sentences about what is damaged or missing at the source; with any, it is not whole."""

    layout: str
    files: tuple[ModelFile, ...]
    rows: tuple[ModelRow, ...] = ()
    left_out: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @property
    def distinct_bytes(self) -> int:
        """What has to cross over: every digest once."""
        return sum(file.size_bytes for file in self.files if not file.same_as)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "size_bytes": self.size_bytes, "distinct_bytes": self.distinct_bytes}


@dataclass(slots=True)
class Reading:
    """One pass over a listing. `known` maps keys to sha256 that a copy computed already: those are not read again."""

    files: Mapping[str, ObjectInfo]
    reader: Reader
    known: Mapping[str, str] = field(default_factory=dict)
    sha256: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    _texts: dict[str, bytes] = field(default_factory=dict)

    def pieces(self, key: str) -> Iterator[bytes]:
        """A text that was read already is not asked for again."""
        size = self.files[key].size_bytes
        if len(self._texts.get(key, b"")) == size:
            yield self._texts.get(key, b"")
            return
        for start in range(0, size, STEP_BYTES):
            yield self.reader(key, start, min(STEP_BYTES, size - start))

    def text(self, key: str) -> bytes:
        """A small file's bytes; only its beginning when it is larger than 256 KiB."""
        if key not in self._texts:
            self._texts[key] = self.reader(key, 0, min(self.files[key].size_bytes, TEXT_BYTES_MAX))
        return self._texts[key]

    def digest(self, key: str) -> str:
        if key not in self.sha256:
            self.sha256[key] = self.known.get(key) or self._hash(key)
        return self.sha256[key]

    def git_digest(self, key: str) -> str:
        """What git names these bytes: SHA-1 over a header with the size, and the bytes. Their sha256 is taken in the
        same pass."""
        header = f"blob {self.files[key].size_bytes}\0".encode()
        git, plain = hashlib.sha1(header, usedforsecurity=False), hashlib.sha256()
        for piece in self.pieces(key):
            git.update(piece)
            plain.update(piece)
        self.sha256[key] = self.known.get(key) or plain.hexdigest()
        return git.hexdigest()

    def members(self, key: str) -> list[str]:
        """Names inside a tar, 10,000 at most: read to its end, hashed in the same pass. A problem when it is none."""
        stream = _Hashing(self.pieces(key))
        names: list[str] = []
        try:
            with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|*") as archive:
                names = [member.name for _, member in zip(range(MEMBERS_MAX), archive, strict=False)]
        except (tarfile.TarError, EOFError, OSError) as error:
            self.problems.append(f"{key} is no whole archive: {error}")
        self.sha256[key] = stream.finish()
        return names

    def _hash(self, key: str) -> str:
        running = hashlib.sha256()
        for piece in self.pieces(key):
            running.update(piece)
        return running.hexdigest()

    def card(self, layout: str, rows: list[ModelRow], left_out: list[str]) -> ModelCard:
        """The card of all files but those left out, in UTF-8 key order."""
        first: dict[str, str] = {}
        listed: list[ModelFile] = []
        for key in sorted(set(self.files) - set(left_out), key=str.encode):
            digest = self.digest(key)
            same_as = first.setdefault(digest, key)
            listed.append(ModelFile(key, self.files[key].size_bytes, digest, "" if same_as == key else same_as))
        return ModelCard(layout, tuple(listed), tuple(rows), tuple(sorted(left_out)), tuple(self.problems))


class _Hashing:
    """A stream for tarfile that hashes what passes; `finish` takes what the archive's end left unread."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._held, self._hash = pieces, b"", hashlib.sha256()

    def read(self, size: int) -> bytes:
        while len(self._held) < size:
            piece = next(self._pieces, b"")
            if not piece:
                break
            self._hash.update(piece)
            self._held += piece
        given, self._held = self._held[:size], self._held[size:]
        return given

    def finish(self) -> str:
        for piece in self._pieces:
            self._hash.update(piece)
        return self._hash.hexdigest()
