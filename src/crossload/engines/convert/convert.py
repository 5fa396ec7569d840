"""From a scan to a conversion: which calls are carried, which are not, and the edits that carry them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from crossload.engines.convert.adapter import Part, compose
from crossload.engines.convert.calls import ADAPTER_MODULE, NeutralCall
from crossload.engines.convert.edit import Edit, apply, changed_outside, unified_diff
from crossload.engines.convert.grammar import parse
from crossload.engines.convert.judge import Verdict, judge
from crossload.engines.convert.requirements import requirement_edits
from crossload.engines.convert.scan import Scan, scan
from crossload.engines.convert.sites import adapter_path, site_edits
from crossload.estate.diagnostic import Diagnostic
from crossload.ports import portable
from crossload.ports.code import Reading, Setting, Writing
from crossload.ports.errors import Stale


@dataclass(frozen=True, slots=True)
class Conversion:
    """What would change. `before` has None for a file that is new; `after` holds only files that change.

    `carried` are the calls that the adapter answers at the target; `requirements` the packages that the application
    needs in addition; `settings` the variables that the adapter reads."""

    found: Scan
    carried: tuple[NeutralCall, ...]
    before: Mapping[str, bytes | None]
    after: Mapping[str, bytes]
    edits: Mapping[str, tuple[Edit, ...]]
    diagnostics: tuple[Diagnostic, ...]
    requirements: tuple[str, ...] = ()
    settings: tuple[Setting, ...] = ()
    services: tuple[str, ...] = ()

    @property
    def changed_outside(self) -> int:
        """Bytes that differ outside the edits, counted anew from the texts."""
        return sum(changed_outside(self.before[path] or b"", self.after[path], self.edits[path]) for path in self.edits)

    @property
    def diff(self) -> str:
        return unified_diff(self.before, self.after)

    def write(self, root: Path) -> list[str]:
        """Write the changed files below `root`; returns their paths. Raises Stale, before anything is written, when
        a file is no longer what was scanned."""
        changed = [path for path, old in self.before.items() if _content(root / path) != old]
        if changed:
            raise Stale(f"changed since the scan: {', '.join(sorted(changed))}", hint="scan and convert again")
        for path, data in sorted(self.after.items()):
            _replace(root / path, data)
        return sorted(self.after)


def convert(root: Path, reading: Reading, writings: Sequence[Writing], found: Scan | None = None) -> Conversion:
    """Plan the portable form of the application below `root`. Reads files, writes none.

    Call sites, tests and error handling stay as they are: only the constructors of the clients that move are
    redirected to an adapter of the source's shape. A second conversion of its own result changes nothing."""
    found = found or scan(root, reading)
    verdict = judge(found, reading, writings)
    plan = _Plan(root, found)
    for path, edits in site_edits(found, verdict.origins, reading).items():
        plan.edit(path, edits)
    adapters = sorted({adapter_path(found.index, origin.path) for origin in verdict.homes})
    text = adapter_text(verdict, reading, writings) if adapters else ""
    for path in adapters:
        plan.new(path, text.encode())
    diagnostics = [*found.problems, *verdict.diagnostics]
    wanted = tuple(sorted({line for writing in verdict.writings for line in writing.requirements})) if adapters else ()
    if wanted:
        path, edits, missing = requirement_edits(root, wanted)
        if path:
            plan.edit(path, edits)
        elif missing:
            diagnostics.append(
                Diagnostic.note(
                    "XL708",
                    f"the application needs {', '.join(missing)} in addition",
                    subject=str(root.name),
                    hint="add it where the application's dependencies are listed",
                )
            )
    settings = {setting.name: setting for writing in verdict.writings for setting in writing.settings}
    ordered = tuple(sorted(diagnostics, key=lambda item: (item.subject, item.line, item.column, item.code)))
    return Conversion(
        found, verdict.carried, plan.before, plan.after, plan.edits, ordered, wanted, tuple(settings.values()),
        tuple(sorted({call.service for call in verdict.carried})),
    )  # fmt: skip


@dataclass(slots=True)
class _Plan:
    root: Path
    found: Scan
    before: dict[str, bytes | None] = field(default_factory=dict)
    after: dict[str, bytes] = field(default_factory=dict)
    edits: dict[str, tuple[Edit, ...]] = field(default_factory=dict)

    def edit(self, path: str, edits: Sequence[Edit]) -> None:
        if not edits:
            return
        file = self.found.index.files.get(path)
        old = file.source if file is not None else (self.root / path).read_bytes()
        new = apply(old, edits)
        if file is not None and parse(new).has_error and not file.root.has_error:
            raise AssertionError(f"{path}: the edited file no longer parses")
        self.before[path], self.after[path], self.edits[path] = old, new, tuple(sorted(set(edits)))

    def new(self, path: str, data: bytes) -> None:
        compile(data, path, "exec")
        old = _content(self.root / path)
        if old != data:
            self.before[path], self.after[path] = old, data


def adapter_text(verdict: Verdict, reading: Reading, writings: Sequence[Writing]) -> str:
    """The adapter's source: the front's methods for the calls that are carried, over the targets' backs."""
    groups = {call.op.partition(".")[0] for call in verdict.carried}
    used = [writing for writing in writings if writing.group in groups]
    fronts = {group: front for group, front in reading.fronts.items() if group in groups}
    members = {call.method for call in verdict.carried}
    members |= {fronts[call.op.partition(".")[0]].paginator for call in verdict.carried if call.paginated}
    members |= verdict.extra_members
    rows = "".join(
        f'    "{front.service}": lambda: {front.class_name}({writing.class_name}()),\n'
        for writing in used
        for front in [fronts[writing.group]]
    )
    comment = "# Service -> what answers for it at the target.\n"
    table = f"{comment}{reading.table}: dict[str, Callable[[], Any]] = {{\n{rows}}}\n"
    parts = [Part("Neutral words, spoken by both halves.", Path(portable.__file__).read_text(encoding="utf-8"))]
    parts += [Part(f"The target: {writing.name}.", writing.part()) for writing in used]
    parts.append(Part(f"The source's shape: {reading.name}.", reading.part()))
    roots = [reading.table, reading.dispatch] + ([reading.session_dispatch] if verdict.sessions else [])
    cut = [front.class_name for front in fronts.values()] + [writing.class_name for writing in used]
    return compose(parts, roots, members, cut, {reading.table: table}, _docstring(reading, used))


def _docstring(reading: Reading, writings: Sequence[Writing]) -> str:
    settings = {setting.name: setting for writing in writings for setting in writing.settings}
    lines = [
        f"{reading.name} clients that can answer from another cloud.",
        "",
        "Written by Crossload: convert again instead of editing.",
        "At the source nothing changes. With CROSSLOAD_CLOUD=target the services below are answered by:",
        *(f"- {writing.group}: {writing.name}" for writing in writings),
        "",
        "Settings at the target (a secret is a reference, `file:PATH` or `env:NAME`):",
        "- CROSSLOAD_CLOUD: source (default) or target",
        *(f"- {setting.name}: {setting.meaning}" for setting in settings.values()),
    ]
    return "\n".join(lines) + "\n"


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _replace(path: Path, data: bytes) -> None:
    """Whole or not at all: nobody may import half a module. The file keeps its mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        temporary.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


__all__ = ["ADAPTER_MODULE", "Conversion", "adapter_text", "convert"]
