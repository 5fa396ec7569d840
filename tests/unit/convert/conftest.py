"""Applications of a few lines, written to a folder."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from crossload.ports.code import Reading, Writing

Project = Callable[[Mapping[str, str]], Path]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Write files (path -> text) and return their folder."""

    def write(files: Mapping[str, str]) -> Path:
        root = tmp_path / "project"
        for name, text in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8", newline="")
        return root

    return write


@pytest.fixture(scope="session")
def reading() -> Reading:
    from crossload.providers.aws.code import READING

    return READING


@pytest.fixture(scope="session")
def writings() -> list[Writing]:
    from crossload.providers.gcp.code import WRITING as OBJECTS
    from crossload.providers.openai.code import WRITING as CHAT

    return [OBJECTS, CHAT]
