"""A file that others read is written whole or not at all: a draft beside it takes its name in one move."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_whole(path: Path, content: bytes | bytearray | memoryview | str, *, durable: bool = False) -> None:
    """Make or replace `path`, in a folder that is there; text is UTF-8. With `durable` the bytes are on disk when this
    returns (the folder's own entry excepted). Two writers at once leave one of the two contents. Raises OSError."""
    data = content.encode() if isinstance(content, str) else content
    draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        with draft.open("xb") as out:
            out.write(data)
            if durable:
                out.flush()
                os.fsync(out.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
