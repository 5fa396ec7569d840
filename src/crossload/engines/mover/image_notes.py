"""What a move of images writes down for the case that it dies: open uploads, and tags that are ours to move."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from crossload.estate.whole import write_whole


class ImageNotes:
    """One file for one repository of one target; without a path nothing outlives the process. Safe from many threads.

    Everything else is asked of the target, which beats any note: which blobs and manifests it has, and how much of an
    open upload."""

    def __init__(self, path: Path | None, target: str) -> None:
        self._path = path
        self._mutex = threading.Lock()
        self._known: dict[str, Any] = {"target": target, "uploads": {}, "tags": {}}
        if path is None or not path.exists():
            return
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            return  # notes only save work: without them the move begins anew
        if isinstance(found, dict) and found.get("target") == target:
            self._known = {**self._known, **found}

    @property
    def durable(self) -> bool:
        """Whether a later move can read them."""
        return self._path is not None

    def upload(self, digest: str) -> str:
        """Where an upload of this blob was last, "" when none is open."""
        with self._mutex:
            return str(self._known["uploads"].get(digest, ""))

    def note_upload(self, digest: str, location: str) -> None:
        """`location` "" when it has ended."""
        with self._mutex:
            uploads = self._known["uploads"]
            if location:
                uploads[digest] = location
            elif uploads.pop(digest, None) is None:
                return
            self._write()

    def gave(self, tag: str, digest: str) -> bool:
        """Whether it was us who gave this tag this digest, now or in an earlier move."""
        with self._mutex:
            return digest in self._known["tags"].get(tag, ())

    def note_tag(self, tag: str, digest: str) -> None:
        with self._mutex:
            given = self._known["tags"].setdefault(tag, [])
            if digest not in given:
                given.append(digest)
                self._write()

    def _write(self) -> None:
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self._path, json.dumps(self._known, indent=1, sort_keys=True), durable=True)
