"""Step 8, landing: the target's foundations as code: buckets, keys, roles, secrets, access logs, collector."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crossload.engines.infra.check import CheckReport
from crossload.engines.infra.derive import derive
from crossload.engines.infra.module import (
    check_module,
    compose,
    digests,
    read_files,
    remove,
    schemas_of,
    write,
)
from crossload.engines.infra.terraform import judge
from crossload.estate.diagnostic import Diagnostic, Severity
from crossload.estate.evidence import Outcome
from crossload.estate.migration import Migration
from crossload.ports.errors import Unsupported
from crossload.ports.infra import Foundations
from crossload.ports.world import World
from crossload.steps.step import Facts, Planned, Step

NAME = "landing"
_SHOWN_MAX = 20  # problems kept in evidence; the rest is counted


def plan(migration: Migration, facts: Facts) -> Planned:
    """One step for the whole estate; one folder per target place that something was chosen for."""
    places = sorted(set(facts.choices.values()) & set(migration.places))
    estate = f"estate:{migration.name}"
    if not places:
        return Planned(
            (), (Diagnostic.note("XL800", "no target is chosen, so no foundations are written", subject=estate),)
        )
    problems: list[Diagnostic] = []
    counts: list[str] = []
    for place in places:
        foundations, found = derive(migration.name, migration.places[place], facts.inventory, facts.choices)
        problems += found
        counts.append(f"{place}: {len(foundations.buckets)} bucket(s), {len(foundations.roles)} role(s)")
    choices = {asset: place for asset, place in sorted(facts.choices.items()) if place in places}
    step = Step(
        f"{NAME}/write/{estate}", NAME, "write", estate, f"write Terraform for {'; '.join(counts)}",
        {"places": places, "choices": choices}, undo="remove the files that nobody changed since", risk="low",
    )  # fmt: skip
    return Planned((step,), tuple(dict.fromkeys(problems)))


def perform(step: Step, world: World) -> Outcome:
    """Write and check the files of every place. Nothing is applied: a person runs Terraform with their own rights."""
    recorded: Mapping[str, Any] = (world.outcome(step.id) or {}).get("places", {})
    done: dict[str, Any] = {}
    changed = 0
    for place in step.params["places"]:
        try:
            infra = world.infra(place)
        except Unsupported as error:
            done[place] = {"status": "unsupported", "reason": str(error)}
            continue
        foundations = _foundations(step, world, place)
        files = compose(foundations, infra)
        known = recorded.get(place, {}).get("files", {})
        result = write(_folder(world, place), files, known)
        changed += len(result.changed)
        report = check_module(files, infra)
        judged = judge(files, [schema.provider for schema in schemas_of(infra)])
        done[place] = {
            "status": "kept" if result.kept else "written" if report.good and judged.good else "wrong",
            "folder": f"{NAME}/{place}", "files": {**known, **_ours(digests(files), result.kept)},
            "kept": list(result.kept), "counts": _counts(foundations), "resources": report.resource_count,
            "check": report.statement, "against": list(report.against), "problems": _problems(report),
            "terraform": judged.statement, "terraform_problems": list(judged.problems[:_SHOWN_MAX]),
        }  # fmt: skip
    return _outcome(done, changed)


def verify(step: Step, world: World) -> Outcome:
    """Read the files back: the same digests, and still right by the schema."""
    recorded: Mapping[str, Any] = (world.outcome(step.id) or {}).get("places", {})
    wrong: list[str] = []
    count = 0
    for place, data in sorted(recorded.items()):
        known: Mapping[str, str] = data.get("files", {})
        files = read_files(_folder(world, place), known)
        have = digests(files)
        for name, digest in known.items():
            if name not in have:
                wrong.append(f"{place}/{name} is gone")
            elif have[name] != digest:
                wrong.append(f"{place}/{name} was changed since it was written")
        if known:
            wrong += [
                f"{place}/{item['subject']}: {item['summary']}"
                for item in _problems(check_module(files, world.infra(place)))
            ]
        count += len(known)
    if wrong:
        return Outcome.failed(f"{len(wrong)} problem(s) in the landing files: {wrong[0]}", problems=wrong)
    if not recorded:
        return Outcome.failed("nothing was written yet")
    return Outcome.unchanged(f"{count} landing file(s) as written, checked again", files=count)


def undo(step: Step, world: World) -> Outcome:
    """Remove what we wrote; a file somebody edited stays."""
    recorded: Mapping[str, Any] = (world.outcome(step.id) or {}).get("places", {})
    gone: list[str] = []
    kept: list[str] = []
    for place, data in recorded.items():
        result = remove(_folder(world, place), data.get("files", {}))
        gone += [f"{place}/{name}" for name in result.changed]
        kept += [f"{place}/{name}" for name in result.kept]
    summary = f"removed {len(gone)} landing file(s), kept {len(kept)} changed since"
    return Outcome.done(summary, removed=gone, kept=kept) if gone else Outcome.unchanged(summary, kept=kept)


def _folder(world: World, place: str) -> Path:
    return world.workspace / NAME / place


def _foundations(step: Step, world: World, place: str) -> Foundations:
    migration = world.migration
    foundations, _ = derive(migration.name, migration.places[place], world.inventory, step.params["choices"])
    return foundations


def _ours(written: Mapping[str, str], kept: tuple[str, ...]) -> dict[str, str]:
    """Digests of the files that stand as we wrote them; an edited file keeps its old one, so that undo spares it."""
    return {name: digest for name, digest in written.items() if name not in kept}


def _counts(foundations: Foundations) -> dict[str, int]:
    return {
        "buckets": len(foundations.buckets), "keys": len(foundations.keys), "roles": len(foundations.roles),
        "secrets": len(foundations.secrets), "log_sinks": 1 if foundations.sink else 0,
    }  # fmt: skip


def _problems(report: CheckReport) -> list[dict[str, Any]]:
    return [item.to_json() for item in report.diagnostics if item.severity is Severity.ERROR][:_SHOWN_MAX]


def _outcome(done: Mapping[str, Any], changed: int) -> Outcome:
    data: dict[str, Any] = {"places": dict(done)}
    parts = [
        f"{place}: {item['check']}" if "check" in item else f"{place}: {item['reason']}" for place, item in done.items()
    ]
    summary = "; ".join(parts)
    status = {item["status"] for item in done.values()}
    if status - {"written"}:
        kept = [f"{place}/{name}" for place, item in done.items() for name in item.get("kept", ())]
        if kept:
            summary += f"; kept because somebody changed them: {', '.join(kept)} (move them away to have them written)"
        return Outcome.failed(summary, **data)
    return Outcome.done(summary, **data) if changed else Outcome.unchanged(summary, **data)
