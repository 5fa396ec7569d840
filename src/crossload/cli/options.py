"""Options that every verb shares, and opening the project they name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

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

    opened = open_project(path, None if quiet else live_progress())
    if not quiet:
        for item in opened.file_diagnostics:
            click.echo(str(item), err=True)
    return opened


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True))
