"""SQLite opened the one way we open it, with its errors in our words."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from crossload.ports.errors import CrossloadError

DAMAGED = "restore the file from a copy"


class LedgerBroken(CrossloadError):
    """The ledger cannot be written or read. Nothing recorded before is lost: every record is its own transaction."""

    code = "ledger"


class Closing:
    """What keeps a database open until `close`, or to the end of a `with`."""

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def connect(path: Path, *, synchronous: str) -> sqlite3.Connection:
    """Open (and create, readable by its owner only) a WAL database. `synchronous` is FULL or NORMAL. In a folder that
    may only be read, so may the database."""
    with broken(path):
        if path.exists() and not os.access(path.parent, os.W_OK):
            # Without a log beside it nobody is writing, and SQLite need not make the files it shares with writers.
            still = "" if path.with_name(f"{path.name}-wal").exists() else "&immutable=1"
            address = f"{path.absolute().as_uri()}?mode=ro{still}"
            return sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.touch(mode=0o600)
        database = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        database.execute("pragma journal_mode=wal")
        database.execute(f"pragma synchronous={synchronous}")
        database.execute("pragma foreign_keys=on")
        return database


@contextlib.contextmanager
def broken(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.OperationalError, OSError) as error:
        # A quota that is used up reaches us as an I/O error of SQLite's, not as a full disk.
        said = str(error).lower()
        full = "full" in said or "i/o error" in said or getattr(error, "errno", None) == errno.ENOSPC
        hint = "free disk space and run the same command again; it goes on where it stopped" if full else ""
        raise LedgerBroken(f"{path}: {error}", hint=hint) from error
    except sqlite3.DatabaseError as error:
        raise LedgerBroken(f"{path}: {error}", hint=DAMAGED) from error


@contextlib.contextmanager
def transaction(database: sqlite3.Connection, path: Path) -> Iterator[sqlite3.Connection]:
    """All or nothing, and never half open: a failed statement rolls back."""
    with broken(path):
        database.execute("begin immediate")
        try:
            yield database
            database.execute("commit")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                database.execute("rollback")
            raise
