"""A process that carries shards: `python -m crossload.engines.mover.shard_process`, started by `shards`, never by hand.

The job comes pickled on standard input; when that ends, so does this process."""

from __future__ import annotations

import os
import pickle
import sys
import threading
import time

from crossload.engines.mover.carrying import Beating, Ends, Lost, Progress, carry_shard
from crossload.engines.mover.shards import Job, leases_of
from crossload.ledger.comparison import Settled
from crossload.ledger.journal import Journal
from crossload.ledger.lease import Leases, Shard
from crossload.ports.errors import CrossloadError

_LEAVE_SECONDS_MAX = 5.0
_IDLE_SECONDS = 0.1
_BEATS = 5  # in the time of a lease; at least
_BEAT_SECONDS_MAX = 0.5  # also how soon progress is seen, and the end of the move heard


def work(job: Job, ended: threading.Event) -> None:
    """Take shards and carry them until there are no more. Raises the first fatal error, which the others hear of."""
    leases = Leases(leases_of(job.journal))
    try:
        ends = Ends(job.open_source(_say), job.source_bucket, job.open_target(_say), job.target_bucket)
        with Settled(job.journal) as listing, Journal(job.journal) as journal:
            while not ended.is_set() and not leases.over():
                shard = leases.claim(job.owner, job.lease_seconds)
                if shard is None:
                    time.sleep(_IDLE_SECONDS)  # others hold the rest, and may not live to finish it
                    continue
                _carry(job, ends, leases, listing, journal, shard, ended)
    except CrossloadError as error:
        leases.fail(error)
        raise
    finally:
        leases.give_back(job.owner)
        leases.close()


def _carry(
    job: Job, ends: Ends, leases: Leases, listing: Settled, journal: Journal, shard: Shard, ended: threading.Event
) -> None:
    def beat(progress: Progress) -> None:
        held = leases.renew(
            shard.number, job.owner, job.lease_seconds, moved=progress.moved, sent_bytes=progress.sent_bytes
        )
        if not held or ended.is_set() or leases.trouble() is not None:
            raise Lost(f"shard {shard.number} is ours no longer")

    found = listing.between(shard.first, shard.last)
    if shard.starts > 1:  # whatever the journal calls done since this pass began is not sent again
        again = leases.again(shard)
        found = [one for one in found if not one[2] or one[0] in again]
    rows = [todo for _, todo, _ in found]
    progress = Progress()
    try:
        with Beating(min(_BEAT_SECONDS_MAX, job.lease_seconds / _BEATS), beat, progress):
            report = carry_shard(ends, rows, journal, job.options, progress, shard.objects - len(rows))
        leases.finish(shard.number, job.owner, report.to_json())
    except Lost:
        return  # somebody else has it, or nobody needs it: the next claim tells


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _until_told(ended: threading.Event) -> None:
    """Whoever started us holds the other end of our standard input, and lets go of it when it ends, even by a kill."""
    while os.read(0, 4096):
        pass
    ended.set()
    time.sleep(_LEAVE_SECONDS_MAX)
    os._exit(1)


def main() -> int:
    job = pickle.load(sys.stdin.buffer)  # noqa: S301 - from the process that started us, through its own pipe
    ended = threading.Event()
    threading.Thread(target=_until_told, args=(ended,), name="until-told", daemon=True).start()
    try:
        work(job, ended)
    except CrossloadError:
        return 1  # the others and whoever started us have heard of it
    return 0


if __name__ == "__main__":
    sys.exit(main())
