"""The mover beside rclone, S3 to S3, on two SeaweedFS servers of this machine; medians of several rounds.

    make bench NAME=mover        (or: python benchmarks/mover.py [--rounds 5] [--only small,mid,big,null])

Every run copies into a fresh bucket, ours and rclone's in turn, so that noise meets both. Both are timed as whole
processes, start-up included. rclone runs with the flags that made it fastest here; without --s3-no-head it would be
slower. Server CPU is told too: where it fills the machine, it is the limit of both."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from nulls import null_rows
from peers import rclone
from rows import Row, Run, at_most, cpu_of, least, median, most, timed, told, write
from servers import BIN, S3Server, drop_bucket, seaweed, temporary

SMALL, SMALL_BYTES = 10_000, 16 * 1024
MID, MID_BYTES = 20, 64 * 2**20
BIG_BYTES = 2 * 2**30
_BEST = ("--s3-no-check-bucket", "--s3-no-head", "--no-check-dest", "--fast-list", "-q")


class Course:
    """Source and target, and both ways to get from one to the other."""

    def __init__(self, source: S3Server, target: S3Server, folder: Path) -> None:
        self.source, self.target, self._folder = source, target, folder
        self._rclone = rclone()
        self._config = folder / "rclone.conf"
        self._config.write_text("\n".join([*source.rclone(), *target.rclone()]) + "\n")

    def ours(self, bucket: str, into: str, workers: int) -> Run:
        state = self._folder / f"state-{into}"
        command = [
            str(BIN / "crossload"), "move", f"s3://{bucket}", f"s3://{into}", "--state", str(state), "-q",
            "--workers", str(workers), *self.source.settings("source"), *self.target.settings("target"),
        ]  # fmt: skip
        return timed(command, log=self._folder / "ours.log")

    def theirs(self, bucket: str, into: str, transfers: int) -> Run:
        command = [
            self._rclone, "--config", str(self._config), "copy", f"{self.source.profile}:{bucket}",
            f"{self.target.profile}:{into}", "--transfers", str(transfers), "--checkers", "16", *_BEST,
        ]  # fmt: skip
        return timed(command, log=self._folder / "rclone.log")

    def pairs(self, bucket: str, rounds: int, workers: int, transfers: int) -> tuple[list[Run], list[Run], list[float]]:
        """(our runs, rclone's, server CPU seconds of ours). Both begin every other time."""
        ours: list[Run] = []
        theirs: list[Run] = []
        servers: list[float] = []
        for number in range(rounds):
            turns: list[Callable[[str], None]] = [
                lambda into: self._ours_with_servers(bucket, into, workers, ours, servers),
                lambda into: theirs.append(self.theirs(bucket, into, transfers)),
            ]
            for turn in turns if number % 2 else reversed(turns):
                into = f"t{secrets.token_hex(5)}"
                self.target.client().create_bucket(Bucket=into)
                turn(into)
                drop_bucket(self.target, into)
        return ours, theirs, servers

    def _ours_with_servers(self, bucket: str, into: str, workers: int, runs: list[Run], servers: list[float]) -> None:
        pids = (self.source.pid, self.target.pid)
        before = sum(map(cpu_of, pids))
        runs.append(self.ours(bucket, into, workers))
        servers.append(sum(map(cpu_of, pids)) - before)


def seed(server: S3Server, only: set[str]) -> None:
    client = server.client()
    noise = os.urandom(SMALL_BYTES + 20_000)
    if "small" in only:
        client.create_bucket(Bucket="small")

        def put(number: int) -> None:
            key, body = f"d{number % 100:02d}/o{number:05d}", noise[number : number + SMALL_BYTES]
            client.put_object(Bucket="small", Key=key, Body=body, ContentType="application/octet-stream")

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(put, range(SMALL)))
    block = os.urandom(MID_BYTES)
    if "mid" in only:
        client.create_bucket(Bucket="mid")
        for number in range(MID):
            client.put_object(Bucket="mid", Key=f"m{number:02d}", Body=block)
    if "big" in only:
        client.create_bucket(Bucket="big")
        upload = client.create_multipart_upload(Bucket="big", Key="big")["UploadId"]
        parts = [
            {
                "PartNumber": number,
                "ETag": client.upload_part(Bucket="big", Key="big", UploadId=upload, PartNumber=number, Body=block)[
                    "ETag"
                ],
            }
            for number in range(1, BIG_BYTES // MID_BYTES + 1)
        ]
        client.complete_multipart_upload(Bucket="big", Key="big", UploadId=upload, MultipartUpload={"Parts": parts})


def small_rows(course: Course, rounds: int) -> list[Row]:
    ours, theirs, servers = course.pairs("small", rounds, 8, 16)
    mine, peer = median(ours), median(theirs)
    name = f"{SMALL:,} x 16 KiB"
    return [
        least(f"{name}: objects/s", SMALL / mine.wall_seconds, "1/s", "rclone", SMALL / peer.wall_seconds, 1.5),
        most(f"{name}: CPU per object", 1000 * mine.cpu_seconds / SMALL, "ms", "rclone",
             1000 * peer.cpu_seconds / SMALL, 0.35),
        at_most(f"{name}: peak RSS", mine.rss_mib, "MiB", 150, "rclone", peer.rss_mib),
        told(f"{name}: CPU of both servers meanwhile", sorted(servers)[len(servers) // 2], "s"),
    ]  # fmt: skip


def large_rows(course: Course, bucket: str, name: str, size_bytes: int, rounds: int) -> list[Row]:
    ours, theirs, servers = course.pairs(bucket, rounds, 6, 4)
    mine, peer = median(ours), median(theirs)
    gib = size_bytes / 2**30
    rows = [
        least(f"{name}: rate, with sha256", gib * 1024 / mine.wall_seconds, "MiB/s", "rclone",
              gib * 1024 / peer.wall_seconds, 1.0),
        at_most(f"{name}: peak RSS", mine.rss_mib, "MiB", 150, "rclone", peer.rss_mib),
        told(f"{name}: CPU of both servers meanwhile", sorted(servers)[len(servers) // 2], "s"),
    ]  # fmt: skip
    cpu, theirs_cpu = mine.cpu_seconds / gib, peer.cpu_seconds / gib
    if bucket == "big":
        rows.append(most(f"{name}: CPU, with sha256", cpu, "s/GiB", "rclone", theirs_cpu, 0.5))
    else:
        rows.append(told(f"{name}: CPU, with sha256", cpu, "s/GiB", "rclone (no digest)", theirs_cpu))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="small,mid,big,null")
    arguments = parser.parse_args()
    only = set(arguments.only.split(","))
    rows: list[Row] = []
    with temporary() as folder:
        if only & {"small", "mid", "big"}:
            with seaweed(folder, "a") as source, seaweed(folder, "b") as target:
                seed(source, only)
                course = Course(source, target, folder)
                if "small" in only:
                    rows += small_rows(course, arguments.rounds)
                if "mid" in only:
                    rows += large_rows(course, "mid", f"{MID} x 64 MiB", MID * MID_BYTES, arguments.rounds)
                if "big" in only:
                    rows += large_rows(course, "big", "1 x 2 GiB", BIG_BYTES, arguments.rounds)
        if "null" in only:
            rows += null_rows(folder, arguments.rounds)
    write("mover" if only >= {"small", "mid", "big"} else "mover-part", rows)


if __name__ == "__main__":
    main()
