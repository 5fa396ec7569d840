"""The conformance suite of the Store port: what every provider of objects must keep.

`case.run_all(CASES, StoreBench(open=...), known)` gives one verdict per case; pytest runs the same cases one by one."""

from __future__ import annotations

from crossload.conformance import (
    store_conditions,
    store_doors,
    store_keys,
    store_objects,
    store_parts,
    store_versions,
)
from crossload.conformance.case import Case, judge
from crossload.conformance.store_bench import STORE, StoreBench

__all__ = ["CASES", "Case", "StoreBench", "judge"]

# The modules above register their cases as they are imported.
_PARTS = (store_objects, store_keys, store_conditions, store_parts, store_doors, store_versions)
CASES: tuple[Case[StoreBench], ...] = tuple(STORE.cases)
