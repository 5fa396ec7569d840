"""kill -9 at random moments of a copy, until it is whole; then anew. Are objects torn, sent again, lost, left over?

    python benchmarks/kills.py [--kills 100] [--peer-kills 0] [--seed 1]

Real `crossload move` processes between two SeaweedFS servers of this machine. Between ours and the target stands a
relay in a process of its own that counts what is sent, so that what was sent twice is measured outside of us: all
bytes, less the heads of requests, less the data set once for every copy. The judge reads the target past the relay.
With --peer-kills rclone is treated in the same way, and its figures stand beside ours."""

from __future__ import annotations

import argparse
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from counting import Counter, counted
from mixed import LARGE_BYTES, PART_BYTES, SMALL_BYTES, Known, listed, name, same, seed
from peers import rclone
from rows import Row, at_most, told, write
from servers import BIN, S3Server, drop_bucket, seaweed, temporary

WORKERS = 8
BUCKET = "mixed"
_MIB = 2**20
_HASHED_SMALL, _HASHED_LARGE = 60, 4  # after each kill, of those that became visible since the last look
_FAILURES_MAX = 5


@dataclass(frozen=True, slots=True)
class Mover:
    """`command` copies into a bucket with a folder of its own to remember in; `proof` judges that copy by itself."""

    name: str
    command: Callable[[str, Path], list[str]]
    proof: Callable[[str, Path], list[str]] | None = None


@dataclass(slots=True)
class Tally:
    kills: int = 0
    kills_amid: int = 0  # with bytes on their way since that start
    copies: int = 0
    copies_killed: int = 0
    failed: int = 0
    torn: list[str] = field(default_factory=list)
    looked: int = 0
    hashed: int = 0
    resent_bytes: int = 0
    resent_bytes_max: float = 0.0  # a kill of one copy
    head_bytes: int = 0
    requests: int = 0
    missing: int = 0
    unproved: int = 0
    uploads_left: int = 0


