"""Verbs about the migration file itself: init, validate, schema, completion."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from crossload.cli.exits import BAD_FILE
from crossload.cli.options import file_option, json_option, print_json


def _place(text: str) -> dict[str, Any]:
    """`id=cloud-a,provider=aws,region=eu-central-1,country=DE,profile=prod` as a place section."""
    section: dict[str, Any] = {"connection": {}}
    for item in text.split(","):
        name, equals, value = item.partition("=")
        if not equals:
            raise click.BadParameter(f"`{item}` is not name=value")
        if name in ("id", "provider", "region", "country"):
            section[name] = value
        else:
            section["connection"][name] = value
    return section


@click.command("init")
@file_option
@click.option("--name", default="", help="Name of the migration.  [default: the folder's name]")
@click.option("--owner", default="unknown", show_default=True, help="Team or person who answers for it.")
@click.option("--source", default="", metavar="PLACE", help="id=..,provider=..,region=..,country=..,SETTING=..")
@click.option("--target", "targets", multiple=True, metavar="PLACE", help="A place that may be chosen; repeat it.")
@click.option("--lab", "lab_home", default=None, is_flag=False, flag_value="", metavar="[HOME]",
              help="Use the lab's clouds as source and targets.")  # fmt: skip
@click.option("--environment", default="", help="KEY=VALUE file for env: references, relative to the migration file.")
@click.option("--app", default="", help="Folder of the app's code, relative to the migration file.")
@click.option("--questions", default="", help="JSONL of prompts for the mirror, relative to the migration file.")
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def init_command(
    path: Path, name: str, owner: str, source: str, targets: tuple[str, ...], lab_home: str | None, environment: str,
    app: str, questions: str, force: bool,
) -> None:  # fmt: skip
    """Discover a source and write a migration file that validates, with comments that teach."""
    from crossload.api import draft_file, lab_places, schema_text

    if path.exists() and not force:
        raise click.UsageError(f"{path} exists; --force overwrites it, or name another with --file")
    if lab_home is not None:
        home, source_section, target_sections = lab_places(Path(lab_home) if lab_home else None)
        environment = environment or os.path.relpath(home / "env", path.resolve().parent)
    elif source:
        source_section, target_sections = _place(source), [_place(item) for item in targets]
    else:
        raise click.UsageError("say what to leave: --source id=..,provider=..,region=..  or --lab")
    text = draft_file(
        name or path.resolve().parent.name.lower(), owner, source_section, target_sections, environment=environment,
        app=app, questions=questions, folder=path.resolve().parent,
    )  # fmt: skip
    path.write_text(text, encoding="utf-8")
    (path.parent / "migration.schema.json").write_text(schema_text(), encoding="utf-8")
    click.echo(f"wrote {path}; next: `crossload validate`, `crossload inventory`, `crossload plan`", err=True)
    click.echo(str(path))


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
