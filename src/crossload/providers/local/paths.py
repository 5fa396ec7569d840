"""Which file a key is: plain folders, nothing outside the bucket, and a refusal for what a disk cannot hold."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crossload.ports.errors import AccessDenied, CrossloadError, Invalid, NotFound, Unavailable

SIDE = ".crossload"  # beside the objects of a bucket: what a plain file cannot say about itself
_NAME_BYTES_MAX = 255


def bucket_folder(root: Path, bucket: str) -> Path:
    """Raises Invalid for a name that is no single folder."""
    if not bucket or bucket.startswith(".") or "/" in bucket or "\0" in bucket:
        raise Invalid(f"not a bucket name: {bucket!r}", hint="a bucket is one folder below the root, not hidden")
    return root / bucket


def object_file(folder: Path, key: str) -> Path:
    """The file of a key. Raises Invalid, with a hint, for keys that are not exactly one file below the bucket."""
    parts = key.split("/")
    hint = "leave the object out, or rename it on its way (a rule of the transfer)"
    if "\0" in key:
        raise Invalid(f"key {key!r} holds a zero byte", hint=hint)
    if "" in parts:
        raise Invalid(f"key {key!r} begins or ends with `/`, or holds `//`: folders need names", hint=hint)
    if "." in parts or ".." in parts:
        raise Invalid(f"key {key!r} holds `.` or `..` as a folder: it would name another file", hint=hint)
    if parts[0] == SIDE:
        raise Invalid(f"key {key!r}: the folder {SIDE} is ours", hint=hint)
    try:
        too_long = any(len(part.encode()) > _NAME_BYTES_MAX for part in parts)
    except UnicodeEncodeError as error:
        raise Invalid(f"key {key!r} is not Unicode text", hint=hint) from error
    if too_long:
        raise Invalid(f"key {key[:60]!r}... has a part longer than {_NAME_BYTES_MAX} bytes", hint=hint)
    return folder.joinpath(*parts)


def stays_inside(folder: Path, file: Path) -> None:
    """Refuse a way that leaves the bucket through a link somebody put there."""
    step = folder
    for part in file.relative_to(folder).parts:
        step = step / part
        if step.is_symlink():
            raise Invalid(f"{step} is a link, which could lead outside the bucket", hint="put the file itself there")


def walk(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """(key, stat) of every plain file of a bucket, in UTF-8 order of the keys; links and our own folder are left
    out."""
    waiting = [_entries(folder, "")]
    while waiting:
        entry = next(waiting[-1], None)
        if entry is None:
            waiting.pop()
            continue
        key, found = entry
        if key.endswith("/"):
            waiting.append(_entries(Path(found.path), key))
            continue
        try:
            stat = found.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue  # removed while we walk
        yield key, stat


def _entries(folder: Path, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Sub-folders are sorted as the beginnings of keys that they are, with their slash."""
    named: list[tuple[str, os.DirEntry[str]]] = []
    try:
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                if prefix or entry.name != SIDE:
                    named.append((f"{prefix}{entry.name}/", entry))
            elif entry.is_file(follow_symlinks=False):
                named.append((f"{prefix}{entry.name}", entry))
    except (FileNotFoundError, NotADirectoryError):
        pass
    return iter(sorted(named, key=lambda item: item[0]))


def sync_folder(folder: Path) -> None:
    """A rename is on disk only when its folder is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folders(folder: Path, top: Path) -> None:
    """Make `folder` below `top`, each new step on disk before what goes into it."""
    missing: list[Path] = []
    step = folder
    while step != top and not step.is_dir():
        missing.append(step)
        step = step.parent
    for step in reversed(missing):
        step.mkdir(exist_ok=True)
        sync_folder(step.parent)


def drop_empty_folders(folder: Path, top: Path) -> None:
    """Remove `folder` and its parents below `top` while they are empty: a folder is no object."""
    step = folder
    while step != top:
        try:
            step.rmdir()
        except OSError:
            return
        step = step.parent


@contextmanager
def translated(what: str) -> Iterator[None]:
    """The system's errors in our words."""
    try:
        yield
    except OSError as error:
        raise translate(error, what) from error


def translate(error: OSError, what: str) -> CrossloadError:
    text = f"{what}: {error.strerror or error}"
    match error.errno:
        case errno.ENOENT:
            return NotFound(text)
        case errno.ENOTDIR | errno.EISDIR | errno.EEXIST:
            hint = "a disk cannot hold a file and a folder of one name: rename one of them at the source"
            return Invalid(text, hint=hint)
        case errno.ENAMETOOLONG | errno.EINVAL | errno.EILSEQ:
            return Invalid(text, hint="this disk cannot hold that name: rename the object, or leave it out")
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return AccessDenied(text, hint="check who owns the folder")
        case errno.ENOSPC | errno.EDQUOT:
            return Unavailable(text, hint="the disk is full: free some space and go on")
        case _:
            return Unavailable(text)
