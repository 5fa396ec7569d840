"""The Store port over folders of this machine: a bucket is a folder, an object is a plain file that anybody can read.

Setting: `root`, an existing folder. Bytes get their name in one step (temporary file, fsync, rename, fsync of the
folder), so a reader sees the old object or the new one. Writers of one key take turns by a lock file, between
processes too."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from crossload.ports.errors import Invalid, NotFound, PreconditionFailed, Unsupported
from crossload.ports.provider import Settings
from crossload.ports.store import (
    STORAGE_CLASSES,
    BucketInfo,
    Bytes,
    Digests,
    ObjectInfo,
    ObjectMeta,
    Part,
    PlainReads,
    StoreFeatures,
)
from crossload.providers.local import sidecar
from crossload.providers.local.paths import (
    SIDE,
    bucket_folder,
    drop_empty_folders,
    make_folders,
    object_file,
    stays_inside,
    sync_folder,
    translated,
    walk,
)
from crossload.providers.local.uploads import Upload

_LOCKS = 64
_TRIES = 20


def open_store(settings: Settings) -> LocalStore:
    return LocalStore(settings)


class LocalStore(PlainReads):
    """The etag is the SHA-256 of the bytes, believed while size and time of change are those written down.

    It is no digest of the store's own: a bit that flips on disk changes neither, so copies here are proved by reading
    them again (`digests_returned` is empty)."""

    features = StoreFeatures(
        tags=True,
        sorted_list=True,
        part_size_bytes_min=1,
        user_metadata_bytes_max=64 * 1024,
        # A folder has no classes: the words are written down beside the file, so that they come home again.
        storage_classes=STORAGE_CLASSES,
        expires=True,
        hierarchical=True,
        dot_segments=False,
        key_bytes_max=3072,  # a path has 4096 with its root
        segment_bytes_max=255,
        letters_refused="\0",
    )

    def __init__(self, settings: Settings) -> None:
        self.place = settings.place.id
        self._root = Path(settings.require("root")).expanduser()
        if _folds_case(self._root):
            self.features = replace(type(self).features, case_sensitive=False)

    def uri(self, bucket: str, key: str = "") -> str:
        return str(self._root / bucket / key)

    def buckets(self) -> list[BucketInfo]:
        with translated(f"root {self._root}"):
            found = sorted(entry.name for entry in os.scandir(self._root) if entry.is_dir(follow_symlinks=False))
        return [BucketInfo(name, encryption="none") for name in found if not name.startswith(".")]

    def ensure_bucket(self, bucket: str) -> bool:
        folder = bucket_folder(self._root, bucket)
        with translated(f"bucket {bucket}"):
            if not self._root.is_dir():
                # Made by us it would hide that a disk is not mounted, and fill the one below.
                raise NotFound(f"root {self._root} does not exist", hint="make the folder, or mount the disk, first")
            try:
                folder.mkdir()
            except FileExistsError:
                return False
            sync_folder(self._root)
            return True

    def remove_bucket(self, bucket: str) -> bool:
        folder = bucket_folder(self._root, bucket)
        with translated(f"bucket {bucket}"):
            if not folder.is_dir():
                return False
            if next(walk(folder), None) is not None:
                raise PreconditionFailed(f"bucket {bucket} is not empty")
            shutil.rmtree(folder / SIDE, ignore_errors=True)
            for path, folders, _ in os.walk(folder, topdown=False):
                for name in folders:
                    Path(path, name).rmdir()
            folder.rmdir()
            sync_folder(self._root)
        return True

    def list(self, bucket: str, prefix: str = "", start_after: str = "") -> Iterator[ObjectInfo]:
        folder = self._folder(bucket)
        with translated(f"list {bucket}"):
            for key, stat in walk(folder):
                if key.startswith(prefix) and key > start_after:
                    try:
                        state = sidecar.current(folder, key, folder / key, stat)
                    except FileNotFoundError:
                        continue  # deleted meanwhile
                    yield ObjectInfo(key, stat.st_size, state.sha256, modified_at=stat.st_mtime)

    def versions(self, bucket: str) -> Iterator[ObjectInfo]:
        raise Unsupported("a folder keeps no versions")

    def head(self, bucket: str, key: str) -> tuple[ObjectInfo, ObjectMeta]:
        folder, file = self._file(bucket, key)
        with translated(f"{bucket}/{key}"):
            stat = _stat(file, bucket, key)
            state = sidecar.current(folder, key, file, stat)
        return ObjectInfo(key, stat.st_size, state.sha256, modified_at=stat.st_mtime), state.meta

    def read(self, bucket: str, key: str, start: int = 0, length: int | None = None, if_match: str = "") -> bytes:
        folder, file = self._file(bucket, key)
        with translated(f"{bucket}/{key}"):
            _stat(file, bucket, key)
            with file.open("rb", buffering=0) as source:
                # From here on we hold this very file: one that is replaced under its name stays whole in our hands.
                stat = os.fstat(source.fileno())
                _expect_unchanged(folder, key, file, stat, if_match)
                end = stat.st_size if length is None else min(stat.st_size, start + length)
                return _read_span(source.fileno(), start, max(0, end - start))

    def write(
        self, bucket: str, key: str, data: Bytes, meta: ObjectMeta, *, if_absent: bool = False, if_match: str = "",
        digests: Digests = (),
    ) -> ObjectInfo:  # fmt: skip
        folder, _ = self._file(bucket, key)
        with translated(f"{bucket}/{key}"):
            draft = self._draft(folder)
            try:
                with draft.open("xb", buffering=0) as out:
                    view = memoryview(data)
                    while view:
                        view = view[out.write(view) :]
                    _settle(out.fileno(), draft)
                digest = hashlib.sha256(data).hexdigest()
                return self._publish(folder, key, draft, digest, meta, if_absent=if_absent, if_match=if_match)
            finally:
                draft.unlink(missing_ok=True)

    def open_upload(self, bucket: str, key: str, meta: ObjectMeta, size_bytes: int) -> str:
        folder, _ = self._file(bucket, key)
        with translated(f"{bucket}/{key}"):
            return Upload.begin(folder, key, meta).id

    def write_part(
        self, bucket: str, key: str, upload: str, part: Part, data: Bytes, *, last: bool, digests: Digests = ()
    ) -> Part:
        with translated(f"{bucket}/{key}"):
            return Upload.find(self._folder(bucket), key, upload).add(part, data)

    def parts(self, bucket: str, key: str, upload: str) -> list[Part]:
        with translated(f"{bucket}/{key}"):
            return Upload.find(self._folder(bucket), key, upload).parts()

    def complete(
        self, bucket: str, key: str, upload: str, parts: list[Part], *, if_absent: bool = False, if_match: str = ""
    ) -> ObjectInfo:
        folder, _ = self._file(bucket, key)
        with translated(f"{bucket}/{key}"):
            held = Upload.find(folder, key, upload)
            draft = self._draft(folder)
            try:
                with draft.open("xb") as out:
                    digest = held.join(parts, out)
                    out.flush()
                    _settle(out.fileno(), draft)
                info = self._publish(folder, key, draft, digest, held.meta(), if_absent=if_absent, if_match=if_match)
            finally:
                draft.unlink(missing_ok=True)
            held.forget()
            return info

    def abort(self, bucket: str, key: str, upload: str) -> None:
        try:
            with translated(f"{bucket}/{key}"):
                Upload.find(self._folder(bucket), key, upload).forget()
        except NotFound:
            return

    def delete(self, bucket: str, key: str, if_match: str = "") -> None:
        folder, file = self._file(bucket, key)
        with translated(f"{bucket}/{key}"), _turn(folder, key):
            try:
                stat = _stat(file, bucket, key)
            except NotFound:
                return
            _expect_unchanged(folder, key, file, stat, if_match)
            file.unlink()
            with contextlib.suppress(FileNotFoundError):  # another delete took the folder away as empty
                sync_folder(file.parent)
            sidecar.forget(folder, key)
            drop_empty_folders(file.parent, folder)

    def freeze(self, bucket: str) -> str:
        raise Unsupported("a folder cannot be frozen for everybody but us", hint="stop the programs that write there")

    def thaw(self, bucket: str, token: str) -> None:
        return

    # -- inside -------------------------------------------------------------------------------------------------

    def _folder(self, bucket: str) -> Path:
        folder = bucket_folder(self._root, bucket)
        if not folder.is_dir():
            raise NotFound(f"no bucket {bucket} under {self._root}")
        return folder

    def _file(self, bucket: str, key: str) -> tuple[Path, Path]:
        folder = self._folder(bucket)
        file = object_file(folder, key)
        stays_inside(folder, file)
        return folder, file

    def _draft(self, folder: Path) -> Path:
        """A new name on the same disk, where nobody looks for objects."""
        make_folders(folder / SIDE / "drafts", folder)
        return folder / SIDE / "drafts" / secrets.token_hex(12)

    def _publish(
        self, folder: Path, key: str, draft: Path, digest: str, meta: ObjectMeta, *, if_absent: bool, if_match: str
    ) -> ObjectInfo:
        """Give the finished bytes their name. Raises PreconditionFailed and leaves what was there."""
        file = object_file(folder, key)
        stat = draft.stat()
        state = sidecar.State(stat.st_size, stat.st_mtime_ns, digest, replace(meta, user=_lower(meta)))
        with _turn(folder, key):
            there = file.stat() if file.is_file() else None
            if if_absent and there is not None:
                raise PreconditionFailed(f"{folder.name}/{key} exists")
            if there is not None:
                _expect_unchanged(folder, key, file, there, if_match)
            elif if_match:
                raise PreconditionFailed(f"{folder.name}/{key} does not exist")
            if file.is_dir():
                hint = "a disk cannot hold a file and a folder of one name: rename one of them at the source"
                raise Invalid(f"{folder.name}/{key} is a folder", hint=hint)
            sidecar.announce(folder, key, file, state)
            _rename(draft, file, folder, if_absent=if_absent)
        return ObjectInfo(key, stat.st_size, digest, modified_at=stat.st_mtime)


def _folds_case(root: Path) -> bool:
    """Whether `README` and `readme` are one file on this disk; of a root whose name has no letters nobody knows."""
    other = root.with_name(root.name.swapcase())
    try:
        return other.name != root.name and other.samefile(root)
    except OSError:
        return False


def _rename(draft: Path, file: Path, folder: Path, *, if_absent: bool) -> None:
    for _ in range(_TRIES):
        try:
            make_folders(file.parent, folder)
            if if_absent:
                try:
                    os.link(draft, file)  # fails when the name is taken, also by a program that knows no locks
                except FileExistsError as error:
                    raise PreconditionFailed(f"{file.name} exists") from error
            else:
                draft.replace(file)
        except FileNotFoundError:
            continue  # a delete took the folder away as empty, just now
        sync_folder(file.parent)
        return
    raise NotFound(f"the folder of {file.name} vanishes again and again")


@contextmanager
def _turn(folder: Path, key: str) -> Iterator[None]:
    """One writer of a key at a time, over all processes on this machine; ends with the process that holds it."""
    shard = int.from_bytes(hashlib.sha256(key.encode()).digest()[:2], "big") % _LOCKS
    make_folders(folder / SIDE / "locks", folder)
    descriptor = os.open(folder / SIDE / "locks" / f"{shard:02d}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _settle(descriptor: int, draft: Path) -> None:
    # The kernel's own clock ticks every few milliseconds: two writes could carry one time, and be taken for one.
    now = time.time_ns()
    os.utime(draft, ns=(now, now))
    os.fsync(descriptor)


def _stat(file: Path, bucket: str, key: str) -> os.stat_result:
    try:
        if file.is_file():
            return file.stat()
    except NotADirectoryError:
        pass
    raise NotFound(f"no object {bucket}/{key}")


def _expect_unchanged(folder: Path, key: str, file: Path, stat: os.stat_result, if_match: str) -> None:
    if if_match and sidecar.current(folder, key, file, stat).sha256 != if_match:
        raise PreconditionFailed(f"{folder.name}/{key} changed: it is no longer {if_match[:12]}...")


def _read_span(descriptor: int, start: int, length: int) -> bytes:
    pieces: list[bytes] = []
    while length > 0:
        piece = os.pread(descriptor, length, start)
        if not piece:
            break
        pieces.append(piece)
        start += len(piece)
        length -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _lower(meta: ObjectMeta) -> dict[str, str]:
    return {name.lower(): value for name, value in meta.user.items()}
