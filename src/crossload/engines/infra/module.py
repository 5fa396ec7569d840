"""One place's landing module: compose the files, check them, write them, take them back."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from crossload.engines.infra.check import CheckReport, check_files
from crossload.engines.infra.collector import check_collector, collector
from crossload.engines.infra.hcl import render
from crossload.engines.infra.schema import ProviderSchema, read_schema
from crossload.estate.diagnostic import Diagnostic
from crossload.estate.digest import sha256_of
from crossload.ports.infra import Foundations, Infra

COLLECTOR_FILE = "collector.yaml"
_HEADER = (
    "Foundations of {place} for migration {migration}. Written by Crossload; the next `apply` writes it again.\n"
    "Keep your own resources in other files of this folder: they are left alone."
)


@dataclass(frozen=True, slots=True)
class Written:
    """`kept` are files that somebody changed since we wrote them: they were not touched."""

    changed: tuple[str, ...]
    same: tuple[str, ...]
    kept: tuple[str, ...] = ()


def compose(foundations: Foundations, infra: Infra) -> dict[str, str]:
    """File name -> text. The same foundations give the same bytes."""
    header = _HEADER.format(place=foundations.place, migration=foundations.migration)
    files = {name: render(blocks, header) for name, blocks in infra.terraform(foundations).files.items()}
    files[COLLECTOR_FILE] = collector(foundations, infra.telemetry_attributes())
    return dict(sorted(files.items()))


def schemas_of(infra: Infra) -> list[ProviderSchema]:
    data = infra.schema()
    return [] if data is None else [read_schema(data)]


def check_module(files: Mapping[str, str], infra: Infra) -> CheckReport:
    report = check_files(files, schemas_of(infra), infra.constraints())
    extra: list[Diagnostic] = []
    if COLLECTOR_FILE in files:
        extra = check_collector(files[COLLECTOR_FILE], COLLECTOR_FILE)
    return CheckReport(report.diagnostics + tuple(extra), report.against, report.resource_count, report.unchecked)


def digests(files: Mapping[str, str]) -> dict[str, str]:
    return {name: str(sha256_of(text.encode())) for name, text in files.items()}


def write(folder: Path, files: Mapping[str, str], known: Mapping[str, str]) -> Written:
    """Write what differs. `known` maps names to digests of an earlier write: a file that is there and is not as we left
    it belongs to a person, so it is kept and told."""
    folder.mkdir(parents=True, exist_ok=True)
    changed: list[str] = []
    same: list[str] = []
    kept: list[str] = []
    for name, text in files.items():
        path = folder / name
        have = read_digest(path)
        if have == str(sha256_of(text.encode())):
            same.append(name)
        elif have is not None and have != known.get(name):
            kept.append(name)
        else:
            _replace(path, text)
            changed.append(name)
    return Written(tuple(changed), tuple(same), tuple(kept))


def remove(folder: Path, known: Mapping[str, str]) -> Written:
    """Remove the files we wrote and nobody changed; the folder too when nothing else is in it."""
    gone: list[str] = []
    kept: list[str] = []
    for name, digest in known.items():
        path = folder / name
        have = read_digest(path)
        if have is None:
            continue
        if have == digest:
            path.unlink()
            gone.append(name)
        else:
            kept.append(name)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    return Written(tuple(gone), (), tuple(kept))


def read_files(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Those that exist and are text."""
    out: dict[str, str] = {}
    for name in names:
        try:
            out[name] = (folder / name).read_text(encoding="utf-8")
        except (FileNotFoundError, UnicodeDecodeError):
            continue
    return out


def read_digest(path: Path) -> str | None:
    try:
        return str(sha256_of(path.read_bytes()))
    except FileNotFoundError:
        return None


def _replace(path: Path, text: str) -> None:
    """Whole or not at all: half a module would be applied as if it were meant."""
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, prefix=f".{path.name}.", delete=False, encoding="utf-8"
    ) as out:
        out.write(text)
        scratch = Path(out.name)
    scratch.chmod(0o644)
    scratch.replace(path)
