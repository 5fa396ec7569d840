"""`HOME/env`: the addresses other programs need, one KEY=VALUE a line. Secrets are files beside it, never in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from crossload.lab.site import Site, write_public
from crossload.lab.table import all_servers

ENV_FILE = "env"


def render_env(site: Site, started: Iterable[str]) -> dict[str, str]:
    """Key -> value for every started server that is installed here."""
    values = {"CROSSLOAD_LAB_HOME": str(site.home)}
    for name in started:
        row = all_servers().get(name)
        if row is not None and row.missing() is None:
            values |= row.exports(site.seen_by(name))
    return values


def write_env(site: Site, started: Iterable[str]) -> None:
    """Write the file when its content changed: readers may hold it open at any moment."""
    text = "".join(f"{key}={value}\n" for key, value in sorted(render_env(site, started).items()))
    path = site.home / ENV_FILE
    if not path.exists() or path.read_text() != text:
        write_public(path, text)


def read_env(home: Path) -> Mapping[str, str]:
    """Key -> value; raises FileNotFoundError when the lab was never up in this home."""
    lines = (home / ENV_FILE).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)
