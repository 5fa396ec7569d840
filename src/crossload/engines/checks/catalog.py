"""The rules, found by looking into the folder: a new file is a new check, with no list to edit."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from crossload.engines.checks import rules
from crossload.engines.checks.model import Attack, Comparison


@cache
def _all() -> tuple[Attack | Comparison, ...]:
    found: list[Attack | Comparison] = []
    for module in sorted(pkgutil.iter_modules(rules.__path__), key=lambda item: item.name):
        rule = importlib.import_module(f"{rules.__name__}.{module.name}").RULE
        if rule.id.replace("-", "_") != module.name:
            raise ValueError(f"rule {rule.id} must live in {rule.id.replace('-', '_')}.py")
        found.append(rule)
    return tuple(found)


def comparisons() -> list[Comparison]:
    return [rule for rule in _all() if isinstance(rule, Comparison)]


def attacks() -> list[Attack]:
    return [rule for rule in _all() if isinstance(rule, Attack)]
