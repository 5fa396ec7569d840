"""What the team's code names: assets and hosted models, found in its text. Pure; the caller reads the files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from crossload.estate.asset import Asset, Edge, Kind

_LITERAL = re.compile(r"""["']([^"'\n]{3,200})["']""")
_WORD = re.compile(r"[A-Za-z0-9][\w./:@-]{2,200}")
_SEPARATORS = frozenset("-._/:0123456789")
_RELATION = {
    Kind.ENDPOINT: "calls", Kind.FUNCTION: "calls", Kind.QUEUE: "calls", Kind.AGENT: "calls", Kind.DATASET: "reads",
    Kind.TABLE: "reads", Kind.SECRET: "reads", Kind.INDEX: "reads",
}  # fmt: skip
LANGUAGES = {".py": "python", ".ts": "typescript", ".js": "javascript", ".go": "go", ".java": "java", ".rs": "rust"}


def language_of(paths: Iterable[str]) -> str:
    """The language most files are in, "unknown" when none is known."""
    counts: dict[str, int] = {}
    for path in paths:
        name = LANGUAGES.get(PurePosixPath(path).suffix)
        if name:
            counts[name] = counts.get(name, 0) + 1
    return max(sorted(counts), key=lambda name: counts[name]) if counts else "unknown"


def mentions(app: str, files: Mapping[str, str], assets: Iterable[Asset]) -> list[Edge]:
    """Edges from asset id `app` to what its files (path -> text) name, one per asset, with the first place as evidence.

    A name with a separator or digit (`helpdesk-docs`) counts wherever it stands; a plain word (`chunks`) only as a
    whole string literal, because prose uses it too."""
    by_name: dict[str, list[Asset]] = {}
    for asset in assets:
        if asset.kind in _RELATION and len(asset.name) >= 3:
            by_name.setdefault(asset.name, []).append(asset)
    found: dict[str, Edge] = {}
    for path in sorted(files):
        for number, line in enumerate(files[path].splitlines(), 1):
            names = set(_LITERAL.findall(line))
            names |= {word.rstrip(".:/") for word in _WORD.findall(line) if _SEPARATORS & set(word)}
            for name in sorted(names & by_name.keys()):
                for asset in by_name[name]:
                    evidence = f"{path}:{number} names {name}"
                    found.setdefault(asset.id, Edge(app, _RELATION[asset.kind], asset.id, evidence))
    return sorted(found.values())


def through_roles(app: str, name: str, assets: Iterable[Asset], edges: Iterable[Edge]) -> list[Edge]:
    """What the app may do because of the role it runs as: a role whose name has the app's name as one of its words."""
    words = re.compile(rf"(^|[-_/.]){re.escape(name)}($|[-_/.])")
    roles = [asset for asset in assets if asset.kind is Kind.ROLE and words.search(asset.name)]
    out: list[Edge] = []
    for role in roles:
        out.append(Edge(app, "runs-as", role.id, "by name"))
        out += [Edge(app, e.relation, e.target, f"through {role.id}") for e in edges if e.source == role.id]
    return sorted(set(out))
