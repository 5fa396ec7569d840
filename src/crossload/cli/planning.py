"""Verbs before anything moves: inventory and plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from crossload.cli.exits import BAD_FILE, FAILED
from crossload.cli.options import file_option, json_option, print_json, project, quiet_option, write_text
from crossload.cli.render import say_result, table, visible
from crossload.cli.running import finish


@click.command("inventory")
@file_option
@json_option
@quiet_option
@click.option("--csv", "csv_path", type=click.Path(path_type=Path, dir_okay=False), help="Also export as CSV.")
def inventory_command(path: Path, as_json: bool, quiet: bool, csv_path: Path | None) -> None:
    """Discover what the sources hold and lock it. The same world gives the same bytes."""
    opened = project(path, quiet=quiet)
    report = opened.take_inventory(told=say_result)
    if report.failed:
        finish(report, as_json)
    inventory = opened.inventory()
    if csv_path is not None:
        write_text(csv_path, opened.inventory_csv())
    if as_json:
        print_json({
            "assets": [asset.to_json() for asset in inventory.assets],
            "edges": [edge.to_json() for edge in inventory.edges],
            "kinds": [
                {"place": r.place, "kind": r.kind, "status": r.status, "count": r.count, "detail": r.detail}
                for r in inventory.reports
            ],
        })  # fmt: skip
    else:
        _show_inventory(inventory)
    silent = [r for r in inventory.reports if r.status == "failed"]
    for item in silent:
        text = f"error: {item.place} {item.kind} gave no answer, so what it holds is missing: {item.detail}"
        click.echo(visible(text), err=True)
    if silent:
        raise click.exceptions.Exit(FAILED)


def _show_inventory(inventory: Any) -> None:
    rows = [(a.id, a.place, _size(a), _pairs(a.overlay)) for a in inventory.assets]
    table(("asset", "place", "size", "overlay"), rows)
    said = [(r.kind, r.status, "unknown" if r.count is None else r.count, r.detail[:90]) for r in inventory.reports]
    table(("kind", "answer", "count", "in the server's words"), said)


def _pairs(values: Any) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(values.items()))


def _size(asset: Any) -> str:
    facts = asset.facts
    parts: list[str] = []
    if facts.get("object_count") is not None:
        parts.append(f"{facts['object_count']:,} objects")
    if facts.get("rows") is not None:
        parts.append(f"{facts['rows']:,} rows")
    if facts.get("size_bytes") is not None:
        parts.append(f"{facts['size_bytes'] / 2**20:,.1f} MiB")
    return ", ".join(parts)


@click.command("plan")
@file_option
@json_option
@click.option("--dry-run", is_flag=True, help="Show the plan, do not save it.")
def plan_command(path: Path, as_json: bool, dry_run: bool) -> None:
    """Say what will change, per wave, with cost, time and risk; save it for `apply`.

    The saved plan is refused when the migration file or the inventory has changed since."""
    opened = project(path)
    made = opened.make_plan(save=not dry_run)
    errors = [item for item in made.diagnostics if str(item.severity) == "error"]
    if as_json:
        print_json({"digest": made.digest, **made.to_json()})
    else:
        _show(made)
    for item in made.diagnostics:
        click.echo(str(item), err=True)
    if errors:
        raise click.exceptions.Exit(BAD_FILE)


def _show(plan: Any) -> None:
    for wave in sorted({step.wave for step in plan.steps}):
        rows = [("+", s.stage, s.asset, s.summary, s.risk, s.undo) for s in plan.steps if s.wave == wave]
        table(("", "stage", "asset", "what will happen", "risk", "how it is undone"), rows, title=f"Wave {wave}")
    for name, value in plan.estimates.items():
        click.echo(f"{name}: {_estimate(value)}")
    click.echo(f"plan {plan.digest[:16]}: {len(plan.steps)} steps")


def _estimate(value: Any) -> str:
    if isinstance(value, dict) and "value" in value:
        text = f"{value['value']}" if value["value"] == "unknown" else f"{value['value']:,.2f} {value['unit']}"
        if "low" in value and "high" in value:
            text += f" ({value['low']:,.2f}-{value['high']:,.2f})"
        return f"{text} [{value.get('source', '')}, {value.get('as_of', 'unknown')}]"
    return str(value)
