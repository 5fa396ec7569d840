"""One copy from one address to another, by itself: preview, run, go on, verify, bring back, take away."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from crossload.engines.mover.bucket import PassReport, move_bucket, older_versions
from crossload.engines.mover.egress import EgressReport, egress_report
from crossload.engines.mover.ends import End, Pair, Record, forget_record, refuse_overlap
from crossload.engines.mover.finish import Forecast, forecast
from crossload.engines.mover.hazards import find
from crossload.engines.mover.listing import list_both, paged
from crossload.engines.mover.losses import fit_losses, history_left
from crossload.engines.mover.manifest import ManifestReport, write_manifest
from crossload.engines.mover.options import NOBODY, CopyOptions, Watcher
from crossload.engines.mover.probing import Probed, probe
from crossload.engines.mover.proof import ProofReport, prove
from crossload.engines.mover.removal import RemovalReport, remove_copy
from crossload.engines.mover.returning import ReturnReport, return_changes
from crossload.engines.mover.signing import origin_of, sign_manifest, signing_key
from crossload.estate.diagnostic import Diagnostic
from crossload.ledger.comparison import Comparison
from crossload.ledger.egress import EgressBook, egress_book
from crossload.ledger.journal import Journal
from crossload.ports.errors import Invalid, NotFound, PreconditionFailed, Refused

_BUCKET_CREATED = "bucket_created"
_PASSES_MAX = 3


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
    hazards: list[Diagnostic] = field(default_factory=list)  # keys that the target would lose or change
    probed: Probed | None = None
    finish: Forecast | None = None
    no_finish: str = ""  # why not, when a probe was asked for

    def to_json(self) -> dict[str, Any]:
        return {
            "objects_at_source": self.listed, "objects_to_carry": self.objects, "bytes_to_carry": self.size_bytes,
            "objects_vanished_at_source": self.vanished, "target_bucket_exists": self.target_exists,
            "older_versions_left": "unknown" if self.older_versions is None else self.older_versions,
            "delete_markers_left": "unknown" if self.delete_markers is None else self.delete_markers,
            "losses": self.losses, "hazards": [item.to_json() for item in self.hazards],
            "probe": self.probed.to_json() if self.probed else None,
            "finish": self.finish.to_json() if self.finish else f"unknown ({self.no_finish or 'no probe was made'})",
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


@dataclass(slots=True)
class FollowReport:
    """What all deltas came to, and how the last one ended."""

    deltas: int = 0
    copied: int = 0
    removed: int = 0
    sent_bytes: int = 0
    end: MoveReport | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "deltas": self.deltas, "objects_copied": self.copied, "objects_removed": self.removed,
            "sent_bytes": self.sent_bytes, **(self.end.to_json() if self.end else {}),
        }  # fmt: skip


class Move:
    """A move keeps all it knows in `folder`: run the same again and it goes on. Safe to kill at any point.

    `target` opens the other end, told the name of the object when only one is moved; `back` opens the source as whoever
    may write there. `chosen`: the user has named the folder, and so says that it belongs to this move."""

    def __init__(
        self, source: End, target: Callable[[str], End], folder: Path, options: CopyOptions, *,
        back: Callable[[], End] | None = None, chosen: bool = False, key: str = "",
        environment: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.folder, self.options = folder, options
        self._source, self._target, self._back, self._chosen = source, target, back, chosen
        self._key, self._environment = key, environment

    def preview(self, *, probe_seconds: float = 0.0) -> Preview:
        """List both sides and compare; nothing is written anywhere but in the move's own folder, unless a probe is
        asked for: that writes, and removes, objects of its own at the target. Raises what `run` would."""
        found = Preview()
        pair, _ = self._open()
        with self._journal() as journal, self._counted(pair), Comparison(journal) as comparison:
            try:
                list_both(comparison, pair.source, pair.label, pair.target, pair.label, "")
            except NotFound:
                found.target_exists = False
                for page in paged(pair.source.list(pair.label)):
                    comparison.source(page)
            found.objects, found.size_bytes = comparison.settle(home=self.options.target_is_home)
            found.listed = comparison.listed()
            found.vanished = comparison.vanished_count("")
            found.hazards = find(comparison, pair.target.features, pair.label)
            history = older_versions(pair.source, pair.label)
            if history is not None:
                found.older_versions, found.delete_markers = history
            found.losses = fit_losses(pair.source.features, pair.target.features)
            if pair.source.features.versions and (words := history_left(found.older_versions, found.delete_markers)):
                found.losses.append(words)
            if probe_seconds:
                self._probe(pair, found, probe_seconds)
        return found

    def _probe(self, pair: Pair, found: Preview, seconds: float) -> None:
        if not found.target_exists or pair.single:
            found.no_finish = "one object is not probed" if pair.single else "the target bucket is not there yet"
            return
        try:
            found.probed = probe(pair.source, pair.label, pair.target, pair.label, seconds_max=seconds)
        except Invalid as error:  # a target that cannot hold the probe's keys, as a folder cannot
            found.no_finish = f"the target cannot be probed: {error}"
            return
        found.finish = forecast(
            found.size_bytes, found.objects, found.probed.samples(), self.options.calendar, start=time.time(),
            workers=self.options.workers, latency_seconds=found.probed.latency().value,
        )  # fmt: skip

    def run(self, watcher: Watcher = NOBODY) -> MoveReport:
        """Carry what differs, then deltas until one finds nothing; then the signed manifest. Raises NotFound when
        nothing lies at the source's prefix, Refused when the ends overlap, the folder belongs to another move, or too
        much has vanished at the source, and what the stores raise."""
        pair, begun = self._open()
        report = MoveReport([])
        watcher = _adding_up(watcher)
        with self._journal() as journal, self._counted(pair) as book:
            self._signer()  # a key that cannot be read is told before the copy, and not after it
            if pair.target.ensure_bucket(pair.label):
                journal.count(_BUCKET_CREATED, 1)
                journal.barrier()  # what follows may fail, and undo must know
            if begun is None or begun.finished:
                Record.of(pair, finished=False).write(self.folder)
            while len(report.passes) < _PASSES_MAX:
                found = self._pass(pair, journal, watcher)
                report.passes.append(found)
                if found.empty or found.failures:
                    break
            if not report.failures:
                self._seal(pair, journal, report)
            self._tell(journal, book, report)
        return report

    def follow(
        self, watcher: Watcher, told: Callable[[PassReport], None], *, every_seconds: float, passes: int | None = None
    ) -> FollowReport:
        """Deltas, one after another, until `passes` are done or Ctrl-C comes between two of them; then the manifest
        anew. A delta lists both sides: the next begins after twice the time that the last one took, at the earliest.
        Raises KeyboardInterrupt for a Ctrl-C amid a delta, and what `run` raises."""
        pair, _ = self._open()
        done = FollowReport()
        with self._journal() as journal, self._counted(pair) as book:
            while True:
                report = self._pass(pair, journal, watcher)
                done.deltas += 1
                done.copied += report.copied
                done.removed += report.removed
                done.sent_bytes += report.sent_bytes
                told(report)
                if done.deltas == passes:
                    break
                try:
                    time.sleep(max(every_seconds, 2 * report.seconds))
                except KeyboardInterrupt:
                    break
            done.end = MoveReport([report])
            if not done.end.failures:
                self._seal(pair, journal, done.end)
            self._tell(journal, book, done.end)
        return done

    def verify(self, *, reread_sample: float) -> tuple[ProofReport, bool]:
        """Look at the target again, and read back this share of the objects: 1.0 is all of them. (What was found,
        whether the move had come to its end.) Changes nothing: an object that differs may be somebody's work. Raises
        Refused when nothing was moved yet."""
        pair, record = self._moved("verified")
        with self._journal() as journal, self._counted(pair):
            found = prove(pair.target, pair.label, journal, reread_sample=reread_sample)
        return found, record.finished

    def bring_back(self) -> ReturnReport:
        """What was changed, added or removed at the target since goes to the source; neither side's conflicting
        changes are overwritten. Then the manifest anew."""
        pair, record = self._moved("brought back")
        home = (self._back or (lambda: self._source))()
        with self._journal() as journal, self._counted(pair):
            found = return_changes(
                home.rooted(pair.single), pair.target, pair.label, journal,
                part_size_bytes=self.options.part_size_bytes,
            )  # fmt: skip
            if record.finished and (found.returned or found.removed):
                self._seal(pair, journal, MoveReport([]))
        return found

    def undo(self) -> tuple[RemovalReport, bool]:
        """Take away what this move wrote at the target and nobody has changed since; and the bucket, if we made it and
        it is empty then. (What was removed, whether the bucket was.)"""
        pair, _ = self._moved("undone")
        with self._journal() as journal, self._counted(pair):
            report = remove_copy(pair.target, pair.label, journal)
            removed = False
            if journal.counter(_BUCKET_CREATED) and not report.kept:
                removed = _removed(pair)
        if not report.kept:
            forget_record(self.folder)
        return report, removed

    def _journal(self) -> Journal:
        return Journal(self.folder / "journal.db")

    def _open(self) -> tuple[Pair, Record | None]:
        """Both ends, and what was written down when the move began. The first time they are looked at."""
        record = Record.read(self.folder)
        single = self._source.single() if record is None else record.single
        target = self._target(single)
        pair = Pair(self._source.rooted(single), target.rooted(single), self._source, target, single)
        if record is not None:
            record.expect(self._source, target, self.folder, chosen=self._chosen)
            return pair, record
        refuse_overlap(pair)
        if not single and target.single():
            raise Refused(
                f"{target.address} is an object, and {self._source.address} is not",
                hint="end it in a slash if a folder of that name is meant",
            )
        if next(iter(pair.source.list(pair.label)), None) is None and self._source.key:
            raise NotFound(
                f"nothing lies at {self._source.address}", hint="correct the prefix; an empty bucket is moved as it is"
            )
        return pair, None

    def _moved(self, verb: str) -> tuple[Pair, Record]:
        pair, record = self._open()
        if record is None:
            raise Refused(
                f"nothing was moved yet that could be {verb}, as far as {self.folder} knows",
                hint="run the move first, in the same folder or with the same --state",
            )
        return pair, record

    def _pass(self, pair: Pair, journal: Journal, watcher: Watcher) -> PassReport:
        try:
            return move_bucket(pair.source, pair.label, pair.target, pair.label, journal, self.options, watcher)
        except Refused as error:
            raise Refused(str(error), hint="run it once with --allow-mass-delete if this is meant") from error

    def _signer(self) -> Any:
        return signing_key(self.folder, self._key, self._environment)

    def _seal(self, pair: Pair, journal: Journal, report: MoveReport) -> None:
        """The signed manifest of everything that has arrived."""
        report.manifest = write_manifest(journal.entries("done"), self.folder)
        signer = self._signer()
        sign_manifest(
            report.manifest, self.folder, signer, origin_of("move", pair.from_end.address, pair.to_end.address)
        )
        report.signed_by = signer.public.fingerprint
        Record.of(pair, finished=True).write(self.folder)

    def _tell(self, journal: Journal, book: EgressBook, report: MoveReport) -> None:
        report.trust = journal.trust()
        book.settle()
        report.egress = egress_report(book.days(), {}, [])

    @contextmanager
    def _counted(self, pair: Pair) -> Iterator[EgressBook]:
        """While it lasts, what leaves either end is written into the move's book of egress."""
        ends = (pair.from_end, pair.to_end)
        with egress_book(self.folder) as book:
            for end in ends:
                end.meter.to = partial(book.count, end.address)
            try:
                yield book
            finally:
                for end in ends:
                    end.meter.to = None


def _adding_up(watcher: Watcher) -> Watcher:
    """A delta within a run is more to do, and no new beginning."""
    all_objects = all_bytes = 0

    def start(objects: int, size_bytes: int) -> None:
        nonlocal all_objects, all_bytes
        all_objects += objects
        all_bytes += size_bytes
        watcher.start(all_objects, all_bytes)

    return replace(watcher, start=start)


def _removed(pair: Pair) -> bool:
    try:
        return pair.target.remove_bucket(pair.label)
    except PreconditionFailed:
        return False  # somebody else's objects are still in it
