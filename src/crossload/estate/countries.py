"""Country sets that residency rules may name (ISO 3166-1 alpha-2).

Sources: EU members as of 2020-02-01 (europa.eu); EEA Agreement, as of 2026, in which Regulation 2016/679
applies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_EU = frozenset("AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK".split())
SETS: Mapping[str, frozenset[str]] = {"EU": _EU, "EEA": _EU | {"IS", "LI", "NO"}, "US": frozenset({"US"})}


def expand(names: Iterable[str]) -> frozenset[str]:
    """`["EU", "CH"]` -> the countries. A name that is no set stands for itself."""
    out: set[str] = set()
    for name in names:
        out |= SETS.get(name, {name})
    return frozenset(out)
