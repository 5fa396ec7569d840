"""The Vectors port over Qdrant, through its official client.

Points are named by UUIDs there: ours are made from the row's id (UUID version 5), and the id itself stays in the
payload under `_crossload`. A collection of cosine distance normalises its vectors, so that bits change; the length goes
into `_crossload` as well, and rows come out with it. Indexes are loaded into one of two collections behind an alias of
the index's name, and the alias is moved when the last row is there."""

from __future__ import annotations

import contextlib
import itertools
import json
import struct
import uuid
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy
from qdrant_client import QdrantClient, models

from crossload.ports import errors
from crossload.ports.provider import Settings
from crossload.ports.vectors import Block, IndexInfo, block_rows, in_order, payload_bytes, vector_bytes
from crossload.providers.qdrant.errors import translated

_DISTANCES = {"cosine": models.Distance.COSINE, "l2": models.Distance.EUCLID, "ip": models.Distance.DOT}
_METRICS = {distance: metric for metric, distance in _DISTANCES.items()}
_OURS = "_crossload"
_NAMES = uuid.UUID("6a4b1c64-6b0f-5d5e-9f50-0c2d7a1a5a51")  # our own namespace of names
_SLOTS = ("--a", "--b")
_ROWS_TOGETHER = 256
_INT64 = 2**63
_TIMEOUT_SECONDS = 120
_local: dict[str, QdrantClient] = {}  # the local mode locks its folder, so that one process has one client of it


def open_vectors(settings: Settings) -> QdrantVectors:
    path = settings.get("path")
    if path:
        if path not in _local:
            with translated():
                _local[path] = QdrantClient(path=path, force_disable_check_same_thread=True)
        return QdrantVectors(settings.place.id, _local[path], served=False)
    url, key = settings.require("url"), settings.get("key")
    with translated():
        client = QdrantClient(
            url=url, api_key=key or None, timeout=_TIMEOUT_SECONDS, check_compatibility=False
        )  # asking for the version would raise, and warn, before anybody wants anything
    return QdrantVectors(settings.place.id, client)


