"""One large object in parts, by many threads at once: parts travel in any order, and are hashed in the object's."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from crossload.engines.mover.buffers import Buffer
from crossload.engines.mover.copying import Copier, Sent, SourceChanged, Upload
from crossload.engines.mover.digests import RunningDigest, check_algorithm, crc, crc_digest
from crossload.ledger.journal import Entry
from crossload.ports.errors import PreconditionFailed
from crossload.ports.store import ObjectInfo, Part


@dataclass(frozen=True, slots=True)
class PartJob:
    part: Part
    buffer: Buffer


@dataclass(frozen=True, slots=True)
class _Arrived:
    """A part that waits for its turn to be hashed."""

    buffer: Buffer
    size_bytes: int
    crc: int


class PartedCopy:
    """`next` hands out the parts in order, `run` carries one. Whoever's `run` says True was the last, and calls
    `finish`. A buffer is lent before the next part is handed out: so the part whose turn it is always has one, and
    those that wait for their turn never keep it from coming."""

    def __init__(self, copier: Copier, upload: Upload, sent: Sent) -> None:
        self._copier = copier
        self._upload = upload
        self._sent = sent
        self._running = RunningDigest(check_algorithm(copier.target))
        self._mutex = threading.Lock()
        self._next = 1
        self._under_way = 0
        self._turn = 1
        self._hashing = False
        self._waiting: dict[int, _Arrived] = {}
        self._done: dict[int, Part] = {}
        self._error: BaseException | None = None

    @property
    def entry(self) -> Entry:
        return self._upload.entry

    def next(self) -> PartJob | None:
        """The next part with a buffer to carry it in; None when there is none to begin. Call from one thread at a
        time."""
        if self._next > self._upload.count or self._error is not None:
            return None
        part = self._upload.part(self._next)
        buffer = self._copier.pool.lend(part.size_bytes)
        with self._mutex:
            if self._error is None:
                self._next += 1
                self._under_way += 1
                return PartJob(part, buffer)
        buffer.give_back()  # it failed while we waited, and somebody may be finishing it now
        return None

    def run(self, job: PartJob) -> bool:
        """Carry one part. Its failure is kept for `finish`."""
        try:
            if self._error is None:
                self._carry(job)
            else:
                job.buffer.give_back()
        except BaseException as error:  # noqa: BLE001 - raised by `finish`
            self._fail(error)
        with self._mutex:
            self._under_way -= 1
            ended = self._error is not None or self._next > self._upload.count
            return ended and self._under_way == 0

    def finish(self) -> Entry:
        """The finished entry. Raises what went wrong with any part, as `Copier.begin` would."""
        error = self._error
        if error is not None:
            for item in self._waiting.values():
                item.buffer.give_back()
            self._waiting.clear()
            if isinstance(error, SourceChanged | PreconditionFailed):
                self._copier.give_up(self._upload)
            if isinstance(error, PreconditionFailed):
                raise SourceChanged(f"{self.entry.key}: {error}") from error
            raise error
        parts = [self._done[number] for number in sorted(self._done)]
        return self._copier.finish(self._upload, parts, self._running)

    def _carry(self, job: PartJob) -> None:
        number = job.part.number
        try:
            view = job.buffer.view
            self._copier.read(self.entry, job.part.offset_bytes, view)
            value = crc(self._running.algorithm, view)
            held = self._upload.held.get(number)
            if held is None:  # what the target has already is read for the digest, and not sent again
                self._sent(job.part.size_bytes)
                held = self._copier.send_part(self._upload, job.part, view, crc_digest(self._running.algorithm, value))
        except BaseException:
            job.buffer.give_back()
            raise
        with self._mutex:
            self._done[number] = held
            self._waiting[number] = _Arrived(job.buffer, job.part.size_bytes, value)
        self._hash_in_turn()

    def _hash_in_turn(self) -> None:
        """Hash whatever has its turn; one thread does it for all that come meanwhile."""
        with self._mutex:
            if self._hashing:
                return
            self._hashing = True
        while True:
            with self._mutex:
                item = self._waiting.pop(self._turn, None)
                if item is None:
                    self._hashing = False
                    return
                self._turn += 1
            try:
                self._running.feed(item.buffer.view, item.crc)
            finally:
                item.buffer.give_back()

    def _fail(self, error: BaseException) -> None:
        with self._mutex:
            self._error = self._error or error


def copy_alone(copier: Copier, entry: Entry, there: ObjectInfo | None, sent: Sent) -> Entry:
    """One object by the calling thread alone, whatever its size; finished, or an error as of `Copier.begin`."""
    found = copier.begin(entry, there, sent)
    if not isinstance(found, Upload):
        return found
    parted = PartedCopy(copier, found, sent)
    ended = False
    while not ended and (job := parted.next()) is not None:
        ended = parted.run(job)
    return parted.finish()
