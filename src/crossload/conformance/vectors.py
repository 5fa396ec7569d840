"""The conformance suite of the Vectors port: what every provider of vector indexes must keep."""

from __future__ import annotations

import itertools
import math
import secrets
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from crossload.conformance.case import (
    Case,
    Collection,
    NotOffered,
    expect,
    expect_equal,
    expect_error,
)
from crossload.ports.errors import AccessDenied, CrossloadError, Invalid, NotFound, NotSignedIn, Unavailable
from crossload.ports.vectors import Block, IndexInfo, VectorRow, Vectors, block_rows

__all__ = ["CASES", "Case", "VectorsBench"]

_DIMENSION = 24


@dataclass(slots=True)
class VectorsBench:
    """`open` gives a new Vectors. Optional doors, as for stores: `reader` may read and not write, `stranger` neither,
    `unsigned` has wrong credentials, `absent` has no server. `rows_many` is how many rows a large load has."""

    open: Callable[[], Vectors]
    reader: Callable[[], Vectors] | None = None
    stranger: Callable[[], Vectors] | None = None
    unsigned: Callable[[], Vectors] | None = None
    absent: Callable[[], Vectors] | None = None
    rows_many: int = 3000
    prefix: str = field(default_factory=lambda: f"conf_{secrets.token_hex(4)}")
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def index(self, *, rows: int = 0, metric: str = "cosine", kind: str = "none") -> IndexInfo:
        """A name nobody else uses."""
        return IndexInfo(f"{self.prefix}_{next(self._numbers)}", _DIMENSION, rows, metric, kind)

    def close(self) -> None:
        vectors = self.open()
        for info in vectors.indexes():
            if info.name.startswith(self.prefix):
                vectors.drop(info.name)


VECTORS = Collection[VectorsBench]()
case = VECTORS.case


def _vector(seed: int, dimension: int = _DIMENSION) -> bytes:
    """Not normalised, with bit patterns that a pass through text or double would change."""
    values = [math.sin(seed * 12.9898 + position * 78.233) * 1.7 for position in range(dimension)]
    return struct.pack(f"<{dimension}f", *values)


def _rows(count: int) -> list[VectorRow]:
    return [VectorRow(f"chunk-{n:04d}", _vector(n), {"text": f"text {n}", "position": n}) for n in range(count)]


def _blocks(rows: Iterable[VectorRow], together: int = 64) -> Iterator[Block]:
    held: list[VectorRow] = []
    for row in rows:
        held.append(row)
        if len(held) == together:
            yield Block.of(held)
            held = []
    if held:
        yield Block.of(held)


def _load(vectors: Vectors, info: IndexInfo, rows: Iterable[VectorRow]) -> int:
    return vectors.load(info, _blocks(rows))


def _exported(vectors: Vectors, name: str, after: str = "") -> list[VectorRow]:
    return [row for block in vectors.export(name, after=after) for row in block.rows()]


def _expect_rows(vectors: Vectors, info: IndexInfo, wanted: list[VectorRow], what: str) -> None:
    """Ids and payloads as they were; vectors too, or as near as the store's declared precision of this metric."""
    got = _exported(vectors, info.name)
    if vectors.precision(info.metric) == "exact":
        expect_equal(got, wanted, what)
        return
    expect_equal([(row.id, row.payload) for row in got], [(row.id, row.payload) for row in wanted], what)
    for one, other in zip(got, wanted, strict=True):
        near = zip(*(struct.unpack(f"<{_DIMENSION}f", row.vector) for row in (one, other)), strict=True)
        expect(all(math.isclose(x, y, rel_tol=1e-5, abs_tol=1e-6) for x, y in near), f"vector of {one.id}")


def _loaded(bench: VectorsBench, rows: list[VectorRow], **shape: str) -> tuple[Vectors, IndexInfo]:
    vectors, info = bench.open(), bench.index(rows=len(rows), **shape)
    expect_equal(_load(vectors, info, rows), len(rows), "rows written")
    return vectors, info


@case
def load_and_export_are_bit_exact(bench: VectorsBench) -> None:
    """What load was given, export gives back: every bit of every vector, every payload."""
    rows = _rows(200)
    vectors, info = _loaded(bench, rows)
    _expect_rows(vectors, info, rows, "rows")


