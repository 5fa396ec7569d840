"""The files of `examples/helpdesk` fit together, and the shipped vectors really know the manual."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import pytest

from crossload.lab.seed import SeedError, seed, workload_folder
from crossload.lab.seed_clients import Tally
from crossload.lab.seed_index import read_chunks

FOLDER = Path(__file__).parents[3] / "examples" / "helpdesk"


def lines(name: str) -> list[dict]:
    return [json.loads(line) for line in (FOLDER / name).read_text(encoding="utf-8").splitlines()]


def vectors(name: str) -> numpy.ndarray:
    return numpy.load(FOLDER / "data" / name).astype(numpy.float32)


def test_forty_distinct_questions_with_short_contexts() -> None:
    asked = lines("questions.jsonl")
    router = json.loads((FOLDER / "data" / "topic_router.json").read_text())
    assert len({row["question"] for row in asked}) == 40
    assert len({row["id"] for row in asked}) == 40
    assert {row["topic"] for row in asked} == set(router["topics"])
    assert all(10 <= len(row["context"].split()) <= 30 for row in asked)


def test_conversations_ask_for_orders_that_exist() -> None:
    orders = {order["order_id"] for order in json.loads((FOLDER / "orders.json").read_text())}
    asked = lines("conversations.jsonl")
    assert len(orders) == 20
    assert len(asked) == 8
    for row in asked:
        assert row["order_id"] in orders
        assert str(row["order_id"]) in row["say"]


def test_shipped_vectors_are_rows_of_length_one() -> None:
    rows = read_chunks(FOLDER)
    assert len(rows) == 240
    assert len({row[0] for row in rows}) == 240
    assert vectors("question_vectors.npy").shape == (40, 384)
    for held in (vectors("vectors.npy"), vectors("question_vectors.npy")):
        assert numpy.allclose(numpy.linalg.norm(held, axis=1), 1.0, atol=2e-3)


def test_the_nearest_chunk_is_mostly_on_the_right_page() -> None:
    sources = [row[2] for row in read_chunks(FOLDER)]
    nearest = (vectors("question_vectors.npy") @ vectors("vectors.npy").T).argmax(axis=1)
    right = sum(sources[at] == row["source"] for at, row in zip(nearest, lines("questions.jsonl"), strict=True))
    assert right >= 30


def test_the_router_is_mostly_right() -> None:
    router = json.loads((FOLDER / "data" / "topic_router.json").read_text())
    scores = vectors("question_vectors.npy") @ numpy.asarray(router["weights"]) + numpy.asarray(router["bias"])
    guessed = [router["topics"][at] for at in scores.argmax(axis=1)]
    assert sum(guess == row["topic"] for guess, row in zip(guessed, lines("questions.jsonl"), strict=True)) >= 36


def test_chunks_that_lost_a_line_are_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    text = (FOLDER / "data" / "chunks.jsonl").read_text(encoding="utf-8")
    (tmp_path / "data" / "chunks.jsonl").write_text("".join(text.splitlines(keepends=True)[1:]), encoding="utf-8")
    (tmp_path / "data" / "vectors.npy").write_bytes((FOLDER / "data" / "vectors.npy").read_bytes())
    with pytest.raises(SeedError, match="239 chunks"):
        read_chunks(tmp_path)


def test_seeding_where_no_lab_was_up_says_so(tmp_path: Path) -> None:
    with pytest.raises(SeedError, match="no lab was ever up"):
        seed(tmp_path)
    (tmp_path / "env").write_text("CROSSLOAD_LAB_HOME=x\n")
    with pytest.raises(SeedError, match="CROSSLOAD_LAB_PG_A_SEED is missing"):
        seed(tmp_path)


def test_the_workload_folder_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CROSSLOAD_HELPDESK", raising=False)
    assert workload_folder() == FOLDER
    monkeypatch.setenv("CROSSLOAD_HELPDESK", str(tmp_path))
    with pytest.raises(SeedError, match="CROSSLOAD_HELPDESK"):
        workload_folder()


def test_progress_is_told_sparingly_and_its_end_always() -> None:
    told = []
    tally = Tally("docs", 500, told.append)
    for number in range(500):
        tally.add(f"k{number}", made=number % 2 == 0)
    assert (told[-1].done, told[-1].total) == (500, 500)
    assert len(told) < 50
    assert (len(tally.made), tally.kept) == (250, 250)
