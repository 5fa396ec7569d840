"""The Changes port over folders of this machine: each poll looks over the bucket's files and tells what differs.

Nothing is read but names and dates. The cursor is a time: after a restart, files changed since then are told again, and
removals in between are left to the next listing."""

from __future__ import annotations

import time
from pathlib import Path

from crossload.ports.changes import CREATED, REMOVED, Batch, Change
from crossload.ports.errors import Invalid, NotFound
from crossload.ports.provider import Settings
from crossload.providers.local.paths import bucket_folder, translated, walk

_LOOK_SECONDS = 0.5
_SLACK_NS = 2 * 10**9  # a disk's clock ticks in steps, and one across a network is not ours


def open_changes(settings: Settings) -> LocalChanges:
    return LocalChanges(settings)


class LocalChanges:
    """Needs no set-up; the token is empty."""

    def __init__(self, settings: Settings) -> None:
        self.place = settings.place.id
        self._root = Path(settings.require("root")).expanduser()

    def ensure(self, bucket: str, prefix: str = "", owner: str = "") -> str:
        self._folder(bucket)
        return ""

    def remove(self, token: str) -> None:
        return

    def follow(self, bucket: str, prefix: str = "", token: str = "", cursor: str = "") -> LocalSubscription:
        return LocalSubscription(self._folder(bucket), prefix, cursor)

    def _folder(self, bucket: str) -> Path:
        folder = bucket_folder(self._root, bucket)
        if not folder.is_dir():
            raise NotFound(f"no bucket {bucket} under {self._root}")
        return folder


class LocalSubscription:
    """What was seen stays in memory, about 300 bytes a file. The first look only tells what is younger than the
    cursor; without one it tells nothing."""

    def __init__(self, folder: Path, prefix: str, cursor: str) -> None:
        if cursor and not cursor.isdigit():
            raise Invalid(f"not a cursor of a folder: {cursor!r}")
        self._folder, self._prefix = folder, prefix
        self._seen: dict[str, tuple[int, int, int]] | None = self._look() if not cursor else None
        self._since_ns = int(cursor) if cursor else 0
        self._pending: dict[str, dict[str, tuple[int, int, int]]] = {}

    def poll(self, wait_seconds: float) -> Batch:
        until = time.monotonic() + wait_seconds
        while True:
            began_ns = time.time_ns() - _SLACK_NS
            now = self._look()
            changes = self._differences(now)
            if changes or time.monotonic() >= until:
                self._pending = {str(began_ns): now}
                return Batch(tuple(changes), cursor=str(began_ns))
            time.sleep(max(0.0, min(_LOOK_SECONDS, until - time.monotonic())))

    def acknowledge(self, batch: Batch) -> None:
        self._seen = self._pending.get(batch.cursor, self._seen)

    def _look(self) -> dict[str, tuple[int, int, int]]:
        # The time of the inode's change, which a copy that keeps dates and a renaming do not hide.
        with translated(f"look over {self._folder.name}"):
            return {
                key: (stat.st_ino, stat.st_ctime_ns, stat.st_size)
                for key, stat in walk(self._folder)
                if key.startswith(self._prefix)
            }

    def _differences(self, now: dict[str, tuple[int, int, int]]) -> list[Change]:
        before = self._seen
        if before is None:
            fresh = [key for key, (_, ctime_ns, _) in now.items() if ctime_ns >= self._since_ns]
            gone: list[str] = []
        else:
            fresh = [key for key, state in now.items() if before.get(key) != state]
            gone = [key for key in before if key not in now]
        return [
            *(Change(key, CREATED, now[key][1] / 1e9, size_bytes=now[key][2]) for key in fresh),
            *(Change(key, REMOVED, size_bytes=0) for key in gone),
        ]
