"""The inventory as a spreadsheet, both ways: what comes back is the same, or told line by line.

RFC 4180 with a byte order mark, so that spreadsheets read it as UTF-8. A cell that a spreadsheet would run as a formula
gets an apostrophe in front (OWASP, CSV injection), and one apostrophe is taken off again on reading: the two undo each
other for every text."""

from __future__ import annotations

import csv
import glob
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from crossload.estate.asset import Asset, Inventory, Kind
from crossload.estate.diagnostic import Diagnostic
from crossload.estate.digest import canonical_json

OVERLAY_COLUMNS = ("sensitivity", "uptime", "app", "owner", "move", "risk", "serves")
FACT_COLUMNS = ("size_bytes", "object_count", "rows", "dimension", "model", "encryption", "versioning")
COLUMNS = ("id", "kind", "name", "place", *OVERLAY_COLUMNS, *FACT_COLUMNS, "tags", "other_facts", "native")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠", "'")
_UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Sheet:
    """A spreadsheet as read: its assets, and what could not be read. `lines` maps asset id -> line in the file."""

    assets: tuple[Asset, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()
    lines: Mapping[str, int] = field(default_factory=dict)


def to_csv(inventory: Inventory) -> str:
    """One line per asset, sorted by id. Unknown numbers read `unknown`; an empty cell means the fact does not apply."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for asset in sorted(inventory.assets, key=lambda item: item.id):
        writer.writerow([escape(text) for text in _cells(asset)])
    return "\ufeff" + out.getvalue()


def from_csv(text: str, subject: str = "inventory.csv") -> Sheet:
    """Read `to_csv`'s output, or what a spreadsheet made of it (other separators, missing mark, columns moved)."""
    body = text.removeprefix("\ufeff")
    header = body.split("\n", 1)[0]
    separator = max((",", ";", "\t"), key=header.count)
    rows = csv.reader(io.StringIO(body, newline=""), delimiter=separator)
    names = [unescape(name).strip() for name in next(rows, [])]
    missing = [name for name in ("id", "kind", "name") if name not in names]
    if missing:
        hint = f"the first line names the columns: {', '.join(COLUMNS)}"
        text = f"column {', '.join(missing)} is missing"
        return Sheet((), (Diagnostic.error("XL310", text, subject=subject, line=1, column=1, hint=hint),))
    assets: list[Asset] = []
    problems: list[Diagnostic] = []
    lines: dict[str, int] = {}
    for row in rows:
        if not any(row):
            continue
        try:
            asset = _asset({name: unescape(cell) for name, cell in zip(names, row, strict=False)})
        except (ValueError, KeyError) as error:
            problems.append(
                Diagnostic.error(
                    "XL311", f"this line is no asset: {error}", subject=subject, line=rows.line_num, column=1
                )
            )
            continue
        if asset.id in lines:
            first = f"`{asset.id}` was on line {lines[asset.id]} already"
            problems.append(Diagnostic.error("XL312", first, subject=subject, line=rows.line_num, column=1))
            continue
        lines[asset.id] = rows.line_num
        assets.append(asset)
    return Sheet(tuple(sorted(assets, key=lambda item: item.id)), tuple(problems), lines)


def overlays_from(sheet: Sheet, inventory: Inventory) -> tuple[list[dict[str, Any]], list[Diagnostic]]:
    """The overlay entries (as in the migration file) that say what the sheet says, one per asset that says anything.

    Discovered columns are read-only: a cell that differs from the inventory is told, not believed."""
    known = {asset.native: asset for asset in inventory.assets}
    overlays: list[dict[str, Any]] = []
    problems = list(sheet.diagnostics)
    for asset in sheet.assets:
        held = inventory.get(asset.id) or known.get(asset.native)
        line = sheet.lines.get(asset.id, 0)
        if held is None:
            text = f"`{asset.id}` is not in the inventory"
            hint = "only overlay columns can be edited; new assets come from discovery"
            problems.append(Diagnostic.warning("XL313", text, line=line, column=1, hint=hint))
            continue
        for column in _edited(asset, held):
            text = f"`{asset.id}`: column {column} is what was discovered, and was edited"
            problems.append(Diagnostic.warning("XL314", text, line=line, column=1, hint="the discovered value is kept"))
        # What the provider's tags say already need not be said again.
        said = {name: value for name, value in asset.overlay.items() if held.tags.get(name) != value}
        if asset.id != f"{held.kind}:{held.name}":
            said = {"id": asset.id.removeprefix(f"{held.kind}:"), **said}
        if said:
            overlays.append({"match": {"kind": str(held.kind), "name": glob.escape(held.name)}, "set": said})
    return overlays, problems


def escape(text: str) -> str:
    """Text that no spreadsheet runs."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def unescape(text: str) -> str:
    return text.removeprefix("'")


def _cells(asset: Asset) -> list[str]:
    plain = {"id": asset.id, "kind": str(asset.kind), "name": asset.name, "place": asset.place, "native": asset.native}
    rest = {name: value for name, value in asset.facts.items() if name not in FACT_COLUMNS}
    plain["tags"] = _json(asset.tags)
    plain["other_facts"] = _json(rest)
    for column in OVERLAY_COLUMNS:
        plain[column] = asset.overlay.get(column, "")
    for column in FACT_COLUMNS:
        plain[column] = _fact(asset.facts[column]) if column in asset.facts else ""
    return [plain[column] for column in COLUMNS]


def _json(value: Mapping[str, Any]) -> str:
    return canonical_json(dict(value)).decode() if value else ""


def _fact(value: Any) -> str:
    """Texts as they are, everything else as JSON; a text that would read as JSON is quoted, so that it stays a text."""
    if value is None:
        return _UNKNOWN
    if isinstance(value, str) and value and value != _UNKNOWN and not _is_json(value):
        return value
    return canonical_json(value).decode()


def _read_fact(text: str) -> Any:
    if text == _UNKNOWN:
        return None
    return json.loads(text) if _is_json(text) else text


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _asset(cells: Mapping[str, str]) -> Asset:
    facts: dict[str, Any] = json.loads(cells["other_facts"]) if cells.get("other_facts") else {}
    facts |= {name: _read_fact(cells[name]) for name in FACT_COLUMNS if cells.get(name)}
    tags: dict[str, str] = json.loads(cells["tags"]) if cells.get("tags") else {}
    overlay = {name: cells[name] for name in OVERLAY_COLUMNS if cells.get(name)}
    if not cells["id"].startswith(f"{cells['kind']}:"):
        raise ValueError(f"id {cells['id']!r} does not begin with its kind {cells['kind']!r}")
    return Asset(
        cells["id"], Kind(cells["kind"]), cells["name"], cells.get("place", ""), cells.get("native", ""), facts, tags,
        overlay,
    )  # fmt: skip


def _edited(asset: Asset, held: Asset) -> list[str]:
    pairs: Sequence[tuple[str, Any, Any]] = [
        ("name", asset.name, held.name), ("place", asset.place, held.place), ("native", asset.native, held.native),
        ("tags", dict(asset.tags), dict(held.tags)),
    ]  # fmt: skip
    found = [name for name, mine, theirs in pairs if mine != theirs]
    names = sorted(asset.facts.keys() | held.facts.keys())
    return found + [name for name in names if asset.facts.get(name) != held.facts.get(name)]
