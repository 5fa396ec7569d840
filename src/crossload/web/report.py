"""One self-contained HTML file: the ten steps, their evidence, pictures. No script, no network, prints well."""

from __future__ import annotations

import importlib.resources
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crossload.api import Evidence, Plan, Project, stage_names
from crossload.web import pictures

_QUESTIONS = {
    "goals": "What must hold, and what sends us back?",
    "inventory": "What is there?",
    "placement": "Where does it go, and why there?",
    "foundations": "May we, and how fast is the link?",
    "transfer": "Did every byte arrive?",
    "portability": "Do models and agents answer the same?",
    "conversion": "Does the code run on both sides?",
    "landing": "Is the target written down as code?",
    "assurance": "Is it as safe as before?",
    "cutover": "Did users move, and could they have gone back?",
}


def write_report(project: Project, path: Path) -> Path:
    """Write the report and return its path. Raises what reading the ledger raises."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    def load(name: str) -> str:
        return importlib.resources.files("crossload.web").joinpath(name).read_text(encoding="utf-8")

    engine = Environment(loader=FunctionLoader(load), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
                         lstrip_blocks=True)  # fmt: skip
    html = engine.get_template("report.html.j2").render(**_content(project))
    if path.exists() and not path.is_file():  # /dev/stdout, a pipe: written to, never replaced by a file
        path.write_text(html, encoding="utf-8")
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(html, encoding="utf-8")
    fresh.replace(path)
    return path


def _content(project: Project) -> dict[str, Any]:
    evidence = project.evidence()
    plan = project.load_plan()
    states: dict[str, dict[str, int]] = {}
    for item in project.status():
        counts = states.setdefault(item.step.stage, {})
        counts[item.state] = counts.get(item.state, 0) + 1
    by_stage = {name: [item for item in evidence if item.stage == name] for name in stage_names()}
    return {
        "name": project.migration.name,
        "owner": project.migration.file.metadata.owner,
        "written_at": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "committed": project.committed,
        "chain": project.check_ledger() or "whole",
        "head": evidence[-1].hash if evidence else "",
        "stages": [
            {
                "name": name, "question": _QUESTIONS[name], "states": states.get(name, {}),
                "verdict": _verdict(states.get(name, {})), "evidence": by_stage[name],
                "details": _details(by_stage[name]),
            }
            for name in stage_names()
        ],
        "goals": [metric.model_dump() for metric in project.migration.file.goals.metrics],
        "flow": pictures.flow(project.inventory(), plan.choices, _carried(plan)),
        "timeline": pictures.timeline(evidence),
        "weights": pictures.weights(evidence),
        "latencies": pictures.latencies(evidence),
    }  # fmt: skip


def _carried(plan: Plan) -> set[str]:
    """Assets that some step really brings over; the rest only has a place chosen for it."""
    return {step.asset for step in plan.steps if step.stage in ("transfer", "portability", "conversion")}


def _verdict(states: dict[str, int]) -> str:
    """The stage's word: failed beats open beats undone beats done."""
    for word in ("broken", "failed", "refused"):
        if states.get(word):
            return "failed"
    if states.get("running") or states.get("pending") or states.get("planned"):
        return "open"
    if states.get("undone"):
        return "rolled back"
    return "done" if states else "not planned"


def _details(items: list[Evidence]) -> list[dict[str, Any]]:
    """Tables inside evidence, the latest of each step: lists of equal objects read best as tables."""
    latest = {item.step: item for item in items if item.verb in ("perform", "verify")}
    found: list[dict[str, Any]] = []
    for item in latest.values():
        for name, value in item.data.items():
            if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
                columns = list(dict.fromkeys(key for row in value for key in row))
                found.append({"title": f"{item.asset}: {name.replace('_', ' ')}", "id": item.id, "columns": columns,
                              "rows": value[:60], "more": max(0, len(value) - 60)})  # fmt: skip
            elif isinstance(value, str) and "\n" in value:
                found.append(
                    {"title": f"{item.asset}: {name.replace('_', ' ')}", "id": item.id, "text": value[:20_000]}
                )
    return found
