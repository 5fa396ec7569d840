"""Exit codes and how an error is said."""

from __future__ import annotations

import click

OK, FAILED, BAD_FILE, REFUSED, DIFFERENT, LOCKED, DENIED, INTERRUPTED = 0, 1, 2, 3, 4, 5, 6, 130

_BY_CODE = {
    "bad-file": BAD_FILE,
    "invalid": BAD_FILE,
    "refused": REFUSED,
    "stale": REFUSED,
    "digest-mismatch": DIFFERENT,
    "locked": LOCKED,
    "not-signed-in": DENIED,
    "access-denied": DENIED,
}


def exit_code(error: BaseException) -> int | None:
    """The documented code of one of our errors; None for a stranger's."""
    from crossload.api import CrossloadError

    return _BY_CODE.get(error.code, FAILED) if isinstance(error, CrossloadError) else None


def say_error(error: BaseException) -> None:
    """One line, and a hint. Bad files say every problem on a line of its own."""
    diagnostics = getattr(error, "diagnostics", None)
    if diagnostics:
        for item in diagnostics:
            click.echo(str(item), err=True)
    click.echo(f"error: {error}", err=True)
    hint = getattr(error, "hint", "")
    if hint:
        click.echo(f"hint: {hint}", err=True)
