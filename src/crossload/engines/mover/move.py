"""One copy from one address to another, by itself: preview, run, go on, verify, bring back, take away."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from crossload.engines.mover.bucket import PassReport, move_bucket, older_versions
from crossload.engines.mover.egress import EgressReport, egress_report
from crossload.engines.mover.finish import Forecast, forecast
from crossload.engines.mover.listing import list_both
from crossload.engines.mover.manifest import ManifestReport, write_manifest
from crossload.engines.mover.options import NOBODY, CopyOptions, Watcher
from crossload.engines.mover.probing import Probed, probe
from crossload.engines.mover.proof import ProofReport, prove
from crossload.engines.mover.removal import RemovalReport, remove_copy
from crossload.engines.mover.returning import ReturnReport, return_changes
from crossload.engines.mover.signing import origin_of, sign_manifest, signing_key
from crossload.ledger.comparison import Comparison
from crossload.ledger.egress import egress_book
from crossload.ledger.journal import Journal
from crossload.ports.errors import NotFound, PreconditionFailed, Refused
from crossload.ports.metered import metered
from crossload.ports.rooted import RootedStore

_BUCKET_CREATED = "bucket_created"
_PASSES_MAX = 3


@dataclass(frozen=True, slots=True)
class End:
    """One end of a move: the store, rooted at what is moved, the bucket's name, and the address as it was given."""

    store: RootedStore
    bucket: str
    address: str


@dataclass(slots=True)
class Preview:
    """What a run would do now. `objects` and `size_bytes` are what differs; the forecast is None without a probe."""

    listed: int = 0
    objects: int = 0
    size_bytes: int = 0
    vanished: int = 0
    target_exists: bool = True
    older_versions: int | None = None
    delete_markers: int | None = None
    losses: list[str] = field(default_factory=list)
    probed: Probed | None = None
    finish: Forecast | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "objects_at_source": self.listed, "objects_to_carry": self.objects, "bytes_to_carry": self.size_bytes,
            "objects_vanished_at_source": self.vanished, "target_bucket_exists": self.target_exists,
            "older_versions_left": "unknown" if self.older_versions is None else self.older_versions,
            "delete_markers_left": "unknown" if self.delete_markers is None else self.delete_markers,
            "losses": self.losses, "probe": self.probed.to_json() if self.probed else None,
            "finish": self.finish.to_json() if self.finish else "unknown (no probe was made)",
        }  # fmt: skip


@dataclass(slots=True)
class MoveReport:
    """What a run came to. `passes`: the copy, then deltas until one finds nothing (three at most)."""

    passes: list[PassReport]
    manifest: ManifestReport | None = None
    signed_by: str = ""
    trust: dict[str, int] = field(default_factory=dict)
    egress: EgressReport | None = None

    @property
    def failures(self) -> list[str]:
        last = self.passes[-1]
        return [*last.failures, *(f"{key} changes faster than it copies" for key in last.hot)]

    def to_json(self) -> dict[str, Any]:
        made = self.manifest
        return {
            "passes": [item.to_json() for item in self.passes], "failures": self.failures, "trust": self.trust,
            "objects": made.objects if made else "unknown", "size_bytes": made.size_bytes if made else "unknown",
            "manifest": str(made.path) if made else "", "manifest_root": made.root if made else "",
            "signed_by": self.signed_by, "egress": self.egress.to_json() if self.egress else {},
        }  # fmt: skip


