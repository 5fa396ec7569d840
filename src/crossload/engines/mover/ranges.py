"""Ranges of keys that are listed side by side: cut where keys probably are, never overlapping, never with a gap.

Everything here is arithmetic on keys and does no I/O. Keys are compared by code points, which is the order of their
UTF-8 bytes. A cut may be a key that does not exist: it only has to lie between two others, so a bad guess costs one
request and never an object. The caller holds a lock around each call of a `RangePlan`."""

from __future__ import annotations

import string
from bisect import bisect_right, insort
from dataclasses import dataclass
from os.path import commonprefix

from crossload.ports.errors import Invalid

_SEED = string.digits + string.ascii_letters + "/-_."
_DIGITS_MIN, _DIGITS_MAX = 12, 96
_EXTRA_LETTERS = 2
_BITS_MAX = 256
_MISSES_MAX = 16
_PAUSE_WINDOWS = 20


class Unsorted(Invalid):
    """A listing that was to come in the order of its keys did not."""


class Alphabet:
    """The characters that keys are made of, learnt from keys: with them, a key is a number to a base."""

    def __init__(self) -> None:
        self._letters = sorted(_SEED)
        self._known = set(_SEED)

    def learn(self, key: str) -> None:
        for letter in set(key) - self._known:
            self._known.add(letter)
            if letter >= " " and not "\ud800" <= letter <= "\udfff":  # what no request can carry is no cut
                insort(self._letters, letter)

    def between(self, low: str, high: str | None, prefix: str, bits: int) -> str | None:
        """A string behind `low` and before `high` (None: the end of all keys with the prefix), 2**-bits of the way
        from one to the other. None when there is none that these letters can write."""
        same = len(prefix) if high is None else _same(low, high)
        base = len(self._letters) + 1
        digits = _DIGITS_MIN
        while digits <= _DIGITS_MAX:
            begin, end = self._number(low[same:], digits), self._end(high, same, digits)
            middle = low[:same] + self._text(begin + (end - begin >> bits), digits, base)
            if low < middle and (high is None or middle < high):
                return _shortened(middle, low, same)
            digits *= 2
        return None

    def share(self, first: str, at: str, end: str | None, prefix: str) -> float:
        """How far it is from `at` to `end`, as a multiple of the way from `first` to `at`."""
        same = len(prefix) if end is None else _same(first, end)
        begin, middle = self._number(first[same:], 2 * _DIGITS_MIN), self._number(at[same:], 2 * _DIGITS_MIN)
        return max(0, self._end(end, same, 2 * _DIGITS_MIN) - middle) / max(1, middle - begin)

    def _end(self, high: str | None, same: int, digits: int) -> int:
        return (len(self._letters) + 1) ** digits if high is None else self._number(high[same:], digits)

    def _number(self, text: str, digits: int) -> int:
        """Zero stands for the end of the text, so that a key comes before those that it begins."""
        base, value = len(self._letters) + 1, 0
        for place in range(digits):
            value = value * base + (bisect_right(self._letters, text[place]) if place < len(text) else 0)
        return value

    def _text(self, value: int, digits: int, base: int) -> str:
        places: list[int] = []
        for _ in range(digits):
            value, place = divmod(value, base)
            if place or places:
                places.append(max(1, place))  # there is no letter for nothing in the middle of a text
        return "".join(self._letters[place - 1] for place in reversed(places))


def _same(one: str, other: str) -> int:
    """How many letters both begin with."""
    return len(commonprefix([one, other]))  # noqa: RUF071  # keys are no paths


def _shortened(middle: str, low: str, same: int) -> str:
    """The first letters of it, as long as they still lie behind `low`: nobody wants cuts of a hundred letters."""
    length = same + 1
    while middle[:length] <= low:
        length += 1
    return middle[: length + _EXTRA_LETTERS]


@dataclass(slots=True, eq=False)
class Range:
    """The keys behind `after`, up to and with `upto` (None: all). `first` is the first key that was taken, `at` the
    last, `lately` the first of the last page; `bits` how deep the next cut goes; from `again` keys on it may be cut."""

    after: str
    upto: str | None
    at: str = ""
    first: str = ""
    lately: str = ""
    keys: int = 0
    bits: int = 1
    misses: int = 0
    again: int = 1
    parent: Range | None = None
    probed: bool = False
    done: bool = False