class Course:
    """Two servers, a data set, a counting relay before the target."""

    def __init__(
        self, source: S3Server, target: S3Server, through: S3Server, counter: Counter, known: dict[str, Known],
        folder: Path,
    ) -> None:  # fmt: skip
        self.source, self.target, self.through, self.counter, self.known = source, target, through, counter, known
        self.size_bytes = sum(item.size_bytes for item in known.values())
        self.folder = folder
        self._client = target.client()

    def ours(self) -> Mover:
        def move(into: str, state: Path, *more: str) -> list[str]:
            return [
                str(BIN / "crossload"), "move", f"s3://{BUCKET}", f"s3://{into}", "--state", str(state), "-q",
                *more, *self.source.settings("source"), *self.through.settings("target"),
            ]  # fmt: skip

        shape = ("--workers", str(WORKERS), "--part-size", str(PART_BYTES // _MIB))
        return Mover("crossload", lambda i, s: move(i, s, *shape), lambda i, s: move(i, s, "--prove"))

    def theirs(self) -> Mover:
        config, binary = self.folder / "rclone.conf", rclone()
        config.write_text("\n".join([*self.source.rclone(), *self.through.rclone()]) + "\n")
        part = f"{PART_BYTES // _MIB}Mi"
        shape = ("--s3-chunk-size", part, "--s3-upload-cutoff", part, "--transfers", str(WORKERS))
        ends = (f"{self.source.profile}:{BUCKET}", f"{self.through.profile}:")
        return Mover(
            "rclone", lambda into, _: [binary, "--config", str(config), "copy", ends[0], ends[1] + into, *shape, "-q"]
        )

    def copies(self, mover: Mover, kills: int, chance: random.Random) -> Tally:
        """One copy without a kill, to know how long it takes; then copies until so many kills were done. A kill comes
        at any moment of the time that the copy before took, early ones more often, so that a copy meets several."""
        seconds = self._copy(mover, Tally(), 0, 0.0, chance)
        tally = Tally()
        while tally.kills < kills:
            seconds = self._copy(mover, tally, kills, seconds, chance)
            print(f"{mover.name}: {tally.kills} kills, {tally.copies} copies, {len(tally.torn)} torn, "
                  f"{tally.resent_bytes / _MIB:.1f} MiB sent again", file=sys.stderr, flush=True)  # fmt: skip
        return tally

    def _copy(self, mover: Mover, tally: Tally, kills: int, seconds: float, chance: random.Random) -> float:
        """Seconds that the mover's processes ran."""
        into = f"t{secrets.token_hex(5)}"
        state = self.folder / f"state-{into}"
        command = mover.command(into, state)
        before, kills_before = self.counter.counts(), tally.kills
        seen: set[str] = set()
        ran = 0.0
        while True:
            started, began = self.counter.counts(), time.monotonic()
            delay = seconds * chance.random() * chance.random() if tally.kills < kills else None
            code = self._run(command, delay)
            ran += time.monotonic() - began
            if code == 0:
                break
            if code is not None:
                tally.failed += 1
                if tally.failed > _FAILURES_MAX:
                    raise SystemExit(f"{mover.name} fails when started again: see its last words above")
                continue
            tally.kills += 1
            tally.kills_amid += (self.counter.counts() - started).body_bytes >= SMALL_BYTES
            self._look(into, seen, tally, chance)
        sent = self.counter.counts() - before
        resent = sent.body_bytes - self.size_bytes
        killed = tally.kills - kills_before
        tally.copies += 1
        tally.copies_killed += killed > 0
        tally.resent_bytes += resent
        tally.resent_bytes_max = max(tally.resent_bytes_max, resent / max(1, killed))
        tally.head_bytes += sent.head_bytes
        tally.requests += sent.requests
        self._close(mover, into, state, tally)
        return ran

    def _run(self, command: list[str], delay: float | None) -> int | None:
        """The exit status; None when it was killed after `delay` seconds."""
        with (self.folder / "out.log").open("w+b") as out:
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
            try:
                code = process.wait(delay)
            except subprocess.TimeoutExpired:
                process.kill()
                return None if process.wait() < 0 else process.returncode
            finally:
                process.kill()
            if code:
                out.seek(0)
                print(out.read().decode("utf-8", "replace")[-2000:], file=sys.stderr)
            return code

    def _look(self, into: str, seen: set[str], tally: Tally, chance: random.Random) -> None:
        """Whatever can be seen at the target must be whole: sizes of all, bytes of a sample of what is new."""
        there = listed(self._client, into)
        tally.looked += len(there)
        torn = {key for key, size in there.items() if key not in self.known or size != self.known[key].size_bytes}
        new = sorted(there.keys() - seen - torn)
        small = [key for key in new if there[key] < LARGE_BYTES]
        large = [key for key in new if there[key] >= LARGE_BYTES]
        sample = [
            *chance.sample(small, min(_HASHED_SMALL, len(small))),
            *chance.sample(large, min(_HASHED_LARGE, len(large))),
        ]
        torn |= {key for key in sample if not same(self._client, into, key, self.known)}
        tally.hashed += len(sample)
        tally.torn += [f"{into}/{key}" for key in sorted(torn)]
        seen.update(there)

    def _close(self, mover: Mover, into: str, state: Path, tally: Tally) -> None:
        """The copy says that it is whole: is it? And is nothing left over?"""
        there = listed(self._client, into)
        wanted = {key: item.size_bytes for key, item in self.known.items()}
        tally.missing += len(dict(wanted.items() ^ there.items()))
        tally.uploads_left += len(self._client.list_multipart_uploads(Bucket=into).get("Uploads", []))
        if mover.proof is not None:
            tally.unproved += self._run(mover.proof(into, state), None) != 0
        drop_bucket(self.target, into)


@contextmanager
def course(folder: Path, small: int, large: int) -> Iterator[Course]:
    with (
        seaweed(folder, "a") as source,
        seaweed(folder, "b") as target,
        counted(target.endpoint) as counter,
    ):
        config = folder / "through.config"
        config.write_text(f"[profile {target.profile}]\nregion = us-east-1\nendpoint_url = {counter.url}\n")
        through = replace(target, endpoint=counter.url, config=config)
        known = seed(source, BUCKET, small, large)
        yield Course(source, target, through, counter, known, folder)


def rows_of(tally: Tally, peer: Tally | None, size_bytes: int) -> list[Row]:
    bar = WORKERS * PART_BYTES / _MIB + 1
    who = "rclone" if peer else ""

    def both(measure: str, unit: str, most: float | None, value: Callable[[Tally], float]) -> Row:
        theirs = value(peer) if peer else None
        if most is None:
            return told(measure, value(tally), unit, who, theirs)
        return at_most(measure, value(tally), unit, most, who, theirs)

    return [
        both("kill -9 at a random moment", "kills", None, lambda t: t.kills),
        both("of these after bytes of objects were sent", "kills", None, lambda t: t.kills_amid),
        both("copies, each until whole", "copies", None, lambda t: t.copies),
        both("torn objects visible after a kill", "objects", 0, lambda t: len(t.torn)),
        both("looked at after kills, by size", "objects", None, lambda t: t.looked),
        both("looked at after kills, by sha256", "objects", None, lambda t: t.hashed),
        both("sent again for each kill", "MiB", bar, lambda t: t.resent_bytes / t.kills / _MIB),
        both("sent again for each kill, worst copy", "MiB", bar, lambda t: t.resent_bytes_max / _MIB),
        both("heads of requests for each copy", "MiB", None, lambda t: t.head_bytes / t.copies / _MIB),
        both("requests for each copy", "requests", None, lambda t: t.requests / t.copies),
        both("missing or different in the end", "objects", 0, lambda t: t.missing),
        both("multipart uploads left open", "uploads", 0, lambda t: t.uploads_left),
        both("starts after a kill that failed", "starts", 0, lambda t: t.failed),
        at_most("copies that --prove does not call good", tally.unproved, "copies", 0),
        told("the data set", size_bytes / _MIB, "MiB"),
    ]


def _leave(signum: int, _: object) -> None:
    """The servers go with us."""
    sys.exit(128 + signum)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--peer-kills", type=int, default=0, help="of rclone, to compare")
    parser.add_argument("--seed", type=int, default=1, help="of the moments")
    parser.add_argument("--small", type=int, default=3000, help=f"objects of {SMALL_BYTES} bytes")
    parser.add_argument("--large", type=int, default=12, help=f"objects of {LARGE_BYTES} bytes")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, _leave)
    if asked.kills < 1:
        parser.error("--kills: at least 1")
    with temporary() as folder, course(folder, asked.small, asked.large) as ground:
        print(name(asked.small, asked.large), file=sys.stderr)
        ours = ground.copies(ground.ours(), asked.kills, random.Random(asked.seed))
        rows = rows_of(ours, None, ground.size_bytes)
        write("kills", rows)  # ours are kept, whatever becomes of the peer's
        if asked.peer_kills:
            peer = ground.copies(ground.theirs(), asked.peer_kills, random.Random(asked.seed))
            rows = rows_of(ours, peer, ground.size_bytes)
            write("kills", rows)
    for torn in ours.torn[:20]:
        print(f"torn: {torn}", file=sys.stderr)
    return 0 if all(row.holds is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
