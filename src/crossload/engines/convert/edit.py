"""Edits are byte spans of the original: what is not edited cannot change, and that is asserted, not hoped."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Edit:
    """Replace bytes [start, end) by `text`; `start == end` inserts."""

    start: int
    end: int
    text: bytes


def apply(source: bytes, edits: Iterable[Edit]) -> bytes:
    """The source with all edits made. Raises ValueError when two overlap or one is out of range; equal edits count
    once (one constructor may be reached from many call sites)."""
    ordered = sorted(set(edits))
    pieces: list[bytes] = []
    at = 0
    for edit in ordered:
        if edit.start < at or edit.end < edit.start or edit.end > len(source):
            raise ValueError(f"edit of bytes {edit.start}-{edit.end} overlaps another or lies outside the file")
        pieces += [source[at : edit.start], edit.text]
        at = edit.end
    result = b"".join([*pieces, source[at:]])
    changed = changed_outside(source, result, ordered)
    if changed:
        raise AssertionError(f"{changed} byte(s) changed outside the edits")
    return result


def changed_outside(before: bytes, after: bytes, edits: Iterable[Edit]) -> int:
    """Bytes outside the edits that differ. Computed from both texts alone, so that it can catch `apply` itself."""
    changed = 0
    at_before = at_after = 0
    for edit in [*sorted(set(edits)), Edit(len(before), len(before), b"")]:
        kept = before[at_before : edit.start]
        found = after[at_after : at_after + len(kept)]
        changed += sum(a != b for a, b in zip(kept, found, strict=False)) + len(kept) - len(found)
        at_before = edit.end
        at_after += len(kept) + len(edit.text)
    return changed + abs(len(after) - at_after)


def unified_diff(before: Mapping[str, bytes | None], after: Mapping[str, bytes]) -> str:
    """One diff of all files, in the form that `git apply` takes; None stands for a file that was not there."""
    parts: list[str] = []
    for path in sorted(after):
        old, new = before.get(path), after[path]
        if old == new:
            continue
        header = f"diff --git a/{path} b/{path}\n"
        if old is None:
            header += "new file mode 100644\n"
        lines = difflib.unified_diff(
            _lines(old or b""), _lines(new), "/dev/null" if old is None else f"a/{path}", f"b/{path}"
        )
        parts.append(header + "".join(_marked(line) for line in lines))
    return "".join(parts)


def _lines(data: bytes) -> list[str]:
    """Split at \\n only: other line ends are content, and must come through a diff as they are."""
    pieces = data.decode("utf-8", "surrogateescape").split("\n")
    lines = [piece + "\n" for piece in pieces[:-1]]
    return [*lines, pieces[-1]] if pieces[-1] else lines


def _marked(line: str) -> str:
    return line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