class RangePlan:
    """All ranges of one listing. At any moment the ranges together are all keys with the prefix, each exactly once."""

    def __init__(self, prefix: str, page_keys: int) -> None:
        self._prefix = prefix
        self._page_keys = page_keys
        self._alphabet = Alphabet()
        self.open = [Range("", None)]
        self.cuts = 0

    def take(self, part: Range, keys: list[str], *, more: bool) -> int:
        """How many keys of a page belong to the range; `more` is False when the listing has ended. Raises Unsorted."""
        if keys and (keys[0] <= part.at or keys != sorted(keys)):
            raise Unsorted(f"a listing behind {part.at!r} gave {keys[0]!r} .. {keys[-1]!r} out of order")
        count = len(keys) if part.upto is None else bisect_right(keys, part.upto)
        if keys:
            self._alphabet.learn(keys[0])
            self._alphabet.learn(keys[-1])
        if count:
            part.first = part.first or keys[0]
            part.lately, part.at = keys[0], keys[count - 1]
            part.keys += count
        part.done = not more or count < len(keys) or part.at == part.upto
        if part.done:
            self.open.remove(part)
        self._judge(part)
        return count

    def cut(self) -> Range | None:
        """A new range, cut off the range that probably has most before it; None when no cut would pay."""
        best, most = None, -1.0
        for part in self.open:
            if part.probed or part.keys < part.again:
                continue
            # As dense as the last page was, there must be two pages more; as dense as all was, the most of all.
            lately, before = (
                self._before(part, part.lately) * self._page_keys,
                self._before(part, part.first) * part.keys,
            )
            if lately >= 2 * self._page_keys and before > most:
                best, most = part, before
        if best is None:
            return None
        middle = self._alphabet.between(best.at, best.upto, self._prefix, best.bits)
        if middle is None:
            self._missed(best)
            return None
        made = Range(middle, best.upto, at=middle, parent=best)
        best.upto = middle
        best.probed = True
        self.open.append(made)
        self.cuts += 1
        return made

    def _before(self, part: Range, first: str) -> float:
        return self._alphabet.share(first, part.at, part.upto, self._prefix)

    def _judge(self, part: Range) -> None:
        """What the first page behind a cut says about it: with nearly nothing there, the next cut goes deeper (keys
        with long common beginnings fill a tiny part of all keys there could be); else the way back is open."""
        parent, part.parent = part.parent, None
        if parent is None:
            return
        parent.probed = False
        if part.done:
            self._missed(parent)
        else:
            part.bits = max(1, parent.bits // 2)
            parent.bits = 1
            parent.misses = 0

    def _missed(self, part: Range) -> None:
        part.misses += 1
        part.bits = min(_BITS_MAX, part.bits * 2)
        if part.misses == _MISSES_MAX:  # these keys are not to be guessed: later, perhaps
            part.bits, part.misses, part.again = 1, 0, 2 * part.keys


class Worth:
    """How many ranges at once are worth it: twice as many, as long as that brings clearly more pages a second.

    A store on a fast network, or a machine that is busy with the keys it gets, is at its limit with few."""

    def __init__(self, most: int, *, pages: int = 4, seconds: float = 0.25, gain: float = 1.15) -> None:
        self._most, self._pages, self._seconds, self._gain = most, pages, seconds, gain
        self.limit = 1
        self._before = 1
        self._best = 0.0
        self._pause = 0
        self._seen = 0
        self._took = 0.0

    def page(self, seconds: float, active: int) -> None:
        """A whole page took so long, from asking to having it on disk, while `active` ranges were under way."""
        if active < self.limit:
            return
        self._seen += 1
        self._took += seconds
        if self._seen >= self._pages * self.limit and self._took >= self._seconds * self.limit:
            self._decide(self.limit * self._seen / max(1e-9, self._took))
            self._seen, self._took = 0, 0.0

    def _decide(self, pages_per_second: float) -> None:
        if self._pause:
            self._pause -= 1
            if not self._pause:
                self._best = 0.0  # conditions change: try again, compared with today's rate
        elif pages_per_second > self._best * self._gain:
            self._best = pages_per_second
            self._before, self.limit = self.limit, min(self._most, 2 * self.limit)
        else:
            self.limit, self._pause = self._before, _PAUSE_WINDOWS
