"""Two indexes are equal: by their ids, by their bits, within a declared precision where bits may differ, and by what
they find. The last alone proves nothing: an index whose rows lie under each other's ids finds its own rows well."""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from crossload.engines.mover.vectors.digests import IndexDigest, IndexSource, Sample, digest_index
from crossload.ports.errors import Unsupported
from crossload.ports.vectors import Block, Vectors

QUERIES, NEAREST = 200, 10
_RECALL_MARGIN = 0.03  # two builds of one graph differ by less; 200 x 10 answers have a standard error below 0.012
_OVERLAP_MIN = 0.9
_ROWS_TOGETHER = 1024


@dataclass(frozen=True, slots=True)
class Bound:
    """The most that a precision may change: an error as a share of the largest number in the index, and the least
    cosine of a vector with itself."""

    error_max: float
    cosine_min: float


# One rounding of the format each (IEEE 754: half has 11 bits of fraction; int8 spreads the range over 254 steps).
BOUNDS = {"float32": Bound(2.0**-21, 1 - 1e-6), "float16": Bound(2.0**-11, 1 - 1e-4), "int8": Bound(1 / 127, 0.99)}


@dataclass(frozen=True, slots=True)
class Error:
    """`largest` is the largest absolute difference of two numbers, `scale` the largest number of the source."""

    largest: float
    scale: float
    cosine_min: float


@dataclass(frozen=True, slots=True)
class Nearness:
    """recall@k of each side's index against its own exact search, and the share of exact answers both sides give alike.
    None where there was nothing to find."""

    queries: int
    k: int
    source_recall: float | None
    target_recall: float | None
    overlap: float | None

    def to_json(self) -> dict[str, Any]:
        named = {"source_recall": self.source_recall, "target_recall": self.target_recall, "overlap": self.overlap}
        told = {name: "unknown" if value is None else round(value, 4) for name, value in named.items()}
        return {"queries": self.queries, "k": self.k, **told}


@dataclass(frozen=True, slots=True)
class Proof:
    """Everything that was compared. `problems` is empty when the target is the source's equal."""

    source: IndexDigest
    target: IndexDigest
    precision: str
    error: Error | None
    nearness: Nearness | None
    problems: tuple[str, ...]

    @property
    def equal(self) -> bool:
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """The evidence. `error` is `none` where every bit is equal, `unknown` where ids do not match up."""
        same_bits = self.source.bits == self.target.bits
        error: Any = "none" if same_bits else "unknown"
        if self.error is not None:
            error = {"largest": self.error.largest, "scale": self.error.scale, "cosine_min": self.error.cosine_min}
        return {
            "ids_equal": self.source.ids == self.target.ids,
            "payload_equal": self.source.payload == self.target.payload, "bits_equal": same_bits,
            "declared_precision": self.precision, "error": error,
            "nearness": self.nearness.to_json() if self.nearness is not None else "not measured",
            "problems": list(self.problems),
        }  # fmt: skip


def prove_index(
    source: Vectors, target: Vectors, name: str, *, sent: IndexDigest | None = None, queries: int = QUERIES,
    k: int = NEAREST,
) -> Proof:  # fmt: skip
    """Compare two indexes in all four ways. `sent` spares the pass over the source when its digest is known already.
    The target's declared precision decides whether bits may differ at all. Raises NotFound when one is missing."""
    info = source.describe(name)
    sample = Sample(info.rows, queries)
    there = digest_index(target, name, sample)
    here = sent if sent is not None else digest_index(source, name)
    precision, error = target.precision(info.metric), None
    if here.bits != there.bits and (here.ids, here.rows) == (there.ids, there.rows):
        error = measure_error(source, target, name)
    nearness: Nearness | None = None
    if there.rows and queries:
        with contextlib.suppress(Unsupported):  # a store that only keeps vectors is compared by the digests alone
            nearness = measure_nearness(source, target, name, questions(sample.vectors), k)
    return Proof(here, there, precision, error, nearness, tuple(_problems(here, there, precision, error, nearness)))


def _problems(
    here: IndexDigest, there: IndexDigest, precision: str, error: Error | None, nearness: Nearness | None
) -> Iterator[str]:
    if here.rows != there.rows:
        yield f"{here.rows} rows at the source, {there.rows} at the target"
    elif here.ids != there.ids:
        yield "the ids differ"
    if here.payload != there.payload:
        yield "the payloads differ"
    if here.bits != there.bits:
        yield from _changed(precision, error)
    if nearness is None:
        return
    # Equal bits give equal answers, but for rows that lie equally far: those are anybody's order.
    if here.bits != there.bits and nearness.overlap is not None and nearness.overlap < _OVERLAP_MIN:
        yield f"exact search finds {nearness.overlap:.1%} alike on both sides"
    before, after = nearness.source_recall, nearness.target_recall
    if before is not None and after is not None and _fell(before, after):
        yield f"recall@{nearness.k} fell from {before:.3f} to {after:.3f}"


def _fell(before: object, after: float) -> bool:
    """Whether a recall is worse than an earlier one (`unknown` is none) by more than two builds of one graph differ."""
    return isinstance(before, (int, float)) and after < before - _RECALL_MARGIN


def _changed(precision: str, error: Error | None) -> Iterator[str]:
    """What is wrong with vectors whose bits differ."""
    bound = BOUNDS.get(precision)
    if error is None:
        yield "the vectors differ, and cannot be matched"
    elif bound is None:
        yield f"vectors differ (by {error.largest:.3g} at most), though the target keeps every bit"
    else:
        if error.largest > bound.error_max * error.scale:
            yield f"a number changed by {error.largest:.3g}, more than {precision} explains"
        if error.cosine_min < bound.cosine_min:
            yield f"a vector turned away from itself (cosine {error.cosine_min:.6f}), more than {precision} explains"