class Move:
    """A move keeps all it knows in `folder`: run the same again and it goes on. Safe to kill at any point."""

    def __init__(
        self, source: End, target: End, folder: Path, options: CopyOptions, *, key: str = "",
        environment: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.source, self.target, self.folder, self.options = source, target, folder, options
        self._key, self._environment = key, environment
        self._label = target.bucket

    def _journal(self) -> Journal:
        return Journal(self.folder / "journal.db")

    def preview(self, *, probe_seconds: float = 0.0) -> Preview:
        """List both sides and compare; nothing is written anywhere but in the move's own folder, unless a probe is
        asked for: that writes, and removes, objects of its own at the target."""
        found = Preview()
        with self._journal() as journal, Comparison(journal) as comparison:
            try:
                list_both(comparison, self.source.store, self._label, self.target.store, self._label, "")
            except NotFound:
                found.target_exists = False
                comparison.source(self.source.store.list(self._label))
            found.objects, found.size_bytes = comparison.settle(home=self.options.target_is_home)
            found.listed = comparison.listed()
            found.vanished = comparison.vanished_count("")
        history = older_versions(self.source.store, self._label)
        if history is not None:
            found.older_versions, found.delete_markers = history
        found.losses = self._losses(found)
        if probe_seconds and found.target_exists:
            found.probed = probe(
                self.source.store, self._label, self.target.store, self._label, seconds_max=probe_seconds
            )
            found.finish = forecast(
                found.size_bytes, found.objects, found.probed.samples(), self.options.calendar, start=time.time(),
                workers=self.options.workers, latency_seconds=found.probed.latency().value,
            )  # fmt: skip
        return found

    def _losses(self, found: Preview) -> list[str]:
        """What the target cannot keep, told before anything moves."""
        mine, theirs = self.source.store.features, self.target.store.features
        losses: list[str] = []
        if mine.tags and not theirs.tags:
            losses.append("tags are kept as user metadata crossload-tag-*")
        if mine.user_metadata_bytes_max > theirs.user_metadata_bytes_max:
            losses.append(f"user metadata of more than {theirs.user_metadata_bytes_max} bytes an object is left out")
        if found.older_versions or found.delete_markers:
            losses.append(f"{found.older_versions} older version(s), {found.delete_markers} delete marker(s) stay")
        return losses

    def run(self, watcher: Watcher = NOBODY) -> MoveReport:
        """Carry what differs, then deltas until one finds nothing; then the signed manifest."""
        with self._journal() as journal, egress_book(self.folder) as book:
            if self.target.store.ensure_bucket(self._label):
                journal.count(_BUCKET_CREATED, 1)
                journal.barrier()  # what follows may fail, and undo must know
            place = self.source.address
            leaving = metered(self.source.store, lambda size_bytes: book.count(place, size_bytes))
            report = MoveReport([])
            while len(report.passes) < _PASSES_MAX:
                found = move_bucket(
                    leaving, self._label, self.target.store, self._label, journal, self.options, watcher
                )
                report.passes.append(found)
                if found.empty or found.failures:
                    break
            if not report.failures:
                report.manifest = write_manifest(journal.entries("done"), self.folder)
                signer = signing_key(self.folder, self._key, self._environment)
                origin = origin_of("move", self.source.address, self.target.address)
                sign_manifest(report.manifest, self.folder, signer, origin)
                report.signed_by = signer.public.fingerprint
            report.trust = journal.trust()
            book.settle()
            report.egress = egress_report(book.days(), {}, [])
        return report

    def verify(self, *, reread_sample: float) -> ProofReport:
        """Look at the target again, and read back this share of the objects: 1.0 is all of them. Changes nothing: an
        object that differs may be somebody's work. Raises Refused when nothing was moved yet."""
        with self._journal() as journal:
            if not journal.totals():
                raise Refused("nothing was moved yet that could be verified", hint="run the move first")
            return prove(self.target.store, self._label, journal, reread_sample=reread_sample)

    def bring_back(self) -> ReturnReport:
        """What was changed, added or removed at the target since goes to the source; neither side's conflicting
        changes are overwritten."""
        with self._journal() as journal:
            if not journal.totals():
                raise Refused("nothing was moved yet that could be brought back", hint="run the move first")
            return return_changes(
                self.source.store, self.target.store, self._label, journal,
                part_size_bytes=self.options.part_size_bytes,
            )  # fmt: skip

    def undo(self) -> tuple[RemovalReport, bool]:
        """Take away what this move wrote at the target and nobody has changed since; and the bucket, if we made it and
        it is empty then. (What was removed, whether the bucket was.)"""
        with self._journal() as journal:
            report = remove_copy(self.target.store, self._label, journal)
            removed = False
            if journal.counter(_BUCKET_CREATED) and not report.kept:
                removed = _removed(self.target)
        return report, removed

    def follow(
        self, watcher: Watcher, told: Callable[[PassReport], None], *, every_seconds: float, passes: int | None = None
    ) -> list[PassReport]:
        """Deltas, one after another, until `passes` are done or Ctrl-C comes. A delta lists both sides; so the next
        begins after twice the time that the last one took, at the earliest."""
        done: list[PassReport] = []
        with self._journal() as journal:
            while passes is None or len(done) < passes:
                report = move_bucket(
                    self.source.store, self._label, self.target.store, self._label, journal,
                    replace(self.options), watcher,
                )  # fmt: skip
                done.append(report)
                told(report)
                if passes is None or len(done) < passes:
                    time.sleep(max(every_seconds, 2 * report.seconds))
        return done


def _removed(end: End) -> bool:
    try:
        return end.store.remove_bucket(end.bucket)
    except PreconditionFailed:
        return False  # somebody else's objects are still in it
