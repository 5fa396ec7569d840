"""Verbs about the migration file itself: init, validate, schema, completion."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path
from typing import Any

import click

from crossload.cli.exits import BAD_FILE
from crossload.cli.options import file_option, json_option, print_json, write_text


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
@json_option
def init_command(
    path: Path, name: str, owner: str, source: str, targets: tuple[str, ...], lab_home: str | None, environment: str,
    app: str, questions: str, force: bool, as_json: bool,
) -> None:  # fmt: skip
    """Discover a source and write a migration file that validates, with comments that teach."""
    from crossload.api import draft_file, lab_places, schema_text

    folder = path.resolve().parent
    if not folder.is_dir():
        raise click.UsageError(f"there is no folder {folder}")
    if path.exists() and not force:
        raise click.UsageError(f"{path} exists; --force overwrites it, or name another with --file")
    if lab_home is not None:
        home, source_section, target_sections = lab_places(Path(lab_home) if lab_home else None)
        environment = environment or os.path.relpath(home / "env", folder)
    elif source:
        source_section, target_sections = _place(source), [_place(item) for item in targets]
    else:
        raise click.UsageError("say what to leave: --source id=..,provider=..,region=..  or --lab")
    text = draft_file(
        _name(name) or _folders_name(folder), owner, source_section, target_sections, environment=environment,
        app=app, questions=questions, folder=folder,
    )  # fmt: skip
    write_text(path, text)
    write_text(path.parent / "migration.schema.json", schema_text())
    click.echo(f"wrote {path}; next: `crossload validate`, `crossload inventory`, `crossload plan`", err=True)
    if as_json:
        print_json({"file": str(path)})
    else:
        click.echo(str(path))


def _name(given: str) -> str:
    if given and not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,62}", given):
        raise click.UsageError(f"--name `{given}`: use a-z, 0-9, dot, hyphen and underscore, at most 63 of them")
    return given


def _folders_name(folder: Path) -> str:
    """`Mein Projekt ü` is a good name for a folder; a migration's name also becomes part of paths and labels."""
    plain = unicodedata.normalize("NFKD", folder.name.lower()).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9._-]+", "-", plain).strip("-._")[:63] or "migration"


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
@click.option("--json", "as_json", is_flag=True, help="With -o: say in JSON where. The schema itself is JSON.")
def schema_command(output: Path | None, as_json: bool) -> None:
    """Print the JSON Schema of the migration file, for editors."""
    from crossload.api import schema_text

    if output is None:
        click.echo(schema_text(), nl=False)
    else:
        write_text(output, schema_text())
        if as_json:
            print_json({"file": str(output)})
        else:
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
