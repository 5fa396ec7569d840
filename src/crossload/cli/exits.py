"""Exit codes and how an error is said."""

from __future__ import annotations

import errno
import sys
from typing import Any

import click

from crossload.cli.render import visible
from crossload.cli.streams import Steady

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
    """The documented code of one of our errors, of wrong usage, or of a file that cannot be read or written; None for
    a stranger's."""
    if isinstance(error, click.ClickException):
        return BAD_FILE
    if isinstance(error, OSError):
        # With a file's name it is about the user's folders; without one it may be a mistake of ours.
        return FAILED if error.filename is not None or error.errno == errno.ENOSPC else None
    from crossload.api import CrossloadError  # not for wrong usage: a misspelt verb is told at once

    return _BY_CODE.get(error.code, FAILED) if isinstance(error, CrossloadError) else None


def say_error(error: BaseException, as_json: bool = False) -> None:
    """One line, and a hint. Bad files say every problem on a line of its own. `as_json` says it on stdout as well."""
    diagnostics: list[Any] = getattr(error, "diagnostics", [])
    hint = getattr(error, "hint", "") or ""
    if isinstance(error, click.ClickException):
        error.show()
    else:
        for item in diagnostics:
            click.echo(str(item), err=True)
        said = visible(str(error))
        click.echo(said if isinstance(error, KeyboardInterrupt) else f"error: {said}", err=True)
        if hint:
            click.echo(f"hint: {visible(hint)}", err=True)
    if isinstance(error, OSError) and error.filename is None and isinstance(sys.stdout, Steady):
        sys.stdout.leave()  # it is stdout's own disk that is full
    if as_json:
        from crossload.cli.options import print_json

        told = {"code": _word(error), "message": _text(error), "hint": hint}
        print_json({"error": {**told, "problems": [item.to_json() for item in diagnostics]}})


def _word(error: BaseException) -> str:
    """The stable word for scripts."""
    if isinstance(error, click.ClickException):
        return "usage"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return str(getattr(error, "code", "system"))


def _text(error: BaseException) -> str:
    return error.format_message() if isinstance(error, click.ClickException) else str(error)
