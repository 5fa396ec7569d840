"""WordPiece as BERT uncased does it: text in, token numbers out. Enough of it for MiniLM, no more."""

from __future__ import annotations

import unicodedata
from functools import cache
from pathlib import Path

UNKNOWN, CLS, SEP, PAD = "[UNK]", "[CLS]", "[SEP]", "[PAD]"
_WORD_CHARACTERS_MAX = 100


@cache
def vocabulary() -> dict[str, int]:
    """Piece -> number."""
    lines = Path(__file__).with_name("vocab.txt").read_text(encoding="utf-8").splitlines()
    return {piece: number for number, piece in enumerate(lines)}


def token_ids(text: str, length_max: int = 256) -> list[int]:
    """The numbers of `text`, with [CLS] and [SEP], cut to `length_max`."""
    known = vocabulary()
    numbers = [known[piece] for word in _words(text) for piece in _pieces(word, known)]
    return [known[CLS], *numbers[: length_max - 2], known[SEP]]


def _words(text: str) -> list[str]:
    spaced: list[str] = []
    for mark in unicodedata.normalize("NFD", text.lower()):
        kind = unicodedata.category(mark)
        if kind == "Mn" or mark in {"\0", "\ufffd"} or (kind in {"Cc", "Cf"} and mark not in "\t\n\r"):
            continue
        alone = _is_punctuation(mark, kind) or _is_ideograph(mark)
        spaced.append(f" {mark} " if alone else mark)
    return "".join(spaced).split()


def _is_punctuation(mark: str, kind: str) -> bool:
    return kind.startswith("P") or (mark.isascii() and mark.isprintable() and not mark.isalnum() and mark != " ")


def _is_ideograph(mark: str) -> bool:
    return "\u4e00" <= mark <= "\u9fff" or "\u3400" <= mark <= "\u4dbf" or "\uf900" <= mark <= "\ufaff"


def _pieces(word: str, known: dict[str, int]) -> list[str]:
    """The longest known piece first; a word with a part that is not known is unknown as a whole."""
    if len(word) > _WORD_CHARACTERS_MAX:
        return [UNKNOWN]
    pieces: list[str] = []
    start = 0
    while start < len(word):
        for end in range(len(word), start, -1):
            piece = ("##" if start else "") + word[start:end]
            if piece in known:
                pieces.append(piece)
                start = end
                break
        else:
            return [UNKNOWN]
    return pieces
