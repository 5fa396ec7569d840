"""The Vectors port: an index of float32 vectors with ids, text and metadata. Rows travel in blocks.

What a store must be able to do is little, so that stores with other habits fit: give its rows in the order of their ids
(a store that lists ids in its own order lists them first, sorts them, and fetches rows by id), take rows in that order,
answer a search. A store that changes vectors as it keeps them says so (`precision`), and is held to that."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from crossload.estate.digest import canonical_json
from crossload.ports.errors import Invalid
from crossload.ports.identity import Permission, PermissionCheck, SignIn, judged

_BLOCK_BYTES = 2 * 2**20
_BLOCK_ROWS_MAX = 4096


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """`metric` is cosine | l2 | ip; `kind` is hnsw | ivfflat | none (exact scan). `model` and `model_revision` name the
    embedding model that made the vectors, `unknown` when the store does not say."""

    name: str
    dimension: int
    rows: int
    metric: str = "cosine"
    kind: str = "none"
    params: Mapping[str, str] = field(default_factory=dict)
    model: str = "unknown"
    model_revision: str = "unknown"


@dataclass(frozen=True, slots=True)
class VectorRow:
    """`vector` is float32 little-endian, 4 x dimension bytes; `payload` is JSON-shaped."""

    id: str
    vector: bytes
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Block:
    """Rows side by side. `vectors` holds rows x dimension float32, little-endian, without gaps; `payloads` one
    canonical JSON object per row, fields that are null left out: None says the same as no field.

    `wire` may hold the same rows as another store of the same `wire_form` takes them, unread; a store that does not
    speak that form reads the other fields."""

    ids: Sequence[str]
    vectors: bytes
    payloads: Sequence[bytes]
    wire: bytes = field(default=b"", repr=False)
    wire_form: str = ""

    @classmethod
    def of(cls, rows: Sequence[VectorRow]) -> Block:
        """Raises Invalid for vectors of different lengths and for payloads that JSON cannot say."""
        if len({len(row.vector) for row in rows}) > 1:
            lengths = sorted({len(row.vector) for row in rows})
            raise Invalid(f"vectors of different lengths in one index: {lengths} bytes")
        payloads = [payload_bytes(row.payload, row.id) for row in rows]
        return cls([row.id for row in rows], b"".join(row.vector for row in rows), payloads)

    def rows(self) -> Iterator[VectorRow]:
        """The same rows one at a time, payloads decoded."""
        width = len(self.vectors) // len(self.ids) if self.ids else 0
        for number, (name, payload) in enumerate(zip(self.ids, self.payloads, strict=True)):
            yield VectorRow(name, self.vectors[number * width : (number + 1) * width], json.loads(payload))


class Vectors(Protocol):
    """`wire` names the wire form that this store gives and takes (see Block), "" when it has none."""

    place: str
    wire: str

    def indexes(self) -> list[IndexInfo]: ...
    def describe(self, name: str) -> IndexInfo:
        """NotFound when there is none."""
        ...

    def precision(self, metric: str) -> str:
        """What becomes of a float32 kept here in an index of this metric: exact (every bit stays), float32 (computed
        anew, as when vectors are normalised), float16 or int8."""
        ...

    def export(self, name: str, *, after: str = "", wire: str = "") -> Iterator[Block]:
        """All rows whose id is larger than `after`, in id order (bytewise), in blocks of bounded size; one snapshot
        where the store has snapshots, and else Stale when a row goes away under our eyes. `wire` asks for that wire
        form beside the rows; a store that does not speak it gives none."""
        ...

    def load(self, info: IndexInfo, blocks: Iterable[Block]) -> int:
        """Replace the whole index by these rows, which come in id order. Readers see the old rows until the new ones
        are complete. The search index is not built. Invalid for ids that are out of order or come twice, and for
        vectors of another dimension. Returns rows written."""
        ...

    def build(self, info: IndexInfo) -> None:
        """Build the search index that `info` describes. May happen twice."""
        ...

    def search(self, name: str, vectors: Sequence[bytes], k: int, *, exact: bool = False) -> list[list[str]]:
        """For each vector the ids of the k nearest rows, nearest first."""
        ...

    def drop(self, name: str) -> None:
        """Silent when it is not there."""
        ...


class ReadIdentity:
    """The Identity port of a store that tells nothing of rights: what it lets us read is tried. `method` is the
    sign-in's, in words."""

    def __init__(self, vectors: Vectors, method: str) -> None:
        self.place = vectors.place
        self._vectors, self._method = vectors, method

    def sign_in(self) -> SignIn:
        self._vectors.indexes()
        return SignIn(f"whoever reads {self.place}", self._method)

    def check(self, permission: Permission) -> PermissionCheck:
        """Whether we may write shows when we write: no harmless call tells."""

        def ask() -> str:
            if permission.capability != "vectors.read":
                return ""
            self._vectors.describe(permission.resource)
            return f"described {permission.resource}"

        return judged(permission, ask)


def block_rows(dimension: int) -> int:
    """How many rows make a block of some two MiB of vectors."""
    return max(1, min(_BLOCK_ROWS_MAX, _BLOCK_BYTES // max(1, 4 * dimension)))


def payload_bytes(payload: Mapping[str, Any], row: str = "") -> bytes:
    """The canonical JSON of a payload, null fields left out. Raises Invalid for NaN and infinity."""
    held = {name: value for name, value in payload.items() if value is not None}
    data = canonical_json(held)
    if b"NaN" in data or b"Infinity" in data:  # perhaps inside a text: look closer
        try:
            json.dumps(held, allow_nan=False)
        except ValueError as error:
            raise Invalid(f"row {row}: the payload holds a number that JSON cannot say") from error
    return data


def in_order(blocks: Iterable[Block], dimension: int) -> Iterator[Block]:
    """The same blocks, each looked at before it is handed on: ids rise, and every vector has its dimension."""
    last = ""
    for block in blocks:
        if len(block.vectors) != 4 * dimension * len(block.ids) or len(block.payloads) != len(block.ids):
            words = f"{len(block.ids)} rows of dimension {dimension} in {len(block.vectors)} bytes of vectors"
            raise Invalid(f"a block does not hold what it says: {words}", hint="is every vector of one dimension?")
        for name in block.ids:
            # Code points rise as their UTF-8 bytes do, so plain comparison is bytewise.
            if not name or name <= last:
                what = "is empty" if not name else "comes twice" if name == last else "is out of order"
                raise Invalid(f"the id {name!r} {what}: a row would be lost")
            last = name
        yield block


def vector_bytes(vectors: Sequence[bytes], info: IndexInfo) -> Sequence[bytes]:
    """The questions of a search, each of the index's dimension. Raises Invalid."""
    for vector in vectors:
        if len(vector) != 4 * info.dimension:
            words = f"the question has {len(vector)} bytes"
            raise Invalid(f"{info.name} has dimension {info.dimension}, {words}")
    return vectors
