"""Re-checking a copy from the stores themselves: presence, the store's own digest, and bytes read back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from crossload.engines.mover.copying import check_algorithm
from crossload.estate.digest import Digest
from crossload.ledger.journal import Entry
from crossload.ports.errors import NotFound
from crossload.ports.store import ObjectInfo, Store

_CHUNK_BYTES = 8 * 2**20


@dataclass(slots=True)
class ProofReport:
    """`wrong` maps a key to what is wrong with it; `extra` are keys at the target that the manifest does not know."""

    objects: int = 0
    size_bytes: int = 0
    compared: int = 0
    reread: int = 0
    wrong: dict[str, str] = field(default_factory=dict)
    extra: list[str] = field(default_factory=list)


def prove(
    target: Store, bucket: str, entries: Iterable[Entry], *, reread_sample: float, workers: int = 8
) -> ProofReport:
    """List the target once and compare every entry; read back those the store gives no digest for, and a sample.

    The sample is chosen by the digest, so that it is the same for everyone and differs between data sets."""
    report = ProofReport()
    there = {info.key: info for info in target.list(bucket)}
    algorithm = check_algorithm(target)
    to_read: list[tuple[Entry, ObjectInfo]] = []
    for entry in entries:
        report.objects += 1
        report.size_bytes += entry.size_bytes
        info = there.pop(entry.key, None)
        if info is None:
            report.wrong[entry.key] = "missing at the target"
            continue
        if info.size_bytes != entry.size_bytes:
            report.wrong[entry.key] = f"{info.size_bytes} bytes at the target, {entry.size_bytes} in the manifest"
            continue
        theirs = info.digest(algorithm) if algorithm else None
        if theirs is not None and entry.check_digest:
            report.compared += 1
            if theirs != Digest.parse(entry.check_digest):
                report.wrong[entry.key] = f"the target holds {theirs}, the manifest says {entry.check_digest}"
                continue
            if info.etag == entry.target_etag and int(entry.sha256[:8], 16) / 2**32 >= reread_sample:
                continue
        to_read.append((entry, info))

    def check(item: tuple[Entry, ObjectInfo]) -> tuple[Entry, str]:
        return _reread(target, bucket, *item)

    with ThreadPoolExecutor(max_workers=workers) as pool:
        for entry, problem in pool.map(check, to_read):
            report.reread += 1
            if problem:
                report.wrong[entry.key] = problem
    report.extra = sorted(there)
    return report


def _reread(target: Store, bucket: str, entry: Entry, info: ObjectInfo) -> tuple[Entry, str]:
    digest = hashlib.sha256()
    try:
        for start in range(0, info.size_bytes, _CHUNK_BYTES):
            length = min(_CHUNK_BYTES, info.size_bytes - start)
            digest.update(target.read(bucket, entry.key, start, length))
    except NotFound:
        return entry, "vanished while it was read back"
    if digest.hexdigest() != entry.sha256:
        return entry, f"read back as sha256 {digest.hexdigest()}, the manifest says {entry.sha256}"
    return entry, ""
