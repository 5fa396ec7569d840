"""Models and their registries: read a layout, point its artifact addresses at the target, move every digest once.

`read_model_layout` and `rewrite` are pure over a listing and reads. `move_model` uses both, and two Store ports."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from crossload.engines.mover.model_card import TEXT_BYTES_MAX, ModelCard, ModelFile, ModelRow, Reader, Reading
from crossload.engines.mover.model_layouts import (
    archive_rows,
    archives_in,
    check_shards,
    hub_rows,
    is_hub_cache,
    nobodys,
)
from crossload.engines.mover.model_rows import META, URI_FIELDS, is_tracking_store, rows_of
from crossload.estate.digest import sha256_of
from crossload.ports.errors import DigestMismatch, Invalid, NotFound, PreconditionFailed, Refused
from crossload.ports.store import ObjectInfo, ObjectMeta, Part, Store

_PART_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Rewrite:
    """One address that was changed: evidence. `line` counts from 1."""

    key: str
    field: str
    line: int
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Rewritten:
    """`files` are the new bytes of files in which an address was changed; everything else stays byte-equal. `rows` are
    the card's, with the same addresses changed. `uncovered` are absolute addresses that no root covers, `mentions`
    small files that speak of an old root in other places: they are left as they are."""

    files: Mapping[str, bytes]
    rows: tuple[ModelRow, ...]
    changes: tuple[Rewrite, ...] = ()
    uncovered: tuple[str, ...] = ()
    mentions: tuple[str, ...] = ()


@dataclass(slots=True)
class ModelReport:
    """`files` maps target keys to the sha256 there; `trust` is reread (every file was read back) or sent."""

    layout: str
    source: str
    target: str
    files: dict[str, str] = field(default_factory=dict)
    found: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    trust: str = "reread"
    changes: list[dict[str, Any]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    uncovered: list[str] = field(default_factory=list)
    mentions: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def read_model_layout(
    files: Iterable[ObjectInfo], reader: Reader, *, known: Mapping[str, str] | None = None
) -> ModelCard:
    """What a listing holds: a hub's cache, a tracking store with its registry, archives, or plain files with shards.

    `reader(key, start, length)` gives bytes. Every file is read once for its sha256, except those of `known` (key to
    sha256, as a copy of the bucket has computed it); of these only what the layout needs is read. Raises Invalid for an
    empty listing."""
    listed = {info.key: info for info in files if not info.key.endswith("/") and not info.is_delete_marker}
    if not listed:
        raise Invalid("there is no file in this listing", hint="check bucket and prefix")
    keys = sorted(listed)
    reading = Reading(listed, reader, known or {})
    left_out = [key for key in keys if nobodys(key)]
    if is_hub_cache(keys):
        rows, layout = hub_rows(reading), "hub"
    elif is_tracking_store(keys):
        rows, layout = rows_of(reading), "mlflow"
    elif archives_in(keys):
        rows, layout = archive_rows(reading), "archive"
    else:
        rows, layout = [], "files"
    check_shards(reading)
    return reading.card(layout, rows, left_out)


def rewrite(
    card: ModelCard, reader: Reader, roots: Mapping[str, str], *, uri: Callable[[str], str] | None = None
) -> Rewritten:
    """Point absolute artifact addresses below the keys of `roots` to the values. Only the fields that hold addresses
    are touched (of meta.yaml and MLmodel), at exactly their place in the text. `uri(key)` names an archive's place at
    the target, for its row."""
    pairs = _pairs(roots)
    changed: dict[str, bytes] = {}
    changes: list[Rewrite] = []
    uncovered: list[str] = []
    mentions: list[str] = []
    for file in card.files if card.layout == "mlflow" else ():
        if file.size_bytes > TEXT_BYTES_MAX or not _is_text(file.key):
            continue
        data = reader(file.key, 0, file.size_bytes)
        made, found, outside = _rewrite_file(file.key, data, pairs)
        changes += found
        uncovered += outside
        if found:
            changed[file.key] = made
        if any(old.encode() in made for old, new in pairs if not new.startswith(old)):
            mentions.append(file.key)
    rows = tuple(_rewrite_row(row, pairs, uri) for row in card.rows)
    return Rewritten(changed, rows, tuple(changes), tuple(uncovered), tuple(mentions))


def move_model(
    source: Store, source_bucket: str, target: Store, target_bucket: str, *, prefix: str = "", target_prefix: str = "",
    roots: Mapping[str, str] | None = None, replace_foreign: bool = False, reread: bool = True,
    moved: Callable[[int, int], None] = lambda files, size_bytes: None,
) -> ModelReport:  # fmt: skip
    """Bring the model below `prefix` over: every digest is read once and written wherever it belongs, weights before
    what makes them visible. Files that are there already are recognised by their bytes, so a killed move goes on.

    `roots` maps old artifact roots to new ones; left out, the source's address of the prefix becomes the target's.
    `target_prefix` takes the place of `prefix`. Raises Invalid when the source is not whole, Refused when other bytes
    stand at a target key, DigestMismatch when the source changed meanwhile, or a store's error."""
    reader = _reader(source, source_bucket)
    card = read_model_layout(source.list(source_bucket, prefix), reader)
    if card.problems:
        raise Invalid(
            f"{source.uri(source_bucket, prefix)} is not whole: {'; '.join(card.problems[:5])}",
            hint="mend or remove what is damaged at the source, then move again",
        )
    there = _TargetSide(target, target_bucket, prefix, target_prefix)
    ends = (source.uri(source_bucket, prefix).rstrip("/"), target.uri(target_bucket, target_prefix).rstrip("/"))
    new = rewrite(card, reader, roots if roots is not None else {ends[0]: ends[1]}, uri=there.uri)
    report = ModelReport(card.layout, *ends, trust="reread" if reread else "sent", left_out=list(card.left_out))
    report.changes, report.rows = [asdict(change) for change in new.changes], [asdict(row) for row in new.rows]
    report.uncovered, report.mentions = list(new.uncovered), list(new.mentions)
    for group in _groups(card, new):
        mover = _Group(source, source_bucket, there, replace_foreign, report, moved)
        mover.move(group, new.files.get(group[0].key))
    if reread:
        for file in card.files:
            there.check(file.key, report.files[there.key(file.key)])
    return report


