"""Listings of both sides, side by side, straight to disk: no list of keys is ever held in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from crossload.ledger.comparison import Comparison
from crossload.ports.store import ObjectInfo, Store

Item = TypeVar("Item")

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


def list_target(comparison: Comparison, target: Store, bucket: str, prefix: str) -> None:
    _take(target.list(bucket, prefix), comparison.target)


def _take(infos: Iterable[ObjectInfo], keep: Callable[[list[ObjectInfo]], None]) -> None:
    for page in paged(infos):
        keep(page)


def paged(items: Iterable[Item]) -> Iterator[list[Item]]:
    """The same in lists of a few thousand, so that no more than one is held at a time."""
    waiting = iter(items)
    while page := list(islice(waiting, _PAGE)):
        yield page