@dataclass(frozen=True, slots=True)
class Recheck:
    """An index against what was recorded of its copy. `recall` is None where none was recorded; `fell` says in words
    that it is worse now, as when the search index is gone."""

    digest: IndexDigest
    same: bool
    recall: float | None = None
    fell: str = ""

    def to_json(self) -> dict[str, Any]:
        return {**self.digest.to_json(), "recall": "not measured" if self.recall is None else round(self.recall, 4)}


def recheck_index(target: Vectors, name: str, recorded: Mapping[str, Any]) -> Recheck:
    """One pass over the target alone, and the searches again. `recorded` is the evidence of the copy. Raises NotFound
    when the index is gone."""
    sample = Sample(int(recorded.get("rows", QUERIES)), QUERIES)
    digest = digest_index(target, name, sample)
    if not as_recorded(digest, recorded):
        return Recheck(digest, same=False)
    before = (recorded.get("equality") or {}).get("nearness")
    if not isinstance(before, Mapping):
        return Recheck(digest, same=True)
    found = recall(target, name, questions(sample.vectors), NEAREST)
    fell = found is not None and _fell(before.get("target_recall"), found)
    return Recheck(digest, True, found, f"{found:.3f}, and it was {before['target_recall']}" if fell else "")


def as_recorded(there: IndexDigest, recorded: Mapping[str, Any]) -> bool:
    """A store that normalises keeps other bits than it was sent: it is held to those that it had after the copy."""
    bits = recorded.get("target_bits_sha256", recorded.get("bits_sha256"))
    wanted = (recorded.get("ids_sha256"), bits, recorded.get("payload_sha256"))
    return (there.ids, there.bits, there.payload) == wanted


def measure_error(source: IndexSource, target: IndexSource, name: str) -> Error:
    """How far vectors lie from those of the same id, in one pass over both, whose ids must be equal (digests tell).
    Raises Unsupported without numpy."""
    try:
        import numpy
    except ImportError as error:
        raise Unsupported("comparing vectors within a precision needs numpy", hint="pip install numpy") from error
    largest = scale = 0.0
    cosine = 1.0
    for left, right in zip_longest(_together(source.export(name)), _together(target.export(name)), fillvalue=(0, b"")):
        if left[0] != right[0]:
            return Error(float("inf"), scale, -1.0)
        a, b = (numpy.frombuffer(side[1], "<f4").reshape(left[0], -1).astype("f8") for side in (left, right))
        largest = max(largest, float(abs(a - b).max()))
        scale = max(scale, float(abs(a).max()))
        lengths = numpy.sqrt((a * a).sum(1) * (b * b).sum(1))
        both_zero = ~a.any(1) & ~b.any(1)
        turned = numpy.where(lengths > 0, (a * b).sum(1) / numpy.where(lengths > 0, lengths, 1.0), both_zero * 1.0)
        cosine = min(cosine, float(turned.min()))
    return Error(largest, scale, cosine)


def _together(blocks: Iterator[Block]) -> Iterator[tuple[int, bytes]]:
    """(rows, vectors), the same number of rows each time, however a store cuts its blocks."""
    held, count, width = bytearray(), 0, 0
    for block in blocks:
        width = len(block.vectors) // len(block.ids)
        held += block.vectors
        count += len(block.ids)
        while count >= _ROWS_TOGETHER:
            yield _ROWS_TOGETHER, bytes(held[: _ROWS_TOGETHER * width])
            del held[: _ROWS_TOGETHER * width]
            count -= _ROWS_TOGETHER
    if count:
        yield count, bytes(held)


def questions(vectors: Sequence[bytes]) -> list[bytes]:
    """Points that lie near stored vectors without being one of them: each moved a fifth of the way to the next."""
    made: list[bytes] = []
    for one, two in zip(vectors, [*vectors[1:], *vectors[:1]], strict=True):
        a, b = array("f", one), array("f", two)
        made.append(array("f", [0.8 * x + 0.2 * y for x, y in zip(a, b, strict=True)]).tobytes())
    return made


def measure_nearness(source: Vectors, target: Vectors, name: str, queries: Sequence[bytes], k: int) -> Nearness:
    """Four searches per question: through the index and exactly, on both sides."""
    exact = [vectors.search(name, queries, k, exact=True) for vectors in (source, target)]
    found = [vectors.search(name, queries, k) for vectors in (source, target)]
    return Nearness(len(queries), k, _share(exact[0], found[0]), _share(exact[1], found[1]), _alike(exact[0], exact[1]))


def recall(vectors: Vectors, name: str, queries: Sequence[bytes], k: int) -> float | None:
    """Share of exact neighbours that the index finds (recall@k); None when there is nothing to find."""
    return _share(vectors.search(name, queries, k, exact=True), vectors.search(name, queries, k))


def overlap(source: Vectors, target: Vectors, name: str, queries: Sequence[bytes], k: int) -> float | None:
    """Share of exact top-k ids that both sides find; None when there is nothing to compare."""
    return _alike(source.search(name, queries, k, exact=True), target.search(name, queries, k, exact=True))


def _share(exact: list[list[str]], found: list[list[str]]) -> float | None:
    hits = sum(len(set(one) & set(other)) for one, other in zip(exact, found, strict=True))
    wanted = sum(len(one) for one in exact)  # fewer than k in a small index
    return hits / wanted if wanted else None


def _alike(left: list[list[str]], right: list[list[str]]) -> float | None:
    same = sum(len(set(one) & set(other)) for one, other in zip(left, right, strict=True))
    wanted = sum(max(len(one), len(other)) for one, other in zip(left, right, strict=True))
    return same / wanted if wanted else None