class QdrantVectors:
    wire = ""

    def __init__(self, place: str, client: QdrantClient, *, served: bool = True) -> None:
        """`served` is False for the client's local mode, which searches exactly and warns of parameters."""
        self.place = place
        self._client = client
        self._served = served

    def _aliases(self) -> dict[str, str]:
        return {alias.alias_name: alias.collection_name for alias in self._client.get_aliases().aliases}

    def _collection(self, name: str) -> str:
        """The collection behind an index's name. Raises NotFound."""
        held = self._aliases().get(name, name)
        if not self._client.collection_exists(held):
            raise errors.NotFound(f"no collection {name}")
        return held

    def indexes(self) -> list[IndexInfo]:
        with translated():
            aliases = self._aliases()
            held = {name: name for name in (one.name for one in self._client.get_collections().collections)}
            held = {name: to for name, to in held.items() if not (name.endswith(_SLOTS) and self._noted(name))}
            # Aliases of others are second names of collections that are listed; ours stand for the one behind them.
            ours = {name: to for name, to in aliases.items() if to in [name + end for end in _SLOTS]}
            held = {name: to for name, to in held.items() if name not in ours.values()} | ours
            found: list[IndexInfo] = []
            for name, to in sorted(held.items()):
                with contextlib.suppress(
                    errors.NotFound
                ):  # several vectors to a point, or none: no index as we mean it
                    found.append(self._described(name, to))
            return found

    def describe(self, name: str) -> IndexInfo:
        with translated():
            return self._described(name, self._collection(name))

    def _noted(self, collection: str) -> dict[str, Any]:
        held = (self._client.get_collection(collection).config.metadata or {}).get("crossload")
        return held if isinstance(held, dict) else {}

    def _described(self, name: str, collection: str) -> IndexInfo:
        config = self._client.get_collection(collection).config
        vectors = config.params.vectors
        if not isinstance(vectors, models.VectorParams) or vectors.distance not in _METRICS:
            raise errors.NotFound(f"collection {name} has no single unnamed vector of a known distance")
        noted = self._noted(collection)
        graph = config.hnsw_config
        # The local mode keeps no configuration of the graph: what we noted stands for it.
        kind = noted.get("kind") or ("hnsw" if graph.m else "none")
        params = {} if kind == "none" else dict(noted.get("params") or {})
        if kind == "hnsw" and not noted:
            params = {"m": str(graph.m), "ef_construction": str(graph.ef_construct)}
        told = {key: str(noted.get(key, "unknown")) for key in ("model", "model_revision")}
        count = self._client.count(collection, exact=True).count
        return IndexInfo(name, vectors.size, count, _METRICS[vectors.distance], kind, params, **told)

    def precision(self, metric: str) -> str:
        return "float32" if metric == "cosine" else "exact"

    def export(self, name: str, *, after: str = "", wire: str = "") -> Iterator[Block]:
        """Ids first, sorted here (some hundred bytes of memory each), then points by their ids. There are no snapshots
        to read from: raises Stale when a point goes away meanwhile."""
        with translated():
            collection = self._collection(name)
            info = self._described(name, collection)
            listed = sorted(item for item in self._listed(collection) if item[0] > after)
            many = min(_ROWS_TOGETHER, block_rows(info.dimension))
            for begin in range(0, len(listed), many):
                wanted = listed[begin : begin + many]
                found = {
                    str(point.id): point
                    for point in self._client.retrieve(
                        collection, [point for _, point in wanted], with_payload=True, with_vectors=True
                    )
                }
                if len(found) != len(wanted):
                    raise errors.Stale(f"rows of {name} went away while it was read", hint="run again")
                yield _block([(row, found[str(point)]) for row, point in wanted])

    def _listed(self, collection: str) -> Iterator[tuple[str, Any]]:
        """(id, the point's own id) of every row, in no order we know. A point of others is named by its own id."""
        offset: Any = None
        while True:
            points, offset = self._client.scroll(
                collection, limit=10_000, offset=offset, with_payload=[_OURS], with_vectors=False
            )
            for point in points:
                yield str(((point.payload or {}).get(_OURS) or {}).get("id", point.id)), point.id
            if offset is None:
                return

    def load(self, info: IndexInfo, blocks: Iterable[Block]) -> int:
        """Into the collection that the alias does not point to. A collection of others by this very name is removed
        when all rows are there: between that and the alias nobody finds the index, for the time of one request."""
        if info.metric not in _DISTANCES:
            raise errors.Unsupported(f"no metric {info.metric} here", hint=f"one of: {', '.join(_DISTANCES)}")
        with translated():
            now = self._aliases().get(info.name, "")
            slot = info.name + next(end for end in _SLOTS if info.name + end != now)
            self._client.delete_collection(slot)
            note = {"kind": "none", "params": {}, "model": info.model, "model_revision": info.model_revision}
            self._client.create_collection(
                slot, vectors_config=models.VectorParams(size=info.dimension, distance=_DISTANCES[info.metric]),
                hnsw_config=models.HnswConfigDiff(m=0), metadata={"crossload": note},
            )  # fmt: skip
            try:
                count = sum(self._sent(slot, block, info) for block in in_order(blocks, info.dimension))
            except BaseException:
                with contextlib.suppress(Exception):
                    self._client.delete_collection(slot)
                raise
            changes: list[models.AliasOperations] = []
            if now:
                changes.append(models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=info.name)))
            elif self._client.collection_exists(info.name):
                self._client.delete_collection(info.name)
            made = models.CreateAlias(collection_name=slot, alias_name=info.name)
            self._client.update_collection_aliases([*changes, models.CreateAliasOperation(create_alias=made)])
            if now:
                self._client.delete_collection(now)
        return count

    def _sent(self, collection: str, block: Block, info: IndexInfo) -> int:
        values = numpy.frombuffer(block.vectors, "<f4").reshape(len(block.ids), info.dimension)
        if not numpy.isfinite(values).all():
            raise errors.Invalid("a vector holds NaN or infinity", hint="mend or leave out the row at the source")
        lengths = numpy.sqrt((values.astype("f8") ** 2).sum(1)) if info.metric == "cosine" else None
        rows = zip(block.ids, values, block.payloads, itertools.count())
        while together := list(itertools.islice(rows, _ROWS_TOGETHER)):
            points = [
                models.PointStruct(
                    id=str(uuid.uuid5(_NAMES, row)), vector=vector.tolist(),
                    payload=_payload(row, json.loads(payload), None if lengths is None else float(lengths[number])),
                )
                for row, vector, payload, number in together
            ]  # fmt: skip
            self._client.upsert(collection, points, wait=True)
        return len(block.ids)

    def build(self, info: IndexInfo) -> None:
        """hnsw only; the server builds it on its own from then on, and answers exactly until it is there."""
        if info.kind not in ("none", "hnsw"):
            raise errors.Unsupported(f"no index of kind {info.kind} here", hint="hnsw")
        with translated():
            collection = self._collection(info.name)
            if info.kind == "none":
                return
            wanted = {key: int(value) for key, value in info.params.items() if key in ("m", "ef_construction")}
            graph = models.HnswConfigDiff(m=wanted.get("m", 16), ef_construct=wanted.get("ef_construction", 100))
            note = {
                **self._noted(collection), "kind": "hnsw", "params": {key: str(value) for key, value in wanted.items()},
            }  # fmt: skip
            self._client.update_collection(collection, hnsw_config=graph, metadata={"crossload": note})

    def search(self, name: str, vectors: Sequence[bytes], k: int, *, exact: bool = False) -> list[list[str]]:
        with translated():
            collection = self._collection(name)
            info = self._described(name, collection)
            how = models.SearchParams(exact=exact, hnsw_ef=None if exact else max(2 * k, 100)) if self._served else None
            asked = [
                models.QueryRequest(query=array("f", vector).tolist(), limit=k, params=how, with_payload=[_OURS])
                for vector in vector_bytes(vectors, info)
            ]
            answers = self._client.query_batch_points(collection, asked) if asked else []
            return [[_id_of(point) for point in answer.points] for answer in answers]

    def drop(self, name: str) -> None:
        with translated():
            held = self._aliases().get(name)
            if held is not None:
                gone = models.DeleteAlias(alias_name=name)
                self._client.update_collection_aliases([models.DeleteAliasOperation(delete_alias=gone)])
            for collection in (held or name, *(name + end for end in _SLOTS)):
                self._client.delete_collection(collection)


