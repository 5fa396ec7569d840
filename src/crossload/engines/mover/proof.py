"""Re-checking a copy from the stores themselves: presence, the store's own digest, and bytes read back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from crossload.engines.mover.digests import sha256_at, stored_digest
from crossload.engines.mover.listing import list_target, paged
from crossload.estate.digest import Digest
from crossload.ledger.comparison import Comparison
from crossload.ledger.journal import Entry, Journal
from crossload.ports.errors import NotFound
from crossload.ports.store import ObjectInfo, Store

_WORKERS = 8


@dataclass(slots=True)
class ProofReport:
    """`wrong` maps a key to what is wrong with it, `found` such a key to the etag at the target ("" when missing);
    `extra` are keys at the target that the journal does not know, the first thousand of `extra_count`. `theirs` counts
    objects that users have changed or removed since the target is their home."""

    objects: int = 0
    size_bytes: int = 0
    compared: int = 0
    reread: int = 0
    wrong: dict[str, str] = field(default_factory=dict)
    found: dict[str, str] = field(default_factory=dict)
    theirs: int = 0
    extra: list[str] = field(default_factory=list)
    extra_count: int = 0


def prove_copy(
    target: Store, bucket: str, journal: Journal, *, reread_sample: float, prefix: str = "",
    target_is_home: bool = False,
) -> ProofReport:  # fmt: skip
    """Prove all that the journal says has arrived. What is wrong is marked in the journal, so that the next pass brings
    it over anew; until then every further proof names it again. What never arrived is wrong, too."""
    report = prove(target, bucket, journal, reread_sample=reread_sample, prefix=prefix, target_is_home=target_is_home)
    for key in report.wrong:
        entry = journal.get(key)
        if entry is not None:
            journal.put(entry.with_(state="pending", source_etag="", target_etag=report.found[key]))
    for state in ("pending", "sending"):
        for entry in journal.entries(state):
            if entry.key.startswith(prefix) and entry.key not in report.wrong:
                report.wrong[entry.key] = "not brought over since it was begun or found wrong"
    journal.barrier()
    return report


def prove(
    target: Store, bucket: str, journal: Journal, *, reread_sample: float, prefix: str = "",
    target_is_home: bool = False,
) -> ProofReport:  # fmt: skip
    """List the target once and compare every entry by the digest the store reports; read back those it gives no
    digest for, those somebody has written since, and a sample.

    The sample is chosen by the digest, so that it is the same for everyone and differs between data sets."""
    report = ProofReport()

    def check(item: tuple[Entry, ObjectInfo]) -> _Finding:
        return _check(target, bucket, *item, reread_sample)

    with Comparison(journal) as comparison, ThreadPoolExecutor(max_workers=_WORKERS) as pool:
        list_target(comparison, target, bucket, prefix)
        for page in paged(comparison.known(prefix)):
            to_check = _judged(page, report, home=target_is_home)
            for found in pool.map(check, to_check):
                report.compared += found.compared
                report.reread += found.reread
                if found.problem:
                    report.wrong[found.key] = found.problem
                    report.found[found.key] = found.etag
        report.extra_count, report.extra = comparison.strange()
    return report


def _judged(
    page: list[tuple[Entry, ObjectInfo | None]], report: ProofReport, *, home: bool
) -> list[tuple[Entry, ObjectInfo]]:
    """What the listing alone tells goes into the report; the rest must be looked at."""
    to_check: list[tuple[Entry, ObjectInfo]] = []
    for entry, info in page:
        if entry.state != "done":
            continue
        report.objects += 1
        report.size_bytes += entry.size_bytes
        if home and (info is None or info.etag != entry.target_etag):
            report.theirs += 1  # to call it wrong would let the next apply overwrite what a user wrote
        elif info is None:
            report.wrong[entry.key] = "missing at the target"
            report.found[entry.key] = ""
        elif info.size_bytes != entry.size_bytes:
            report.wrong[entry.key] = f"{info.size_bytes} bytes at the target, {entry.size_bytes} in the manifest"
            report.found[entry.key] = info.etag
        else:
            to_check.append((entry, info))
    return to_check


@dataclass(frozen=True, slots=True)
class _Finding:
    key: str
    etag: str
    problem: str = ""
    compared: bool = False
    reread: bool = False


def _check(target: Store, bucket: str, entry: Entry, info: ObjectInfo, reread_sample: float) -> _Finding:
    wanted = Digest.parse(entry.check_digest) if entry.check_digest else None
    try:
        theirs = stored_digest(target, bucket, info, wanted.algorithm) if wanted else None
        if theirs is not None:
            if theirs != wanted:
                problem = f"the target holds {theirs}, the manifest says {wanted}"
                return _Finding(entry.key, info.etag, problem, compared=True)
            if info.etag == entry.target_etag and int(entry.sha256[:8], 16) / 2**32 >= reread_sample:
                return _Finding(entry.key, info.etag, compared=True)
        read = sha256_at(target, bucket, info)
    except NotFound:
        return _Finding(entry.key, "", "vanished while it was checked")
    problem = "" if read == entry.sha256 else f"read back as sha256 {read}, the manifest says {entry.sha256}"
    return _Finding(entry.key, info.etag, problem, compared=theirs is not None, reread=True)
