"""Counted bytes: exact when closed, an upper bound after kill -9, and never fewer than left."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from crossload.ledger.database import LedgerBroken
from crossload.ledger.egress import EgressBook, EgressDay, egress_book

DAY = "2026-06-01"
BLOCK = 1000


def opened(path: Path, day: str = DAY) -> EgressBook:
    return EgressBook(path / "egress.db", block_bytes=BLOCK, today=lambda: day)


def test_a_closed_book_is_exact(tmp_path: Path) -> None:
    with opened(tmp_path) as book:
        for size in (1, 999, 5000, 0, 700):
            book.count("cloud-a", size)
        book.count("cloud-b", 3)
    with opened(tmp_path) as book:
        assert book.days() == [EgressDay(DAY, "cloud-a", 6700, 0), EgressDay(DAY, "cloud-b", 3, 0)]
        assert book.days("cloud-b") == [EgressDay(DAY, "cloud-b", 3, 0)]
        book.count("cloud-a", 1)
        book.settle()
        assert book.days("cloud-a") == [EgressDay(DAY, "cloud-a", 6701, 0)]


def test_an_open_book_says_how_much_may_be_too_much(tmp_path: Path) -> None:
    with opened(tmp_path) as book:
        for size in (400, 400, 400):
            book.count("cloud-a", size)
            [row] = book.days()
            assert row.size_bytes - row.open_bytes <= 1200
        assert row == EgressDay(DAY, "cloud-a", 2000, 1200)
        assert row.to_json()["size_bytes_min"] == 800


def test_each_day_has_its_own_bytes(tmp_path: Path) -> None:
    days = iter(["2026-06-01", "2026-06-01", "2026-06-02", "2026-06-02"])
    with EgressBook(tmp_path / "egress.db", block_bytes=BLOCK, today=lambda: next(days)) as book:
        for size in (10, 20, 30, 2000):
            book.count("cloud-a", size)
    with opened(tmp_path) as book:
        assert [(row.day, row.size_bytes, row.open_bytes) for row in book.days()] == [
            ("2026-06-01", 30, 0), ("2026-06-02", 2030, 0),
        ]  # fmt: skip


def test_threads_and_two_books_lose_nothing(tmp_path: Path) -> None:
    books = [opened(tmp_path), opened(tmp_path)]

    def work(book: EgressBook) -> None:
        for _ in range(200):
            book.count("cloud-a", 7)

    threads = [threading.Thread(target=work, args=(books[number % 2],)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for book in books:
        book.close()
    with opened(tmp_path) as book:
        assert book.days() == [EgressDay(DAY, "cloud-a", 16 * 200 * 7, 0)]


WORKER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from crossload.ledger.egress import EgressBook
    book = EgressBook(Path(sys.argv[1]), block_bytes=1000, today=lambda: "2026-06-01")
    sent = 0
    while True:
        book.count("cloud-a", 37)
        sent += 37
        print(sent, flush=True)  # the bytes leave after they are counted
    """
)


def test_kill_nine_counts_too_much_by_one_block_and_never_too_little(tmp_path: Path) -> None:
    left = 0
    for _ in range(3):
        said = tmp_path / "said"
        with said.open("wb") as out:
            command = [sys.executable, "-c", WORKER, str(tmp_path / "egress.db")]
            process = subprocess.Popen(command, stdout=out)
            until = time.monotonic() + 60
            while said.stat().st_size < 2000 and time.monotonic() < until:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            process.wait()
        lines = said.read_text().splitlines()
        assert len(lines) > 100, "it was killed before it did anything"
        left += max(int(line) for line in lines)
    with opened(tmp_path) as book:
        [row] = book.days()
    assert left <= row.size_bytes <= left + 3 * (BLOCK + 37)
    assert row.size_bytes - row.open_bytes <= left
    assert row.open_bytes <= 3 * (BLOCK + 37)


def test_bytes_that_cannot_be_counted_are_not_read(tmp_path: Path) -> None:
    book = opened(tmp_path)
    other = sqlite3.connect(tmp_path / "egress.db")
    other.execute("drop table egress")
    other.commit()
    with pytest.raises(LedgerBroken):
        book.count("cloud-a", 1)
    other.close()
    book.close()


def test_the_workspace_has_one_book(tmp_path: Path) -> None:
    with egress_book(tmp_path) as book:
        book.count("cloud-a", 5)
    assert (tmp_path / "egress.db").stat().st_mode & 0o077 == 0
    with egress_book(tmp_path) as book:
        [row] = book.days()
    assert json.loads(json.dumps(row.to_json()))["size_bytes"] == 5
