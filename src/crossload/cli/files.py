"""Verbs about the migration file itself: init, validate, schema, completion."""

from __future__ import annotations

from pathlib import Path

import click

from crossload.cli.exits import BAD_FILE
from crossload.cli.options import file_option, json_option, print_json


@click.command("validate")
@file_option
@json_option
def validate_command(path: Path, as_json: bool) -> None:
    """Check a migration file: all problems at once, each with line, column, code and what to do."""
    from crossload.api import check_file

    name, diagnostics = check_file(path)
    if as_json:
        print_json({"file": str(path), "valid": bool(name), "problems": [d.to_json() for d in diagnostics]})
    else:
        for item in diagnostics:
            click.echo(str(item), err=True)
        if name:
            click.echo(f"{path}: valid ({name})")
    if not name:
        raise click.exceptions.Exit(BAD_FILE)


@click.command("schema")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), default=None, help="Write to a file.")
def schema_command(output: Path | None) -> None:
    """Print the JSON Schema of the migration file, for editors."""
    from crossload.api import schema_text

    if output is None:
        click.echo(schema_text(), nl=False)
    else:
        output.write_text(schema_text(), encoding="utf-8")
        click.echo(str(output))


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_command(shell: str) -> None:
    """Print a completion script: `eval "$(crossload completion bash)"`."""
    from click.shell_completion import get_completion_class

    from crossload.cli.main import crossload

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(kind(crossload, {}, "crossload", "_CROSSLOAD_COMPLETE").source())
