"""An outside judge: rclone reads source and target and compares every byte of what `crossload move` has copied.

    python benchmarks/judge.py [--s3-tests FOLDER]

The judge must also find what is wrong: at the end one byte of one object is turned, and another object is taken away.
With the folder of a checkout of Ceph's s3-tests, those that concern what a move relies on are run against the server;
see docs/benchmarks-judges.md."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import s3_tests
from mixed import Known, name, seed
from peers import rclone
from rows import Row, Run, at_most, timed, told, write
from servers import BIN, S3Server, drop_bucket, seaweed, temporary

BUCKET, INTO = "mixed", "judged"
_WRONG = "*-+!"  # differs, missing at one end, at the other, cannot be read
_TURNED, _TAKEN = "large/m00", "d01/o00001"


class Court:
    def __init__(self, source: S3Server, target: S3Server, folder: Path) -> None:
        self._source, self._target, self._folder = source, target, folder
        self._rclone = rclone()
        self._config = folder / "rclone.conf"
        self._config.write_text("\n".join([*source.rclone(), *target.rclone()]) + "\n")

    def move(self, *more: str) -> list[str]:
        return [
            str(BIN / "crossload"), "move", f"s3://{BUCKET}", f"s3://{INTO}", "--state", str(self._folder / "state"),
            "-q", *more, *self._source.settings("source"), *self._target.settings("target"),
        ]  # fmt: skip

    def copy(self) -> Run:
        return timed(self.move(), log=self._folder / "ours.log")

    def judged(self) -> Counter[str]:
        """How many objects rclone calls what: `=` equal, and see above."""
        told_file = self._folder / "combined.txt"
        command = [
            self._rclone, "--config", str(self._config), "check", "--download", "--combined", str(told_file),
            f"{self._source.profile}:{BUCKET}", f"{self._target.profile}:{INTO}",
        ]  # fmt: skip
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        found = Counter(line[:1] for line in told_file.read_text().splitlines())
        if (done.returncode == 0) != (not any(found[sign] for sign in _WRONG)):
            raise SystemExit(f"rclone says {done.returncode} and {dict(found)}: {done.stderr[-1000:]}")
        return found

    def proved(self) -> bool:
        return subprocess.run(self.move("--prove"), capture_output=True).returncode == 0

    def damage(self, known: dict[str, Known]) -> None:
        """One byte turned in one object, another object taken away."""
        client = self._target.client()
        body = bytearray(client.get_object(Bucket=INTO, Key=_TURNED)["Body"].read())
        assert len(body) == known[_TURNED].size_bytes
        body[len(body) // 2] ^= 1
        client.put_object(Bucket=INTO, Key=_TURNED, Body=bytes(body))
        client.delete_object(Bucket=INTO, Key=_TAKEN)

    def close(self) -> None:
        drop_bucket(self._target, INTO)


def rclone_rows(court: Court, known: dict[str, Known], words: str) -> list[Row]:
    run = court.copy()
    found, proved = court.judged(), court.proved()
    court.damage(known)
    spoilt, proved_after = court.judged(), court.proved()
    court.close()
    wrong, wrong_after = (sum(item[sign] for sign in _WRONG) for item in (found, spoilt))
    judge = "rclone check --download"
    return [
        told(f"{words}: copied by us in", run.wall_seconds, "s"),
        at_most(f"{words}: differences found by {judge}", wrong, "objects", 0),
        at_most(f"{words}: equal objects missing from what it counts", len(known) - found["="], "objects", 0),
        at_most(f"{words}: not good by --prove", float(not proved), "copies", 0),
        at_most("two objects spoilt: differences it fails to find", abs(wrong_after - 2), "objects", 0),
        at_most("two objects spoilt: good by --prove all the same", float(proved_after), "copies", 0),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--s3-tests", type=Path, default=None, metavar="FOLDER", help="a checkout of Ceph's s3-tests")
    parser.add_argument("--small", type=int, default=3000)
    parser.add_argument("--large", type=int, default=12)
    asked = parser.parse_args()
    with temporary() as folder, seaweed(folder, "a") as source, seaweed(folder, "b") as target:
        known = seed(source, BUCKET, asked.small, asked.large)
        rows = rclone_rows(Court(source, target, folder), known, name(asked.small, asked.large))
        if asked.s3_tests is not None:
            found = s3_tests.run(target, asked.s3_tests.resolve(), folder)
            s3_tests.write_found(found)
            rows += s3_tests.rows_of(found)
    write("judge", rows)
    return 0 if all(row.holds is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
