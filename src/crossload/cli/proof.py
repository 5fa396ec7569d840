"""`crossload proof ...`: the signed manifest of a copy, checked and shown; one object proved by a small file."""

from __future__ import annotations

import json
from pathlib import Path

import click

from crossload.cli.exits import DIFFERENT
from crossload.cli.options import json_option, print_json, write_text
from crossload.cli.render import visible

_folder = click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))


@click.group("proof")
def proof_command() -> None:
    """The signed manifest of a copy. FOLDER is the folder with manifest.jsonl.

    Nothing here needs a migration file: whoever has the files can check them. docs/proof.md shows the same without
    Crossload."""


@proof_command.command("show")
@json_option
@_folder
def show_command(as_json: bool, folder: Path) -> None:
    """Say what the checkpoint in FOLDER signs, and with which key. The manifest is not read."""
    from crossload.api import open_proof

    told = open_proof(folder).show()
    if as_json:
        print_json(told)
    else:
        _lines(told)


@proof_command.command("check")
@json_option
@click.option("--key", default="", metavar="PUB",
              help="The signer's public key as he told it: a PEM file, or sha256:FINGERPRINT.")  # fmt: skip
@_folder
def check_command(as_json: bool, key: str, folder: Path) -> None:
    """Check that root, signature and SHA256SUMS in FOLDER agree with its manifest. Exit code 4 on a difference."""
    from crossload.api import open_proof

    found = open_proof(folder).check(key)
    if as_json:
        print_json(found.to_json())
    else:
        _lines({
            "origin": found.origin, "objects": found.objects, "size_bytes": found.size_bytes, "root": found.root,
            "fingerprint": found.fingerprint, "result": "good" if found.good else "different",
        })  # fmt: skip
    _say(found.problems, found.more)
    if found.good and not found.pinned:
        click.echo("hint: ask the signer for the fingerprint, or check with --key: anybody can sign", err=True)
    if not found.good:
        raise click.exceptions.Exit(DIFFERENT)


@proof_command.command("include")
@json_option
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), default=None,
              help="Where to write it.  [default: stdout]")  # fmt: skip
@_folder
@click.argument("key")
def include_command(as_json: bool, output: Path | None, folder: Path, key: str) -> None:
    """Prove the object KEY of FOLDER to somebody who has neither the manifest nor Crossload: one small JSON."""
    from crossload.api import open_proof

    proof = open_proof(folder).include(key).to_json()
    if output is None:
        print_json(proof)
        return
    write_text(output, json.dumps(proof, indent=2, ensure_ascii=False) + "\n")
    if as_json:
        print_json({"file": str(output)})
    else:
        click.echo(str(output))


@proof_command.command("check-inclusion")
@json_option
@click.option("--key", required=True, metavar="PUB", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="The signer's public key, a PEM file.")  # fmt: skip
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def check_inclusion_command(as_json: bool, key: Path, file: Path) -> None:
    """Check FILE, which `include` wrote, with nothing but the signer's key. Exit code 4 when it proves nothing."""
    from crossload.api import check_inclusion

    proof, problems = check_inclusion(file.read_bytes(), key.read_bytes())
    if problems:
        if as_json:
            print_json({"good": False, "problems": problems})
        else:
            _lines({"result": "different"})
        _say(problems)
        raise click.exceptions.Exit(DIFFERENT)
    told = {"origin": proof.checkpoint.partition("\n")[0], **proof.entry}
    if as_json:
        print_json({"good": True, "problems": [], **told})
    else:
        _lines({**told, "result": "good"})


def _lines(told: dict[str, object]) -> None:
    for name, value in told.items():
        click.echo(f"{name:<13} {visible(str(value)) or 'unknown'}")


def _say(problems: list[str], more: int = 0) -> None:
    for text in problems:
        click.echo(f"error: {visible(text)}", err=True)
    if more:
        click.echo(f"error: and {more} more", err=True)
