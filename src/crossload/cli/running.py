"""Verbs that change things: apply, verify, cutover, rollback, commit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from crossload.cli.exits import DENIED, DIFFERENT, FAILED, OK, REFUSED
from crossload.cli.options import file_option, json_option, print_json, project, quiet_option
from crossload.cli.render import result_json, say_result

dry_option = click.option("--dry-run", is_flag=True, help="Say what would be done, do nothing.")


def finish(report: Any, as_json: bool, *, failing: int = FAILED) -> None:
    """Print the data, and leave with the code that says what happened."""
    if as_json:
        print_json({"results": [result_json(item) for item in report.results]})
    else:
        counts: dict[str, int] = {}
        for item in report.results:
            counts[item.status] = counts.get(item.status, 0) + 1
        click.echo(", ".join(f"{count} {status}" for status, count in counts.items()) or "nothing to do")
    code = _leaving(report, failing)
    if code:
        raise click.exceptions.Exit(code)


def _leaving(report: Any, failing: int) -> int:
    if not report.failed:
        waiting = [item for item in report.results if item.status == "waiting"]
        if waiting:  # asked for, and not done: no success
            first = waiting[0].summary.removeprefix("waits for ")
            click.echo(f"error: {len(waiting)} step(s) wait for {first}, which is not done", err=True)
            click.echo("hint: `crossload apply` performs everything up to the cutover", err=True)
        if any(item.status == "open" for item in report.results):
            return FAILED
        return REFUSED if waiting else OK
    codes = {getattr(item.error, "code", "") for item in report.failed}
    if codes & {"not-signed-in", "access-denied"}:
        return DENIED
    if all(item.status == "refused" for item in report.failed):
        return REFUSED if failing == FAILED else failing
    return FAILED if all(item.blind for item in report.failed) else failing


@click.command("apply")
@file_option
@json_option
@quiet_option
@dry_option
@click.option("--stage", default="", help="Only this one of the ten steps.")
@click.option("--only", default="", metavar="ID", help="Only this asset (dataset:docs) or step id.")
@click.option("--again", is_flag=True, help="Also repeat what is good: a delta of the data, a new measurement.")
@click.option("--write", is_flag=True, help="Afterwards put the converted code into the working tree too.")
def apply_command(
    path: Path, as_json: bool, quiet: bool, dry_run: bool, stage: str, only: str, again: bool, write: bool
) -> None:
    """Perform the plan up to, not including, the cutover.

    Safe to stop and to run again: what arrived is not sent again, what is half done is finished."""
    opened = project(path, quiet=quiet)
    report = opened.apply(stage=stage, only=only, dry_run=dry_run, again=again, told=say_result)
    finish(report, as_json)
    if write and not dry_run:
        for item in opened.write_code():
            click.echo(f"{item.asset}: {item.summary}  [{item.id}]", err=True)
            if item.status == "refused":
                raise click.exceptions.Exit(REFUSED)


@click.command("verify")
@file_option
@json_option
@quiet_option
@click.option("--only", default="", metavar="ID", help="Only this asset or step id.")
def verify_command(path: Path, as_json: bool, quiet: bool, only: str) -> None:
    """Re-check everything that was done, now, from the stores. Exit code 4 names a difference; `apply` mends it."""
    finish(project(path, quiet=quiet).verify(only=only, told=say_result), as_json, failing=DIFFERENT)


@click.command("cutover")
@file_option
@json_option
@quiet_option
@dry_option
def cutover_command(path: Path, as_json: bool, quiet: bool, dry_run: bool) -> None:
    """Mirror, canary by weight, rollback drill, ramp to 100 %, freeze, last delta, switch."""
    finish(project(path, quiet=quiet).cutover(dry_run=dry_run, told=say_result), as_json)


@click.command("rollback")
@file_option
@json_option
@quiet_option
@dry_option
@click.option("--to", "to_stage", default="cutover", show_default=True, help="Undo every step from this stage on.")
def rollback_command(path: Path, as_json: bool, quiet: bool, dry_run: bool, to_stage: str) -> None:
    """Bring traffic, and the objects written at the target since the switch, back to the source."""
    finish(project(path, quiet=quiet).rollback(to_stage=to_stage, dry_run=dry_run, told=say_result), as_json)


@click.command("commit")
@file_option
@json_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def commit_command(path: Path, as_json: bool, yes: bool) -> None:
    """End the right to roll back. Asks first."""
    opened = project(path)
    if not yes and not _said_yes():
        click.echo("not committed: `crossload rollback` stays open", err=True)
        raise click.exceptions.Exit(REFUSED)
    item = opened.commit()
    if as_json:
        print_json({"evidence": item.id, "at": item.at, "summary": item.summary})
    else:
        click.echo(f"{item.summary} [{item.id}]")


def _said_yes() -> bool:
    """Raises click.Abort when nobody answers."""
    try:
        return click.confirm("After this, `crossload rollback` will refuse. Commit?", err=True)
    except click.Abort:
        click.echo("\nnobody answered; where there is no terminal, say --yes", err=True)
        raise