def _id_of(point: Any) -> str:
    return str(((point.payload or {}).get(_OURS) or {}).get("id", point.id))


def _payload(row: str, payload: Mapping[str, Any], length: float | None) -> dict[str, Any]:
    """The fields as they are, and ours. Integers beyond 64 bits would come back as floats: also kept as text."""
    if _OURS in payload:
        raise errors.Invalid(f"row {row}: the payload field {_OURS} is ours", hint="rename it before the move")
    ours: dict[str, Any] = {"id": row}
    if length is not None and abs(length - 1) > 1e-6:
        ours["length"] = length
    large = {name: value for name, value in payload.items() if _has_large(value)}
    if large:
        ours["exact"] = json.dumps(large)
    return {**payload, _OURS: ours}


def _has_large(value: Any) -> bool:
    match value:
        case bool():
            return False
        case int():
            return not -_INT64 <= value < _INT64
        case dict():
            return any(_has_large(inner) for inner in value.values())
        case list():
            return any(_has_large(inner) for inner in value)
        case _:
            return False


def _block(rows: Sequence[tuple[str, Any]]) -> Block:
    vectors: list[bytes] = []
    payloads: list[bytes] = []
    for name, point in rows:
        payload = dict(point.payload or {})
        ours = payload.pop(_OURS, None) or {}
        payload |= json.loads(ours.get("exact", "{}"))
        values = point.vector
        if not isinstance(values, list):
            raise errors.Invalid(f"row {name} has no single vector", hint="mend or leave out the row at the source")
        length = ours.get("length")
        data = values if length is None else [value * length for value in values]
        vectors.append(struct.pack(f"<{len(data)}f", *data))
        payloads.append(payload_bytes(payload, name))
    return Block([name for name, _ in rows], b"".join(vectors), payloads)
