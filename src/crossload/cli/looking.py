"""Verbs that only look: status, trace, report, doctor."""

from __future__ import annotations

from pathlib import Path

import click

from crossload.cli.options import file_option, json_option, print_json, project
from crossload.cli.render import glyph, table


@click.command("status")
@file_option
@json_option
def status_command(path: Path, as_json: bool) -> None:
    """Show every planned step and where it stands."""
    opened = project(path)
    rows = opened.status()
    committed = opened.committed
    if as_json:
        steps = [{"step": r.step.id, "stage": r.step.stage, "asset": r.step.asset, "state": r.state,
                  "evidence": r.evidence or None} for r in rows]  # fmt: skip
        print_json({"migration": opened.migration.name, "committed": committed or None, "steps": steps})
        return
    shown = [(r.step.stage, r.step.action, r.step.asset, f"{_plain(r.state)} {r.state}", r.evidence) for r in rows]
    table(("stage", "action", "asset", "state", "evidence"), shown)
    click.echo(f"committed at {committed}" if committed else "not committed: `crossload rollback` is open")


def _plain(state: str) -> str:
    return click.unstyle(glyph(state))


@click.command("trace")
@file_option
@json_option
@click.argument("asset")
def trace_command(path: Path, as_json: bool, asset: str) -> None:
    """Tell the whole story of ASSET (for example dataset:docs) from the evidence."""
    opened = project(path)
    story = opened.trace(asset)
    problem = opened.check_ledger()
    if as_json:
        chain = problem or "whole"
        print_json({"asset": asset, "chain": chain, "evidence": [{"id": e.id, **e.to_json()} for e in story]})
        return
    rows = [(e.id, e.at[:19].replace("T", " "), e.stage, e.verb, e.status, e.summary) for e in story]
    table(("evidence", "at (UTC)", "stage", "verb", "status", "what happened"), rows, title=asset)
    click.echo(f"evidence chain: {problem or 'whole'}")


@click.command("report")
@file_option
@json_option
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), default=None,
              help="Where to write it.  [default: report.html in the workspace]")  # fmt: skip
def report_command(path: Path, as_json: bool, output: Path | None) -> None:
    """Write one self-contained HTML file: the ten steps, their evidence, pictures."""
    from crossload.web.report import write_report

    opened = project(path)
    written = write_report(opened, output or opened.workspace / "report.html")
    if as_json:
        print_json({"file": str(written)})
    else:
        click.echo(str(written))


@click.command("doctor")
@json_option
def doctor_command(as_json: bool) -> None:
    """Say what this machine has, what is missing, and what each provider offers."""
    from crossload.api import doctor, support_matrix

    rows = doctor()
    matrix = support_matrix()
    if as_json:
        print_json({"machine": rows, "providers": {name: sorted(ports) for name, ports in matrix.items()}})
        return
    table(("what", "state", "detail", "hint"), [(r["name"], r["state"], r["detail"], r["hint"]) for r in rows])
    ports = sorted({port for offered in matrix.values() for port in offered})
    shown = [(name, *("yes" if port in offered else "" for port in ports)) for name, offered in matrix.items()]
    table(("provider", *ports), shown, title="What each provider offers")
