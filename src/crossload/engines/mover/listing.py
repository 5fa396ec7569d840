"""Listings of both sides, side by side, straight to disk: no list of keys is ever held in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from crossload.ledger.comparison import Comparison
from crossload.ports.store import ObjectInfo, Store

_PAGE = 2000


def list_both(
    comparison: Comparison, source: Store, source_bucket: str, target: Store, target_bucket: str, prefix: str
) -> None:
    """List source and target at once into the comparison. Raises what either store raises."""
    with ThreadPoolExecutor(2, thread_name_prefix="listing") as pool:
        sides = [
            pool.submit(_take, source.list(source_bucket, prefix), comparison.source),
            pool.submit(_take, target.list(target_bucket, prefix), comparison.target),
        ]
        for side in sides:
            side.result()


def _take(infos: Iterable[ObjectInfo], keep: Callable[[list[ObjectInfo]], None]) -> None:
    listing = iter(infos)
    while page := list(islice(listing, _PAGE)):
        keep(page)
