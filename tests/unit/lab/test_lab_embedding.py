"""WordPiece gives the numbers the reference tokenizer gives (its outputs are written down here)."""

from __future__ import annotations

import pytest

from crossload.lab.embedding.wordpiece import token_ids, vocabulary

REFERENCE = {
    "Don't re-tokenize unbelievable naïve words!": [
        101,
        2123,
        1005,
        1056,
        2128,
        1011,
        19204,
        4697,
        23653,
        15743,
        2616,
        999,
        102,
    ],
    "北京 is a city": [101, 1781, 1755, 2003, 1037, 2103, 102],
    "x" * 120 + " end": [
        101,
        100,
        2203,
        102,
    ],
    "a\tb\nc\xa0d": [101, 1037, 1038, 1039, 1040, 102],
    "$5 `x` ~ a_b^c": [101, 1002, 1019, 1036, 1060, 1036, 1066, 1037, 1035, 1038, 1034, 1039, 102],
    "": [101, 102],
}


@pytest.mark.parametrize("text", REFERENCE)
def test_same_numbers_as_the_reference(text: str) -> None:
    assert token_ids(text) == REFERENCE[text]


def test_long_texts_are_cut_and_stay_closed() -> None:
    numbers = token_ids("word " * 1000, length_max=64)
    assert len(numbers) == 64
    assert numbers[0] == vocabulary()["[CLS]"]
    assert numbers[-1] == vocabulary()["[SEP]"]
