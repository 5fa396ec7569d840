"""Where a lake table's files are read and written: a folder, or a bucket behind the Store port."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from crossload.estate.whole import write_whole
from crossload.ports.errors import Invalid, NotFound
from crossload.ports.store import ObjectMeta, Store


class Files(Protocol):
    """`uri` is a full address as the table's metadata writes it; it must lie below `base`."""

    base: str

    def read(self, uri: str) -> bytes:
        """NotFound when it is not there."""
        ...

    def size(self, uri: str) -> int | None:
        """Bytes; None when it is not there."""
        ...

    def write(self, uri: str, data: bytes) -> None: ...
    def list(self) -> Iterator[tuple[str, int]]:
        """(path below `base`, bytes) of everything there."""
        ...


def below(base: str, uri: str) -> str:
    """The path of `uri` below `base`. Raises Invalid when it leads elsewhere: what a table's metadata says must not
    make us write outside of the table."""
    root = base.rstrip("/") + "/"
    path = uri[len(root) :]
    if not uri.startswith(root) or not path or ".." in path.split("/"):
        raise Invalid(f"{uri} is not below {base}")
    return path


class FolderFiles:
    """`base` is a path or a `file:` URI."""

    def __init__(self, base: str) -> None:
        self.base = base.rstrip("/")
        self._root = Path(unquote(urlsplit(base).path) if base.startswith("file:") else base)

    def _path(self, uri: str) -> Path:
        return self._root / below(self.base, uri)

    def read(self, uri: str) -> bytes:
        try:
            return self._path(uri).read_bytes()
        except FileNotFoundError as error:
            raise NotFound(f"no file {uri}") from error

    def size(self, uri: str) -> int | None:
        path = self._path(uri)
        return path.stat().st_size if path.is_file() else None

    def write(self, uri: str, data: bytes) -> None:
        path = self._path(uri)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)

    def list(self) -> Iterator[tuple[str, int]]:
        for path in sorted(self._root.rglob("*")):
            if path.is_file():
                yield path.relative_to(self._root).as_posix(), path.stat().st_size


class StoreFiles:
    """A table below `prefix` of a bucket. `base` is how metadata writes that prefix; the store's own way by default."""

    def __init__(self, store: Store, bucket: str, prefix: str, base: str = "") -> None:
        self._store, self._bucket, self._prefix = store, bucket, prefix.strip("/")
        self.base = (base or store.uri(bucket, self._prefix)).rstrip("/")

    def _key(self, uri: str) -> str:
        path = below(self.base, uri)
        return f"{self._prefix}/{path}" if self._prefix else path

    def read(self, uri: str) -> bytes:
        return bytes(self._store.read(self._bucket, self._key(uri)))

    def size(self, uri: str) -> int | None:
        try:
            return self._store.head(self._bucket, self._key(uri))[0].size_bytes
        except NotFound:
            return None

    def write(self, uri: str, data: bytes) -> None:
        self._store.write(self._bucket, self._key(uri), data, ObjectMeta())

    def list(self) -> Iterator[tuple[str, int]]:
        cut = f"{self._prefix}/" if self._prefix else ""
        for info in self._store.list(self._bucket, cut):
            yield info.key[len(cut) :], info.size_bytes
