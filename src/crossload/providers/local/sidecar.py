"""What a plain file cannot say about itself, one readable JSON file per object, under `.crossload/meta/`.

The file is written before the object takes its name, and holds the state before, too: whichever fits the object's size
and time of change is the true one, so a crash between the two writes mixes nothing. When neither fits, somebody else
changed the file: its digest is computed anew and the metadata are kept."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossload.estate.whole import write_whole
from crossload.ports.store import ObjectMeta
from crossload.providers.local.paths import SIDE, make_folders, sync_folder


@dataclass(frozen=True, slots=True)
class State:
    """One state of an object: `sha256` is of its bytes, `size_bytes` and `mtime_ns` say which bytes are meant."""

    size_bytes: int
    mtime_ns: int
    sha256: str
    meta: ObjectMeta

    def fits(self, stat: os.stat_result) -> bool:
        return self.size_bytes == stat.st_size and self.mtime_ns == stat.st_mtime_ns


def current(folder: Path, key: str, file: Path, stat: os.stat_result) -> State:
    """The object's state; digests the file when nobody wrote down what it is now."""
    known = _load(folder, key)
    for state in known:
        if state.fits(stat):
            return state
    state = State(stat.st_size, stat.st_mtime_ns, sha256_of_file(file), known[0].meta if known else ObjectMeta())
    again = file.stat()
    if state.fits(again) and os.access(folder, os.W_OK):
        _store(folder, key, [state])
    return state


def announce(folder: Path, key: str, file: Path, state: State) -> None:
    """Write down what the object is about to be, beside what it is."""
    before: list[State] = []
    try:
        stat = file.stat()
    except OSError:
        pass
    else:
        before = [known for known in _load(folder, key) if known.fits(stat)]
    _store(folder, key, [state, *before])


def forget(folder: Path, key: str) -> None:
    _path(folder, key).unlink(missing_ok=True)


def sha256_of_file(file: Path) -> str:
    with file.open("rb", buffering=0) as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def meta_to_json(meta: ObjectMeta) -> dict[str, Any]:
    return {
        "content_type": meta.content_type, "cache_control": meta.cache_control,
        "content_disposition": meta.content_disposition, "content_encoding": meta.content_encoding,
        "content_language": meta.content_language, "user": dict(meta.user), "tags": dict(meta.tags),
        **({"storage_class": meta.storage_class} if meta.storage_class else {}),
        **({"expires": meta.expires} if meta.expires else {}),
    }  # fmt: skip


def meta_from_json(value: Mapping[str, Any]) -> ObjectMeta:
    return ObjectMeta(**{name: value[name] for name in ObjectMeta.__slots__ if name in value})


def _path(folder: Path, key: str) -> Path:
    # A hash, not the key: `a` and `a/b` would meet again here, and a key may be longer than a file name.
    name = hashlib.sha256(key.encode()).hexdigest()
    return folder / SIDE / "meta" / name[:2] / f"{name}.json"


def _load(folder: Path, key: str) -> list[State]:
    try:
        held = json.loads(_path(folder, key).read_bytes())
        if held["key"] != key:
            return []
        return [
            State(item["size_bytes"], item["mtime_ns"], item["sha256"], meta_from_json(item["meta"]))
            for item in held["states"]
        ]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []  # none, or not ours: the file itself is the truth


def _store(folder: Path, key: str, states: list[State]) -> None:
    path = _path(folder, key)
    make_folders(path.parent, folder)
    held = {
        "key": key,
        "states": [
            {
                "size_bytes": state.size_bytes, "mtime_ns": state.mtime_ns, "sha256": state.sha256,
                "meta": meta_to_json(state.meta),
            }
            for state in states
        ],
    }  # fmt: skip
    write_whole(path, json.dumps(held, ensure_ascii=False, indent=1), durable=True)
    sync_folder(path.parent)