@case
def special_floats_survive(bench: VectorsBench) -> None:
    """Negative zero, the smallest denormal and the largest float keep their bits."""
    words = [0x80000000, 0x00000001, 0x7F7FFFFF, 0xFF7FFFFF, 0x3F800001, *range(1, _DIMENSION - 4)]
    row = VectorRow("special", struct.pack(f"<{_DIMENSION}I", *words), {})
    vectors, info = _loaded(bench, [row], metric="l2")
    expect_equal([found.vector for found in _exported(vectors, info.name)], [row.vector], "bits")


@case
def export_is_in_bytewise_order(bench: VectorsBench) -> None:
    """export gives ids in the order of their UTF-8 bytes, whatever the server's language."""
    ids = ["b", "B", "a", "_", "\u00e9", "e", "e\u0301", "10", "9", "a b", "a-b", "ab", "Z", "z", "東", "🚀", "ß", "ss"]
    rows = [VectorRow(name, _vector(n), {}) for n, name in enumerate(sorted(ids, key=str.encode))]
    vectors, info = _loaded(bench, rows)
    expect_equal([row.id for row in _exported(vectors, info.name)], sorted(ids, key=str.encode), "ids")


@case
def export_goes_on_after_an_id(bench: VectorsBench) -> None:
    """export with `after` gives exactly the rows with larger ids: a run that was killed can go on."""
    vectors, info = _loaded(bench, _rows(150))
    for after, wanted in (("chunk-0099", _rows(150)[100:]), ("chunk-0099x", _rows(150)[100:]), ("zzz", [])):
        got = [row.id for row in _exported(vectors, info.name, after)]
        expect_equal(got, [row.id for row in wanted], f"ids after {after}")


@case
def blocks_are_bounded(bench: VectorsBench) -> None:
    """export gives blocks in the port's own measure, whatever the blocks of the load were."""
    vectors, info = _loaded(bench, _rows(300))
    for block in vectors.export(info.name):
        expect(0 < len(block.ids) <= block_rows(_DIMENSION), f"a block of {len(block.ids)} rows")
        expect_equal(len(block.vectors), 4 * _DIMENSION * len(block.ids), "bytes of a block")
        expect_equal(len(block.payloads), len(block.ids), "payloads of a block")


@case
def wire_blocks_make_the_same_index(bench: VectorsBench) -> None:
    """Rows handed on unread, in the store's own wire form, are the same rows."""
    vectors, info = _loaded(bench, _rows(200))
    if not vectors.wire:
        raise NotOffered("the store has no wire form of its own")
    other = bench.index(rows=200)
    count = vectors.load(replace(info, name=other.name), vectors.export(info.name, wire=vectors.wire))
    expect_equal(count, 200, "rows written")
    expect_equal(_exported(vectors, other.name), _exported(vectors, info.name), "rows")


@case
def the_embedding_model_is_kept(bench: VectorsBench) -> None:
    """The name and revision of the model that made the vectors stay with the index; `unknown` stays unknown."""
    vectors = bench.open()
    for model, revision in (("all-MiniLM-L6-v2", "c9745ed1"), ("unknown", "unknown")):
        info = replace(bench.index(), model=model, model_revision=revision)
        _load(vectors, info, _rows(3))
        found = vectors.describe(info.name)
        expect_equal((found.model, found.model_revision), (model, revision), "model and revision")


@case
def awkward_text_survives(bench: VectorsBench) -> None:
    """Texts with quotes, tabs, backslashes, line ends and emoji come back as they were, in ids and payloads."""
    awkward = "tab\there, \"quoted\", back\\slash \\N, line\nend\r\n, 'single', emoji 🚀, null-word NULL"
    rows = [VectorRow(awkward, _vector(1), {"text": awkward, "empty": ""})]
    vectors, info = _loaded(bench, rows)
    _expect_rows(vectors, info, rows, "rows")


