"""Verbs that change things: apply, verify, cutover, rollback, commit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from crossload.cli.exits import DENIED, DIFFERENT, FAILED, OK, REFUSED
from crossload.cli.options import file_option, json_option, print_json, project, quiet_option
from crossload.cli.render import result_json, say_result, say_tried, table, visible

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
@click.option("--only", default="", metavar="ID", help="Only this asset or step id; with --provider, this case.")
@click.option("--provider", "name", default="", metavar="NAME", help="Try a provider, or a place of the file, instead.")
@click.option("--bucket", default="", help="With --provider: work in this scratch bucket only.")
@click.option("--region", default="", help="With --provider: the region to work in.")
@click.option("--set", "pairs", multiple=True, metavar="SETTING=VALUE", help="With --provider: a connection setting.")
@click.option("--dry-run", is_flag=True, help="With --provider: list the cases, do nothing.")
@click.option("--yes", is_flag=True, help="With --provider: do not ask.")
def verify_command(
    path: Path, as_json: bool, quiet: bool, only: str, name: str, bucket: str, region: str, pairs: tuple[str, ...],
    dry_run: bool, yes: bool,
) -> None:  # fmt: skip
    """Re-check everything that was done, now, from the stores. Exit code 4 names a difference; `apply` mends it.

    With --provider: try in your own account whether a provider keeps what Crossload relies on."""
    if not name:
        if bucket or region or pairs or dry_run or yes:
            raise click.UsageError("--bucket, --region, --set, --dry-run and --yes go with --provider")
        finish(project(path, quiet=quiet).verify(only=only, told=say_result), as_json, failing=DIFFERENT)
        return
    from crossload.api import verify_provider

    settings = dict(_setting(pair) for pair in pairs)
    trial = verify_provider(name, bucket=bucket, region=region, settings=settings, only=only, file=path)
    if dry_run:
        _say_trial(trial, trial.cases(), as_json)
        return
    click.echo(f"this tries {name} as {trial.place}. It\n  " + "\n  ".join(trial.says()), err=True)
    if not yes and not _said_yes("Go on?"):
        raise click.exceptions.Exit(REFUSED)
    try:
        results = trial.run((lambda _: None) if quiet else say_tried)
    finally:
        for item in trial.left:
            click.echo(f"warning: not removed: {visible(item)}", err=True)
    _say_trial(trial, results, as_json)
    if any(item.result == "failed" for item in results):
        raise click.exceptions.Exit(DIFFERENT)
    if trial.left:
        raise click.exceptions.Exit(FAILED)


def _setting(pair: str) -> tuple[str, str]:
    setting, equals, value = pair.partition("=")
    if not setting or not equals:
        raise click.UsageError(f"--set `{pair}` is not SETTING=VALUE")
    return setting, value


def _say_trial(trial: Any, results: list[Any], as_json: bool) -> None:
    """The table of cases, or JSON; without results it is the list of what would be tried."""
    if as_json:
        print_json({"place": trial.place, "results": [item.to_json() for item in results], "left": trial.left})
        return
    rows = [(item.port, item.case, item.result or "not run", item.detail or item.promise) for item in results]
    table(("port", "case", "result", "why, or what is promised"), rows)
    words = ("passed", "failed", "skipped") if any(item.result for item in results) else ()
    counts = [f"{sum(item.result == word for item in results)} {word}" for word in words]
    click.echo(", ".join(counts) or f"{len(results)} case(s)")


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
    if not yes and not _said_yes("After this, `crossload rollback` will refuse. Commit?"):
        click.echo("not committed: `crossload rollback` stays open", err=True)
        raise click.exceptions.Exit(REFUSED)
    item = opened.commit()
    if as_json:
        print_json({"evidence": item.id, "at": item.at, "summary": item.summary})
    else:
        click.echo(f"{item.summary} [{item.id}]")


def _said_yes(question: str) -> bool:
    """Raises click.Abort when nobody answers."""
    try:
        return click.confirm(question, err=True)
    except click.Abort:
        click.echo("\nnobody answered; where there is no terminal, say --yes", err=True)
        raise
