"""Vector indexes: moved from place to place in blocks, kept as Parquet, and shown to be equal in four ways."""

from crossload.engines.mover.vectors.digests import Hasher, IndexDigest, IndexSource, Sample, digest_index
from crossload.engines.mover.vectors.equality import (
    Bound,
    Nearness,
    Proof,
    Recheck,
    as_recorded,
    measure_nearness,
    overlap,
    prove_index,
    recall,
    recheck_index,
)
from crossload.engines.mover.vectors.moving import move_index
from crossload.engines.mover.vectors.parquet import ParquetIndex, export_index, import_index

__all__ = [
    "Bound",
    "Hasher",
    "IndexDigest",
    "IndexSource",
    "Nearness",
    "ParquetIndex",
    "Proof",
    "Recheck",
    "Sample",
    "as_recorded",
    "digest_index",
    "export_index",
    "import_index",
    "measure_nearness",
    "move_index",
    "overlap",
    "prove_index",
    "recall",
    "recheck_index",
]
