"""Options that every verb shares, and opening the project they name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

file_option = click.option(
    "-f", "--file", "path", type=click.Path(path_type=Path, dir_okay=False), default=Path("migration.yaml"),
    show_default=True, envvar="CROSSLOAD_FILE", help="The migration file.",
)  # fmt: skip
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
quiet_option = click.option("-q", "--quiet", is_flag=True, help="No progress, only results.")


def project(path: Path, *, quiet: bool = True) -> Any:
    """The API's Project, with live progress on stderr unless quiet. Warnings of the file are said once."""
    from crossload.api import open_project
    from crossload.cli.progress import live_progress

    if quiet:
        return open_project(path)
    progress = live_progress()
    click.get_current_context().call_on_close(progress.close)
    opened = open_project(path, progress)
    for item in opened.file_diagnostics:
        click.echo(str(item), err=True)
    return opened


def print_json(value: Any) -> None:
    """One document on stdout; in ASCII where the terminal, or a file name in it, is not UTF-8."""
    from crossload.cli.streams import takes

    text = json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True)
    click.echo(text if takes(text) else json.dumps(value, indent=2, sort_keys=True))


def write_text(path: Path, text: str) -> None:
    """Write a file that the user named. Raises click.FileError, wrong usage, when that cannot be."""
    try:
        path.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise click.FileError(str(path), error.strerror or str(error)) from error
