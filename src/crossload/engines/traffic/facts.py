"""What two answers say in numbers, dates, negations, ids, addresses and code, and where they differ.

Deterministic and quick, because similarity of embeddings is blind to exactly this: "5 mg" against "50 mg" scores 0.9.
What it does not see: a wrong name, a wrong claim in other words. It says "these differ in a fact", never "these
agree"."""

from __future__ import annotations

import re
from typing import NamedTuple

_MONTHS = {
    name: number
    for number, names in enumerate(
        ("jan january", "feb february", "mar march", "apr april", "may", "jun june", "jul july", "aug august",
         "sep sept september", "oct october", "nov november", "dec december"), 1)
    for name in names.split()
}  # fmt: skip
_WORDS = {
    word: number
    for number, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
        " seventeen eighteen nineteen twenty".split()
    )
} | {"thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90, "hundred": 100}
_UNITS = {
    spelling: unit
    for unit, spellings in {
        "ms": "ms millisecond milliseconds", "s": "s sec secs second seconds", "min": "min mins minute minutes",
        "h": "h hr hrs hour hours", "day": "day days", "week": "week weeks", "month": "month months",
        "year": "year years", "%": "% percent", "mg": "mg milligram milligrams", "g": "g gram grams",
        "kg": "kg kilogram kilograms", "ml": "ml millilitre millilitres milliliter milliliters",
        "l": "l litre litres liter liters", "mm": "mm", "cm": "cm", "m": "m metre metres meter meters",
        "km": "km kilometre kilometres kilometer kilometers", "kB": "kb", "MB": "mb", "GB": "gb", "TB": "tb",
        "usd": "$ usd dollar dollars", "eur": "€ eur euro euros", "gbp": "£ gbp pound pounds",
        "celsius": "°c celsius", "fahrenheit": "°f fahrenheit",
    }.items()
    for spelling in spellings.split()
}  # fmt: skip
_FENCE = re.compile(r"```[^\n]*\n(.*?)```", re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")
_URL = re.compile(r"\b(?:https?://|www\.)[^\s<>()\"']+|\b[\w.+-]+@[\w-]+\.[\w.-]+\w")
_ISO_DATE = re.compile(r"\b(\d{4})-(\d{2})-(\d{2})\b")
_DAY_MONTH = re.compile(r"\b(\d{1,2})(?:st|nd|rd|th)?(?:\s+of)?\s+([A-Za-z]{3,9})\.?(?:,?\s+(\d{4}))?\b")
_MONTH_DAY = re.compile(r"\b([A-Za-z]{3,9})\.?\s+(\d{1,2})(?:st|nd|rd|th)?(?:,?\s+(\d{4}))?\b")
_ID = re.compile(r"\b(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[A-Za-z0-9][\w-]{2,}\b")
_QUANTITY = re.compile(r"\d[\d.]*[A-Za-z]+")  # "50mg" is a number with a unit, "AB12" is an id
_NUMBER = re.compile(r"(?<![\w.])([$€£])?\s?([-+]?\d[\d,]*(?:\.\d+)?)\s?(%|°[CF]|[A-Za-z]+)?((?:\s+[A-Za-z]+)?)")
_WORD_NUMBER = re.compile(rf"\b({'|'.join(_WORDS)})\b", re.IGNORECASE)
_UNIT_AHEAD = re.compile(r"\s+(?:[A-Za-z]+\s+)?([A-Za-z]+)")
_NEGATION = re.compile(r"\b(?:not|no|never|without|cannot|none|neither|nor|nothing|nobody)\b|n['’]t\b", re.IGNORECASE)
_REFUSAL = re.compile(
    r"\bI(?:['’]m| am) (?:sorry|unable|not able)\b"
    r"|\bI (?:can['’]?t|cannot|won['’]t) (?:help|assist|provide|do|answer)\b"
    r"|\bas an AI\b", re.IGNORECASE,
)  # fmt: skip
_ARGUMENT = re.compile(r"\b\w+\s*=\s*[^\s,;)]+")


class Facts(NamedTuple):
    numbers: frozenset[tuple[float, str]]
    dates: frozenset[tuple[int, int, int]]
    negated: bool
    refusal: bool
    ids: frozenset[str]
    addresses: frozenset[str]
    code: frozenset[str]


def facts_of(text: str) -> Facts:
    """Each kind is cut out of the text before the next is looked for, so that a date is not three numbers too."""
    code = {" ".join(found.split()) for found in [*_FENCE.findall(text), *_INLINE.findall(text)]}
    rest = _INLINE.sub(" ", _FENCE.sub(" ", text))
    addresses = {found.rstrip(".,;:!?") for found in _URL.findall(rest)}
    rest = _URL.sub(" ", rest)
    code |= {" ".join(found.split()) for found in _ARGUMENT.findall(rest)}
    dates, rest = _dates(rest)
    refusal = _REFUSAL.search(rest) is not None
    negated = _NEGATION.search(rest) is not None
    ids = {found for found in _ID.findall(rest) if not _QUANTITY.fullmatch(found)}
    rest = _ID.sub(lambda match: match[0] if _QUANTITY.fullmatch(match[0]) else " ", rest)
    numbers = _numbers(rest)
    return Facts(
        frozenset(numbers), frozenset(dates), negated, refusal, frozenset(ids), frozenset(addresses), frozenset(code)
    )


def _dates(text: str) -> tuple[set[tuple[int, int, int]], str]:
    """Year 0 means that none was said."""
    found: set[tuple[int, int, int]] = set()

    def iso(match: re.Match[str]) -> str:
        found.add((int(match[1]), int(match[2]), int(match[3])))
        return " "

    def named(match: re.Match[str], day: int, month: int) -> str:
        number = _MONTHS.get(match[month].lower())
        if number is None or not 1 <= int(match[day]) <= 31:
            return match[0]
        found.add((int(match[3] or 0), number, int(match[day])))
        return " "

    text = _ISO_DATE.sub(iso, text)
    text = _DAY_MONTH.sub(lambda match: named(match, 1, 2), text)
    text = _MONTH_DAY.sub(lambda match: named(match, 2, 1), text)
    return found, text


def _numbers(text: str) -> set[tuple[float, str]]:
    """Numbers with the unit that stands right before, right after, or one word later ("5 business days")."""
    found: set[tuple[float, str]] = set()

    def digits(match: re.Match[str]) -> str:
        before, digits_, after, later = match[1], match[2], match[3] or "", (match[4] or "").strip()
        unit = _UNITS.get(before or "") or _UNITS.get(after.lower()) or _UNITS.get(later.lower(), "")
        found.add((float(digits_.replace(",", "")), unit))
        return f" {after} {later} "

    def words(match: re.Match[str]) -> str:
        number = _WORDS[match[1].lower()]
        ahead = re.findall(r"[A-Za-z]+", text[match.end() : match.end() + 40])[:2]
        unit = next((_UNITS[word.lower()] for word in ahead if word.lower() in _UNITS), "")
        # "one" and "no one" are seldom a count; with a unit they are.
        if unit or number > 1:
            found.add((float(number), unit))
        return match[0]

    text = _NUMBER.sub(digits, text)
    _WORD_NUMBER.sub(words, text)
    return found


def differences(first: str, second: str) -> tuple[str, ...]:
    """Kinds of fact in which two answers differ, sorted; () when none was seen."""
    if first == second:
        return ()
    one, other = facts_of(first), facts_of(second)
    return tuple(sorted(name for name, a, b in zip(Facts._fields, one, other, strict=True) if a != b))