# -- addresses ---------------------------------------------------------------------------------------------------------


def _pairs(roots: Mapping[str, str]) -> list[tuple[str, str]]:
    """Longest first; an address of this machine is written with and without `file://`."""
    found: dict[str, str] = {}
    for old, new in roots.items():
        found[old.rstrip("/")] = new.rstrip("/")
        if old.startswith("file://"):
            found.setdefault(old.removeprefix("file://").rstrip("/"), new.rstrip("/"))
    return sorted(((old, new) for old, new in found.items() if old), key=lambda pair: -len(pair[0]))


def _moved(value: str, pairs: list[tuple[str, str]]) -> str | None:
    """The new address; None when no root covers this one."""
    for old, new in pairs:
        if value == old or value.startswith(old + "/"):
            return new + value[len(old) :]
    return None


def _is_absolute(value: str) -> bool:
    return value.startswith("/") or ("://" in value and not value.startswith(("mlflow-artifacts:", "models:", "runs:")))


def _is_text(key: str) -> bool:
    name = key.rpartition("/")[2]
    ways = ("/tags/", "/params/", "/aliases/")
    return name in URI_FIELDS or name.endswith((".yaml", ".yml", ".json", ".txt")) or any(way in key for way in ways)


def _rewrite_file(key: str, data: bytes, pairs: list[tuple[str, str]]) -> tuple[bytes, list[Rewrite], list[str]]:
    """(new bytes, changes, absolute addresses that no root covers)."""
    fields = URI_FIELDS.get(key.rpartition("/")[2], ())
    if not fields:
        return data, [], []
    import yaml

    try:
        text = data.decode("utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError):
        return data, [], []
    changes: list[Rewrite] = []
    uncovered: list[str] = []
    places: list[tuple[int, int, str]] = []
    for name, node in root.value if isinstance(root, yaml.MappingNode) else ():
        if name.value not in fields or not isinstance(node, yaml.ScalarNode) or not _is_absolute(node.value):
            continue
        new = _moved(node.value, pairs)
        if new is None:
            uncovered.append(f"{key}: {name.value}: {node.value}")
        elif new != node.value:
            places.append((node.start_mark.index, node.end_mark.index, _scalar(new, node.style)))
            changes.append(Rewrite(key, name.value, node.start_mark.line + 1, node.value, new))
    for start, end, written in sorted(places, reverse=True):
        text = text[:start] + written + text[end:]
    return text.encode(), changes, uncovered


def _scalar(value: str, style: str | None) -> str:
    """A YAML scalar in the style in which the old one stood, or quoted where that style cannot hold it."""
    import json

    if style == "'":
        return "'" + value.replace("'", "''") + "'"
    plain = style is None and not value.startswith(("&", "*", "!", "|", ">", "@", "`", "%", "-", "?", "'", '"'))
    if plain and ": " not in value and " #" not in value and value.strip() == value and "\n" not in value:
        return value
    return json.dumps(value, ensure_ascii=False)


def _rewrite_row(row: ModelRow, pairs: list[tuple[str, str]], uri: Callable[[str], str] | None) -> ModelRow:
    fields = dict(row.fields)
    for name in URI_FIELDS[META]:
        value = fields.get(name)
        if isinstance(value, str) and _is_absolute(value):
            fields[name] = _moved(value, pairs) or value
    if row.kind == "package" and uri is not None:
        fields["artifact_uri"] = uri(str(fields["artifact_key"]))
    return replace(row, fields=fields)


# -- moving ------------------------------------------------------------------------------------------------------------


def _reader(store: Store, bucket: str) -> Reader:
    def read(key: str, start: int, length: int) -> bytes:
        return store.read(bucket, key, start, length) if length else b""

    return read


def _groups(card: ModelCard, new: Rewritten) -> list[list[ModelFile]]:
    """Files with the same bytes together, largest first; what makes a model visible (references, metadata, aliases)
    comes last, and a file that is rewritten stands alone."""
    found: dict[str, list[ModelFile]] = {}
    for file in card.files:
        found.setdefault(f"{file.key}\0" if file.key in new.files else file.sha256, []).append(file)

    def last(group: list[ModelFile]) -> bool:
        key = f"/{group[0].key}"
        return "/refs/" in key or "/aliases/" in key or key.endswith(f"/{META}") or group[0].key in new.files

    return sorted(found.values(), key=lambda group: (last(group), -group[0].size_bytes, group[0].key))


@dataclass(frozen=True, slots=True)
class _TargetSide:
    store: Store
    bucket: str
    prefix: str
    new_prefix: str

    def key(self, key: str) -> str:
        return self.new_prefix + key.removeprefix(self.prefix)

    def uri(self, key: str) -> str:
        return self.store.uri(self.bucket, self.key(key))

    def sha256(self, key: str, size_bytes: int) -> str:
        """What stands there; "" for nothing, "other" for something of another size."""
        try:
            info, _ = self.store.head(self.bucket, self.key(key))
        except NotFound:
            return ""
        return self._read(key, info) if info.size_bytes == size_bytes else "other"

    def check(self, key: str, sha256: str) -> None:
        info, _ = self.store.head(self.bucket, self.key(key))
        found = self._read(key, info)
        if found != sha256:
            raise DigestMismatch(f"{self.uri(key)}: its bytes are sha256:{found}, not sha256:{sha256}")

    def _read(self, key: str, info: ObjectInfo) -> str:
        return Reading({self.key(key): info}, _reader(self.store, self.bucket)).digest(self.key(key))


@dataclass(slots=True)
class _Group:
    """Files of the same bytes: read once, written to all of their keys."""

    source: Store
    source_bucket: str
    there: _TargetSide
    replace_foreign: bool
    report: ModelReport
    moved: Callable[[int, int], None]

    def move(self, group: list[ModelFile], rewritten: bytes | None) -> None:
        first = group[0]
        size = first.size_bytes if rewritten is None else len(rewritten)
        sha256 = first.sha256 if rewritten is None else sha256_of(rewritten).hex
        wanted = [file for file in group if self._is_wanted(file.key, size, sha256)]
        self.report.found += len(group) - len(wanted)
        if wanted and rewritten is not None:
            self._write(wanted[0].key, rewritten)
        elif wanted and size <= _PART_BYTES:
            data = self.source.read(self.source_bucket, first.key, 0, size) if size else b""
            self._same(first, sha256_of(data).hex)
            self.report.read_bytes += size
            for file in wanted:
                self._write(file.key, data)
        elif wanted:
            self._send_parts(first, [file.key for file in wanted])
        for file in group:
            self.report.files[self.there.key(file.key)] = sha256
            self.moved(1, 0)

    def _is_wanted(self, key: str, size_bytes: int, sha256: str) -> bool:
        found = self.there.sha256(key, size_bytes)
        if found and found != sha256 and not self.replace_foreign:
            raise Refused(
                f"{self.there.uri(key)} holds other bytes",
                hint="choose another prefix for the target, or allow what is there to be replaced",
            )
        return found != sha256

    def _same(self, file: ModelFile, sha256: str) -> None:
        if sha256 != file.sha256:
            raise DigestMismatch(f"{self.source.uri(self.source_bucket, file.key)} changed while it was moved")

    def _meta(self, key: str) -> ObjectMeta:
        _, meta = self.source.head(self.source_bucket, key)
        return meta if self.there.store.features.tags else replace(meta, tags={})

    def _write(self, key: str, data: bytes) -> None:
        target, meta = self.there, self._meta(key)
        try:
            target.store.write(target.bucket, target.key(key), data, meta, if_absent=not self.replace_foreign)
        except PreconditionFailed:
            # Our own first try, whose answer was lost, is no stranger.
            if target.sha256(key, len(data)) != sha256_of(data).hex:
                raise
        self.report.written_bytes += len(data)
        self.moved(0, len(data))

    def _send_parts(self, first: ModelFile, keys: list[str]) -> None:
        """Nothing is visible at the target before all parts are there and their digest is right."""
        target, size = self.there, first.size_bytes
        features = target.store.features
        step = max(_PART_BYTES, features.part_size_bytes_min, -(-size // features.parts_max))
        uploads = {key: target.store.open_upload(target.bucket, target.key(key), self._meta(key), size) for key in keys}
        parts: dict[str, list[Part]] = {key: [] for key in keys}
        running = hashlib.sha256()
        try:
            for number, start in enumerate(range(0, size, step), 1):
                data = self.source.read(self.source_bucket, first.key, start, min(step, size - start))
                running.update(data)
                self.report.read_bytes += len(data)
                for key in keys:
                    part = Part(number, start, len(data), "")
                    last = start + len(data) == size
                    sent = target.store.write_part(target.bucket, target.key(key), uploads[key], part, data, last=last)
                    parts[key].append(sent)
                    self.report.written_bytes += len(data)
                    self.moved(0, len(data))
            self._same(first, running.hexdigest())
            absent = not self.replace_foreign
            for key in keys:
                where = target.key(key)
                try:
                    target.store.complete(target.bucket, where, uploads[key], parts[key], if_absent=absent)
                except (PreconditionFailed, NotFound):
                    if target.sha256(key, size) != first.sha256:
                        raise
        except BaseException:
            for key in keys:
                target.store.abort(target.bucket, target.key(key), uploads[key])
            raise
