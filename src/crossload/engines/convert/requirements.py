"""The application's list of packages: what is missing is added as lines at the end."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from crossload.engines.convert.edit import Edit

LISTS = ("requirements.txt", "requirements.in")


def requirement_edits(root: Path, wanted: Sequence[str]) -> tuple[str, list[Edit], list[str]]:
    """(path of the list or "", edits, what is missing). Nothing is missing when a list names every package."""
    for name in LISTS:
        path = root / name
        if path.is_file():
            text = path.read_bytes()
            missing = [
                line for line in wanted if package_name(line) not in names_listed(text.decode("utf-8", "replace"))
            ]
            if not missing:
                return name, [], []
            start = b"" if not text or text.endswith(b"\n") else b"\n"
            added = start + "".join(f"{line}\n" for line in missing).encode()
            return name, [Edit(len(text), len(text), added)], missing
    project = root / "pyproject.toml"
    listed = names_listed(project.read_text(encoding="utf-8", errors="replace")) if project.is_file() else set[str]()
    return "", [], [line for line in wanted if package_name(line) not in listed]


def package_name(line: str) -> str:
    """The normalised name (PEP 503) of a requirement line."""
    found = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line.strip().strip("\"'"))
    return re.sub(r"[-_.]+", "-", found[0]).lower() if found else ""


def names_listed(text: str) -> set[str]:
    return {package_name(line) for line in text.splitlines() if line.strip() and not line.strip().startswith("#")}
