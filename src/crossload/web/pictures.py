"""Pictures as inline SVG, drawn from evidence and inventory. Colours come from the page's own style sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from datetime import datetime
from html import escape
from typing import Any

from crossload.api import Evidence, Inventory

_ROW = 30


def flow(inventory: Inventory, choices: Mapping[str, str], carried: Set[str]) -> str:
    """Assets on the left, an arrow to the place chosen; dashed when a place is chosen and nothing carries the asset
    there yet, none when it stays."""
    assets = sorted(inventory.assets, key=lambda asset: (str(asset.kind), asset.id))
    targets = sorted(set(choices.values()))
    height = max(len(assets), len(targets) * 2) * _ROW + 40
    step = height / (len(targets) + 1)
    where = {place: step * (n + 1) for n, place in enumerate(targets)}
    parts = [f'<svg viewBox="0 0 900 {height}" role="img" aria-label="What moves where">']
    for number, asset in enumerate(assets):
        y = 30 + number * _ROW
        moving = asset.id in choices
        kind = "asset moving" if moving else "asset"
        parts.append(f'<rect class="{kind}" x="10" y="{y - 14}" width="330" height="24" rx="4"/>')
        parts.append(f'<text x="20" y="{y + 3}">{escape(_short(asset.id, 42))}</text>')
        if moving:
            end = where[choices[asset.id]]
            kind = "edge" if asset.id in carried else "edge dashed"
            parts.append(f'<path class="{kind}" d="M340 {y - 2} C 480 {y - 2}, 520 {end}, 660 {end}"/>')
    for place, y in where.items():
        parts.append(f'<rect class="place" x="660" y="{y - 20}" width="220" height="40" rx="6"/>')
        parts.append(f'<text x="770" y="{y + 5}" text-anchor="middle">{escape(place)}</text>')
    return "".join([*parts, "</svg>"])


def timeline(evidence: Sequence[Evidence]) -> str:
    """One mark per record, a lane per stage, time to the right; failures and rollbacks stand out."""
    if not evidence:
        return ""
    stages = list(dict.fromkeys(item.stage for item in evidence))
    times = [datetime.fromisoformat(item.at).timestamp() for item in evidence]
    first, span = times[0], max(times[-1] - times[0], 1.0)
    height = len(stages) * _ROW + 40
    parts = [f'<svg viewBox="0 0 900 {height}" role="img" aria-label="Evidence over time">']
    for number, stage in enumerate(stages):
        y = 24 + number * _ROW
        parts.append(f'<text x="8" y="{y + 4}">{escape(stage)}</text><path class="lane" d="M120 {y} H880"/>')
    for item, at in zip(evidence, times, strict=True):
        x = 125 + (at - first) / span * 750
        y = 24 + stages.index(item.stage) * _ROW
        kind = "bad" if item.status in ("failed", "refused") else "back" if item.verb == "undo" else "ok"
        title = escape(f"{item.id} {item.verb} {item.asset}: {item.summary}")
        parts.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y}" r="5"><title>{title}</title></circle>')
    parts.append(f'<text x="120" y="{height - 4}">0 s</text>')
    parts.append(f'<text x="880" y="{height - 4}" text-anchor="end">{span:.0f} s</text></svg>')
    return "".join(parts)


def weights(evidence: Sequence[Evidence]) -> str:
    """Share of traffic at the target over time, as steps; found in evidence data under `weights`."""
    histories = [item.data["weights"] for item in evidence if isinstance(item.data.get("weights"), list)]
    points = [(float(row["at"]), float(row["target_percent"])) for rows in histories for row in rows]
    if len(points) < 2:
        return ""
    points.sort()
    first, span = points[0][0], max(points[-1][0] - points[0][0], 1.0)
    path = ""
    for at, share in points:
        x, y = 60 + (at - first) / span * 820, 160 - share * 1.4
        path += f"M{x:.1f} {y:.1f}" if not path else f" H{x:.1f} V{y:.1f}"
    axis = "".join(
        f'<path class="lane" d="M60 {160 - share * 1.4} H880"/><text x="8" y="{164 - share * 1.4}">{share} %</text>'
        for share in (0, 50, 100)
    )
    return (
        f'<svg viewBox="0 0 900 190" role="img" aria-label="Share of traffic at the target">{axis}'
        f'<path class="steps" d="{path}"/><text x="60" y="184">0 s</text>'
        f'<text x="880" y="184" text-anchor="end">{span:.0f} s</text></svg>'
    )


def latencies(evidence: Sequence[Evidence]) -> str:
    """p50 and p95 of both arms as bars, from the latest evidence that has `latency`."""
    latest: Any = None
    for item in evidence:
        if isinstance(item.data.get("latency"), dict):
            latest = item.data["latency"]
    if not latest:
        return ""
    rows = [
        (f"{arm} {name}", float(value))
        for arm in ("source", "target")
        for name, value in latest.get(arm, {}).items()
        if isinstance(value, int | float)
    ]
    top = max((value for _, value in rows), default=0.0)
    if not top:
        return ""
    parts = [f'<svg viewBox="0 0 900 {len(rows) * _ROW + 10}" role="img" aria-label="Latency of both arms">']
    for number, (name, value) in enumerate(rows):
        y = 8 + number * _ROW
        kind = "bar target" if name.startswith("target") else "bar"
        parts.append(f'<text x="8" y="{y + 15}">{escape(name)}</text>')
        parts.append(f'<rect class="{kind}" x="180" y="{y}" width="{value / top * 560:.1f}" height="20" rx="3"/>')
        parts.append(f'<text x="{190 + value / top * 560:.1f}" y="{y + 15}">{value:.3f} s</text>')
    return "".join([*parts, "</svg>"])


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
