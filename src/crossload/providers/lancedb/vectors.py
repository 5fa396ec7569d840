"""The Vectors port over LanceDB: one table per index, one version per load, float32 bits kept.

Tables that we load have `id`, `vector` and `payload` (canonical JSON: a table's columns are fixed before its first row,
and payloads differ from row to row). Tables of others are read as well: a column `id`, the first column of float32
vectors, and every other column becomes a field of the payload."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, time
from decimal import Decimal
from typing import Any

import pyarrow as pa

from crossload.ports import errors
from crossload.ports.provider import Settings
from crossload.ports.vectors import Block, IndexInfo, block_rows, in_order, payload_bytes, vector_bytes

_DISTANCES = {"cosine": "cosine", "l2": "l2", "ip": "dot"}
_METRICS = {distance: metric for metric, distance in _DISTANCES.items()}
_NOTE = b"crossload"
_PAYLOAD = "payload"
_ROWID = "_rowid"


def open_vectors(settings: Settings) -> LanceVectors:
    return LanceVectors(settings)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """LanceDB raises built-in exceptions; only their words tell them apart."""
    try:
        yield
    except errors.CrossloadError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise errors.Unavailable(str(error), hint="check `uri` of this place") from error
    except PermissionError as error:
        raise errors.AccessDenied(str(error)) from error
    except (ValueError, RuntimeError, OSError, NotImplementedError) as error:
        raise _named(str(error)) from error


def _named(text: str) -> errors.CrossloadError:
    low = text.lower()
    if "was not found" in low or "table not found" in low:
        return errors.NotFound(text)
    if "permission denied" in low or "forbidden" in low:
        return errors.AccessDenied(text)
    if "lanceerror(io)" in low and "arrow error" not in low:
        return errors.Unavailable(text)
    return errors.Invalid(text)


class LanceVectors:
    wire = ""

    def __init__(self, settings: Settings) -> None:
        self.place = settings.place.id
        self._uri = settings.require("uri")
        self._db: Any = None

    def _connected(self) -> Any:
        if self._db is None:
            os.environ.setdefault("LANCEDB_LOG", "error")  # it talks on stderr of every table it makes
            self._db = importlib.import_module("lancedb").connect(self._uri)
        return self._db

    def _table(self, name: str) -> Any:
        return self._connected().open_table(name)

    def indexes(self) -> list[IndexInfo]:
        names: list[str] = []
        with translated():
            page = self._connected().list_tables()
            names += page.tables
            while page.page_token:
                page = self._connected().list_tables(page_token=page.page_token)
                names += page.tables
            found = [(name, self._table(name)) for name in sorted(names)]
            return [self._described(name, table) for name, table in found if _vector_field(table.schema) is not None]

    def describe(self, name: str) -> IndexInfo:
        with translated():
            return self._described(name, self._table(name))

    def _described(self, name: str, table: Any) -> IndexInfo:
        field = _needed_vector(name, table.schema)
        noted = _noted(table.schema)
        metric, kind, params = noted.get("metric", "l2"), "none", dict[str, str]()
        for index in table.list_indices():
            if field.name in index.columns and "Ivf" in index.index_type:
                kind = "hnsw" if "Hnsw" in index.index_type else "ivfflat"
                stats = table.index_stats(index.name)
                metric = _METRICS.get(str(stats.distance_type), metric) if stats is not None else metric
                params = _params(getattr(index, "index_details", None) or {})
        told = {key: str(noted.get(key, "unknown")) for key in ("model", "model_revision")}
        return IndexInfo(name, field.type.list_size, table.count_rows(), metric, kind, params, **told)

    def precision(self, metric: str) -> str:
        return "exact"

    def export(self, name: str, *, after: str = "", wire: str = "") -> Iterator[Block]:
        """One version of the table. Ids are read first and sorted here (some hundred bytes each), then rows."""
        with translated():
            table = self._table(name)
            table.checkout(table.version)
            field = _needed_vector(name, table.schema)
            if "id" not in table.schema.names:
                raise errors.Invalid(f"table {name} has no column `id`", hint="add one that names every row")
            listed = table.search().select(["id"]).with_row_id(True).to_arrow()
            ids = [str(held) for held in listed.column("id").to_pylist()]
            numbers = listed.column(_ROWID).to_pylist()
            # Code points sort as their UTF-8 bytes do.
            order = [at for at in sorted(range(len(ids)), key=ids.__getitem__) if ids[at] > after]
            many = block_rows(field.type.list_size)
            for begin in range(0, len(order), many):
                wanted = [numbers[at] for at in order[begin : begin + many]]
                yield _block(table.take_row_ids(wanted).to_arrow(), field, ours=_noted(table.schema) != {})

    def load(self, info: IndexInfo, blocks: Iterable[Block]) -> int:
        """A new version of the table, which readers see when its last row is written."""
        if info.metric not in _DISTANCES:
            raise errors.Unsupported(f"no metric {info.metric} here", hint=f"one of: {', '.join(_DISTANCES)}")
        schema = _schema(info)
        broken: list[BaseException] = []
        count = 0

        def batches() -> Iterator[Any]:
            nonlocal count
            try:
                for block in in_order(blocks, info.dimension):
                    yield _batch(block, schema)
                    count += len(block.ids)
            except BaseException as error:
                broken.append(error)  # Arrow would turn it into words of its own
                raise

        try:
            with translated():
                reader = pa.RecordBatchReader.from_batches(schema, batches())
                self._connected().create_table(info.name, data=reader, mode="overwrite")
        except errors.CrossloadError:
            if broken:
                raise broken[0] from None
            raise
        return count

    def build(self, info: IndexInfo) -> None:
        """hnsw: a graph over unquantised vectors, in one partition. ivfflat: lists as `lists` says."""
        with translated():
            table = self._table(info.name)
            now = self._described(info.name, table)
            if info.kind == "none" or now.rows == 0 or (now.kind, now.metric) == (info.kind, info.metric):
                return
            makers = importlib.import_module("lancedb.index")
            distance = _DISTANCES.get(info.metric)
            if distance is None or info.kind not in ("hnsw", "ivfflat"):
                raise errors.Unsupported(f"no index of kind {info.kind} and metric {info.metric}", hint="hnsw, ivfflat")
            if info.kind == "hnsw":
                sizes = {key: int(info.params[key]) for key in ("m", "ef_construction") if key in info.params}
                config = makers.HnswFlat(distance_type=distance, num_partitions=1, **sizes)
            else:
                lists = min(int(info.params.get("lists", "1")), now.rows)
                config = makers.IvfFlat(distance_type=distance, num_partitions=lists)
            table.create_index(_needed_vector(info.name, table.schema).name, config=config)

    def search(self, name: str, vectors: Sequence[bytes], k: int, *, exact: bool = False) -> list[list[str]]:
        with translated():
            table = self._table(name)
            info = self._described(name, table)
            column = _needed_vector(name, table.schema).name
            found: list[list[str]] = []
            for vector in vector_bytes(vectors, info):
                values = pa.Array.from_buffers(pa.float32(), info.dimension, [None, pa.py_buffer(vector)]).to_pylist()
                query = table.search(values, vector_column_name=column).distance_type(_DISTANCES[info.metric])
                if exact or info.kind == "none":
                    query = query.bypass_vector_index()
                elif info.kind == "hnsw":
                    query = query.ef(max(2 * k, 100))
                answer = query.limit(k).select(["id", "_distance"]).to_arrow()
                pairs = zip(answer.column("_distance").to_pylist(), answer.column("id").to_pylist(), strict=True)
                found.append([str(row) for _, row in sorted(pairs)])
        return found

    def drop(self, name: str) -> None:
        with contextlib.suppress(errors.NotFound), translated():
            self._connected().drop_table(name)


def _vector_field(schema: Any) -> Any:
    """The first column of float32 vectors; None when the table has none."""
    for field in schema:
        if pa.types.is_fixed_size_list(field.type) and field.type.value_type == pa.float32():
            return field
    return None


def _needed_vector(name: str, schema: Any) -> Any:
    field = _vector_field(schema)
    if field is None:
        raise errors.NotFound(f"table {name} has no column of float32 vectors")
    return field


def _schema(info: IndexInfo) -> Any:
    note = {"metric": info.metric, "model": info.model, "model_revision": info.model_revision}
    fields = [
        pa.field("id", pa.string(), nullable=False),
        pa.field("vector", pa.list_(pa.float32(), info.dimension), nullable=False),
        pa.field(_PAYLOAD, pa.string(), nullable=False),
    ]
    return pa.schema(fields, metadata={_NOTE: json.dumps(note)})


def _noted(schema: Any) -> dict[str, Any]:
    try:
        return json.loads((schema.metadata or {}).get(_NOTE, b"{}"))
    except ValueError:
        return {}


def _params(details: Mapping[str, Any]) -> dict[str, str]:
    graph = details.get("hnsw") or {}
    named = {"m": graph.get("max_connections"), "ef_construction": graph.get("construction_ef")}
    return {key: str(value) for key, value in named.items() if value is not None}


def _batch(block: Block, schema: Any) -> Any:
    flat = pa.Array.from_buffers(pa.float32(), len(block.vectors) // 4, [None, pa.py_buffer(block.vectors)])
    compute: Any = importlib.import_module("pyarrow.compute")
    if not compute.all(compute.is_finite(flat)).as_py():
        raise errors.Invalid("a vector holds NaN or infinity", hint="mend or leave out the row at the source")
    values = pa.FixedSizeListArray.from_arrays(flat, type=schema.field("vector").type)
    texts = pa.array([payload.decode() for payload in block.payloads], pa.string())
    return pa.record_batch([pa.array(block.ids, pa.string()), values, texts], schema=schema)


def _block(rows: Any, field: Any, *, ours: bool) -> Block:
    """Rows that were taken by number, in the order of their ids."""
    held = [str(name) for name in rows.column("id").to_pylist()]
    rows = rows.take(pa.array(sorted(range(len(held)), key=held.__getitem__))).combine_chunks()
    column = rows.column(field.name)
    if column.null_count:
        raise errors.Invalid("a row has no vector", hint="mend or leave out the row at the source")
    flat = pa.concat_arrays([chunk.flatten() for chunk in column.chunks])
    data = bytes(memoryview(flat.buffers()[1])[4 * flat.offset : 4 * (flat.offset + len(flat))])
    ids = sorted(held)
    if ours:
        return Block(ids, data, [text.encode() for text in rows.column(_PAYLOAD).to_pylist()])
    others = rows.drop_columns([name for name in rows.column_names if name in ("id", field.name, _ROWID)])
    kept = [{key: _plain(value) for key, value in row.items()} for row in others.to_pylist()]
    return Block(ids, data, [payload_bytes(row, name) for row, name in zip(kept or [{}] * len(ids), ids, strict=True)])


def _plain(value: Any) -> Any:
    """A column's value as JSON has it: dates and times as ISO 8601, decimals as numbers."""
    match value:
        case date() | time():
            return value.isoformat()
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case bytes():
            raise errors.Invalid("a column of raw bytes cannot become JSON", hint="leave the column out at the source")
        case dict():
            return {str(key): _plain(inner) for key, inner in value.items()}
        case list():
            return [_plain(inner) for inner in value]
        case _:
            return value