@case
def payload_types_are_kept(bench: VectorsBench) -> None:
    """Strings, integers, floats, booleans, lists and objects come back with their types; `1`, `1.0` and "1" differ."""
    payload = {
        "text": "1", "whole": 1, "large": 2**60, "huge": 2**70, "half": 0.5, "one": 1.0, "third": 1 / 3, "tiny": 1e-300,
        "yes": True, "no": False, "list": [1, "a", None, 2.5], "object": {"deep": {"x": [True]}},
        "empty_list": [], "empty_object": {},
    }  # fmt: skip
    vectors, info = _loaded(bench, [VectorRow("a", _vector(1), payload)])
    found = _exported(vectors, info.name)[0].payload
    expect_equal({k: (type(v).__name__, v) for k, v in found.items()},
                 {k: (type(v).__name__, v) for k, v in payload.items()}, "payload")  # fmt: skip


@case
def payloads_may_differ_from_row_to_row(bench: VectorsBench) -> None:
    """A field that only later rows have, or have with another type, is kept; None says the same as no field."""
    rows = [
        VectorRow("a", _vector(1), {"page": 1}),
        VectorRow("b", _vector(2), {"page": 2.5, "note": "later"}),
        VectorRow("c", _vector(3), {"note": ["now", "a", "list"], "mixed": True}),
        VectorRow("d", _vector(4), {"mixed": "text"}),
        VectorRow("e", _vector(5), {}),
        VectorRow("f", _vector(6), {"page": None}),
    ]
    vectors, info = _loaded(bench, rows)
    wanted = [*rows[:5], replace(rows[5], payload={})]
    _expect_rows(vectors, info, wanted, "rows")


@case
def load_replaces_everything(bench: VectorsBench) -> None:
    """A second load leaves nothing of the first, and loading the same again changes nothing."""
    vectors, info = _loaded(bench, _rows(20))
    fewer = [replace(row, payload={"other": "field"}) for row in _rows(5)]
    for _ in range(2):
        expect_equal(_load(vectors, info, fewer), 5, "rows written")
        _expect_rows(vectors, info, fewer, "rows")
    expect_equal(vectors.describe(info.name).rows, 5, "rows counted")


@case
def failed_load_changes_nothing(bench: VectorsBench) -> None:
    """When the rows end in an error, the index that was there stays whole."""
    rows = _rows(10)
    vectors, info = _loaded(bench, rows)

    def broken() -> Iterator[VectorRow]:
        yield from _rows(3)
        raise Invalid("the source broke off")

    with expect_error(Invalid, during="load from a source that breaks off"):
        _load(vectors, info, broken())
    _expect_rows(vectors, info, rows, "rows after the failed load")


@case
def empty_index_is_an_index(bench: VectorsBench) -> None:
    """An index of no rows is loaded, described, exported and searched."""
    vectors, info = _loaded(bench, [])
    found = vectors.describe(info.name)
    expect_equal((found.dimension, found.rows), (_DIMENSION, 0), "dimension and rows")
    _expect_rows(vectors, info, [], "rows")
    expect_equal(vectors.search(info.name, [_vector(1)], 5), [[]], "search")


@case
def describe_and_indexes_agree(bench: VectorsBench) -> None:
    """describe says dimension, rows, metric and kind as loaded, and indexes() lists the same."""
    for metric, kind in (("cosine", "hnsw"), ("l2", "hnsw"), ("ip", "none"), ("l2", "none")):
        vectors, info = _loaded(bench, _rows(12), metric=metric, kind=kind)
        vectors.build(info)
        found = vectors.describe(info.name)
        expect_equal(
            (found.dimension, found.rows, found.metric, found.kind), (_DIMENSION, 12, metric, kind), "description"
        )
        expect(found in vectors.indexes(), f"indexes() does not list {found}")


@case
def index_parameters_are_kept(bench: VectorsBench) -> None:
    """Parameters of the index that describe reports build the same index again."""
    vectors, info = bench.open(), bench.index(kind="hnsw")
    wanted = replace(info, params={"m": "8", "ef_construction": "40"})
    _load(vectors, wanted, _rows(12))
    vectors.build(wanted)
    found = vectors.describe(info.name)
    if not found.params:
        raise NotOffered("the provider reports no parameters")
    expect_equal(dict(found.params), dict(wanted.params), "parameters")


@case
def build_may_happen_twice(bench: VectorsBench) -> None:
    """Building an index that is there changes nothing."""
    vectors, info = _loaded(bench, _rows(12), kind="hnsw")
    vectors.build(info)
    vectors.build(info)
    expect_equal(vectors.describe(info.name).kind, "hnsw", "kind")


@case
def exact_search_is_exact(bench: VectorsBench) -> None:
    """Exact search gives the ids that the metric's own formula gives, for all three metrics."""
    rows = _rows(100)
    query = _vector(1234)
    for metric in ("cosine", "l2", "ip"):
        vectors, info = _loaded(bench, rows, metric=metric)
        near = sorted(rows, key=lambda row: (_distance(metric, query, row.vector), row.id))
        expect_equal(
            vectors.search(info.name, [query], 10, exact=True),
            [[row.id for row in near[:10]]],
            f"10 nearest by {metric}",
        )


@case
def index_search_recalls_the_exact(bench: VectorsBench) -> None:
    """On 300 rows the index finds at least 95 % of the exact ten nearest, over 20 questions."""
    vectors, info = _loaded(bench, _rows(300), kind="hnsw")
    vectors.build(info)
    queries = [_vector(5000 + question) for question in range(20)]
    answers = (vectors.search(info.name, queries, 10, exact=exact) for exact in (True, False))
    hits = sum(len(set(one) & set(other)) for one, other in zip(*answers, strict=True))
    expect(hits >= 190, f"recall@10 is {hits / 200:.3f}")


@case
def search_gives_no_more_than_there_is(bench: VectorsBench) -> None:
    """k beyond the number of rows gives all rows; the nearest to a stored vector is its own id."""
    vectors, info = _loaded(bench, _rows(7))
    (found,) = vectors.search(info.name, [_vector(3)], 50)
    expect_equal(sorted(found), [row.id for row in _rows(7)], "ids")
    expect_equal(found[0], "chunk-0003", "nearest to itself")


@case
def nan_is_refused(bench: VectorsBench) -> None:
    """A vector with NaN or infinity is refused with Invalid, and the index that was there stays."""
    rows = _rows(3)
    vectors, info = _loaded(bench, rows)
    for value in (math.nan, math.inf):
        bad = struct.pack(f"<{_DIMENSION}f", value, *[1.0] * (_DIMENSION - 1))
        with expect_error(Invalid, during=f"load of a vector with {value}"):
            _load(vectors, info, [VectorRow("bad", bad, {})])
    _expect_rows(vectors, info, rows, "rows after the refusal")


@case
def wrong_dimension_is_refused(bench: VectorsBench) -> None:
    """A vector of another dimension, or cut in the middle of a float, is refused on load and on search."""
    rows = _rows(3)
    vectors, info = _loaded(bench, rows)
    for vector in (_vector(1, _DIMENSION + 1), _vector(1)[:-4], _vector(1)[:-1], b""):
        with expect_error(Invalid, during=f"load of a vector of {len(vector)} bytes"):
            _load(vectors, info, [VectorRow("bad", vector, {})])
        with expect_error(Invalid, during=f"search for a vector of {len(vector)} bytes"):
            vectors.search(info.name, [vector], 3)
    _expect_rows(vectors, info, rows, "rows after the refusal")


@case
def same_id_twice_is_refused(bench: VectorsBench) -> None:
    """Rows of one id, next to each other or not, and ids out of order are refused with Invalid: a row would be lost."""
    rows = _rows(3)
    vectors, info = _loaded(bench, rows)
    for bad in ([rows[0], rows[1], rows[0]], [rows[0], rows[1], rows[1]], [rows[1], rows[0]]):
        for together in (1, 64):
            with expect_error(Invalid, during=f"load of {[row.id for row in bad]}, {together} to a block"):
                vectors.load(info, _blocks(bad, together))
    _expect_rows(vectors, info, rows, "rows after the refusal")


@case
def missing_index_is_not_found(bench: VectorsBench) -> None:
    """describe, export and search of an index that does not exist raise NotFound."""
    vectors, name = bench.open(), bench.index().name
    with expect_error(NotFound, during="describe"):
        vectors.describe(name)
    with expect_error(NotFound, during="export"):
        _exported(vectors, name)
    with expect_error(NotFound, during="search"):
        vectors.search(name, [_vector(1)], 3)
    with expect_error(NotFound, during="build"):
        vectors.build(replace(bench.index(kind="hnsw"), name=name))


@case
def drop_may_happen_twice(bench: VectorsBench) -> None:
    """drop removes the index and is silent when it is gone."""
    vectors, info = _loaded(bench, _rows(3))
    vectors.drop(info.name)
    vectors.drop(info.name)
    expect(info.name not in [found.name for found in vectors.indexes()], "indexes() still lists it")


@case
def reader_cannot_write(bench: VectorsBench) -> None:
    """An identity that may only read exports, and gets AccessDenied on load and drop."""
    if bench.reader is None:
        raise NotOffered("this bench has no identity that may only read")
    rows = _rows(3)
    vectors, info = _loaded(bench, rows)
    reader = bench.reader()
    _expect_rows(reader, info, rows, "rows as the reader sees them")
    with expect_error(AccessDenied, during="load by a reader"):
        _load(reader, info, _rows(1))
    with expect_error(AccessDenied, during="drop by a reader"):
        reader.drop(info.name)
    _expect_rows(vectors, info, rows, "rows after the refusals")


@case
def strangers_are_refused(bench: VectorsBench) -> None:
    """An identity without rights gets AccessDenied."""
    if bench.stranger is None:
        raise NotOffered("this bench has no identity without rights")
    _, info = _loaded(bench, _rows(3))
    with expect_error(AccessDenied, during="export by a stranger"):
        _exported(bench.stranger(), info.name)
    with expect_error(AccessDenied, during="search by a stranger"):
        bench.stranger().search(info.name, [_vector(1)], 1)


@case
def wrong_credentials_are_refused(bench: VectorsBench) -> None:
    """Wrong credentials raise NotSignedIn."""
    if bench.unsigned is None:
        raise NotOffered("this bench has no wrong credentials to try")
    with expect_error(NotSignedIn, during="indexes with wrong credentials"):
        bench.unsigned().indexes()


@case
def silent_server_is_unavailable(bench: VectorsBench) -> None:
    """A server that is down raises Unavailable, which may be tried again."""
    if bench.absent is None:
        raise NotOffered("this provider has no server that could be down")
    with expect_error(Unavailable, during="indexes of a server that is down"):
        bench.absent().indexes()


@case
def large_load_streams(bench: VectorsBench) -> None:
    """Blocks are taken as they are written: load and export of many rows keep every one of them."""
    count, taken = bench.rows_many, 0

    def source() -> Iterator[VectorRow]:
        nonlocal taken
        for number in range(count):
            taken += 1
            yield VectorRow(f"r{number:06d}", _vector(number), {"text": "x" * 50})

    vectors, info = bench.open(), bench.index(metric="l2")
    expect_equal(_load(vectors, info, source()), count, "rows written")
    exported = vectors.export(info.name)
    first = next(exported)
    expect_equal(first.vectors[: 4 * _DIMENSION], _vector(0), "first vector")
    expect_equal(len(first.ids) + sum(len(block.ids) for block in exported), taken, "rows exported")


@case
def export_may_stop_early(bench: VectorsBench) -> None:
    """Whoever stops reading an export in the middle can go on using the provider."""
    vectors, info = _loaded(bench, _rows(300))
    rows = vectors.export(info.name)
    next(rows)
    close: Callable[[], None] | None = getattr(rows, "close", None)
    if close is not None:
        close()
    try:
        expect_equal(vectors.describe(info.name).rows, 300, "rows")
        vectors.drop(info.name)
    except CrossloadError as error:
        raise NotOffered(str(error)) from error


def _distance(metric: str, one: bytes, two: bytes) -> float:
    a, b = (struct.unpack(f"<{_DIMENSION}f", side) for side in (one, two))
    product = math.fsum(x * y for x, y in zip(a, b, strict=True))
    if metric == "ip":
        return -product
    if metric == "l2":
        return math.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True))
    return 1 - product / math.sqrt(math.fsum(x * x for x in a) * math.fsum(y * y for y in b))


CASES: tuple[Case[VectorsBench], ...] = tuple(VECTORS.cases)
