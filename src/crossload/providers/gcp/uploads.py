"""Uploads in parts over Cloud Storage: each part is an object of its own, and `compose` joins them inside the store.

Resumable sessions take one writer, in order; parts as objects go in parallel, are checked one by one, outlive us and
the server, and the condition of the final write holds at the moment of joining. They live under a prefix that lists
leave out, and are deleted by generation, so that a versioned bucket keeps none of them."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from awscrt import checksums

from crossload.ports.errors import Invalid, NotFound
from crossload.ports.store import Bytes, Part
from crossload.providers.gcp.session import bucket_path, items, object_path, upload_path
from crossload.providers.keepalive import Answer

PREFIX = ".crossload/uploads/"
_SOURCES_MAX = 32  # objects one compose request takes
_DELETERS = 8
_Ask = Callable[..., Answer]


@dataclass(frozen=True, slots=True)
class StoredPart:
    name: str
    generation: str
    number: int
    offset_bytes: int
    size_bytes: int
    crc32c: str

    def as_part(self) -> Part:
        return Part(self.number, self.offset_bytes, self.size_bytes, self.crc32c)


def is_part(key: str) -> bool:
    return key.startswith(PREFIX)


def begin(ask: _Ask, bucket: str, resource: Mapping[str, Any]) -> str:
    """Write down what the object will be; the id names the folder of its parts."""
    upload = secrets.token_hex(12)
    put_media(ask, bucket, _object_file(upload), json.dumps(resource, ensure_ascii=False).encode())
    return upload


def send(ask: _Ask, bucket: str, upload: str, part: Part, data: Bytes) -> Mapping[str, Any]:
    """The stored part's resource. A part of an upload that is gone must not appear again, so we look first."""
    ask("GET", object_path(bucket, _object_file(upload)))
    return put_media(ask, bucket, f"{_folder(upload)}{part.number:05d}-{part.offset_bytes:016x}", data)


def put_media(ask: _Ask, bucket: str, name: str, data: Bytes) -> Mapping[str, Any]:
    params = {"uploadType": "media", "name": name}
    headers = {"content-type": "application/octet-stream"}
    return ask("POST", upload_path(bucket), params=params, headers=headers, content=data).json()


def stored(ask: _Ask, bucket: str, upload: str) -> list[StoredPart]:
    """All parts the store has, by number. Raises NotFound when the upload is gone."""
    found: list[StoredPart] = []
    open_still = False
    for item in _items(ask, bucket, upload):
        label = str(item["name"]).rpartition("/")[2]
        number, _, offset = label.partition("-")
        if label == "object.json":
            open_still = True
        elif number.isdigit() and offset:
            crc = str(item.get("crc32c", ""))
            found.append(
                StoredPart(item["name"], str(item["generation"]), int(number), int(offset, 16), int(item["size"]), crc)
            )
    if not open_still:
        raise NotFound(f"{bucket}: no open upload {upload}")
    return sorted(found, key=lambda part: part.number)


def chosen(have: list[StoredPart], wanted: list[Part], where: str) -> list[StoredPart]:
    """The stored parts that `wanted` names, in order. Raises Invalid when one is not there as it was sent."""
    by_number = {part.number: part for part in have}
    picked: list[StoredPart] = []
    for part in sorted(wanted, key=lambda part: part.number):
        there = by_number.get(part.number)
        if there is None or there.crc32c != part.etag:
            raise Invalid(f"{where}: part {part.number} is not there as it was sent", hint="send it again")
        picked.append(there)
    if not picked:
        raise Invalid(f"{where}: an upload needs at least one part")
    return picked


def join(
    ask: _Ask, bucket: str, upload: str, parts: list[StoredPart], key: str, conditions: Mapping[str, str]
) -> Mapping[str, Any]:
    """Compose the parts into `key`; more than one request takes are joined in groups first."""
    resource = ask("GET", object_path(bucket, _object_file(upload)), params={"alt": "media"}).json()
    layer = [(part.name, part.generation) for part in parts]
    level = 0
    while len(layer) > _SOURCES_MAX:
        level += 1
        groups = [layer[start : start + _SOURCES_MAX] for start in range(0, len(layer), _SOURCES_MAX)]
        names = [f"{_folder(upload)}join-{level}-{number:05d}" for number in range(len(groups))]
        made = [_compose(ask, bucket, group, name, {}, {}) for group, name in zip(groups, names, strict=True)]
        layer = [(str(item["name"]), str(item["generation"])) for item in made]
    return _compose(ask, bucket, layer, key, resource, conditions)


def forget(ask: _Ask, bucket: str, upload: str) -> None:
    """Delete the parts, and last what names them, so that a crash here leaves an upload that can be forgotten again."""
    try:
        found = list(_items(ask, bucket, upload))
    except NotFound:
        return
    last = [item for item in found if str(item["name"]).endswith("/object.json")]
    rest = [item for item in found if item not in last]

    def delete(item: Mapping[str, Any]) -> None:
        path = object_path(bucket, item["name"])
        ask("DELETE", path, params={"generation": str(item["generation"])}, accept=frozenset({200, 204, 404}))

    with ThreadPoolExecutor(_DELETERS) as pool:
        list(pool.map(delete, rest))
    for item in last:
        delete(item)


def combined_crc32c(parts: list[StoredPart]) -> int:
    """CRC-32C of the joined object, from those of its parts."""
    total = 0
    for part in parts:
        crc = int.from_bytes(base64.b64decode(part.crc32c), "big")
        total = checksums.combine_crc32c(total, crc, part.size_bytes)
    return total


def _folder(upload: str) -> str:
    if not upload.isalnum():
        raise Invalid(f"not an upload id: {upload!r}")
    return f"{PREFIX}{upload}/"


def _object_file(upload: str) -> str:
    """What says of an open upload what its object will be."""
    return f"{_folder(upload)}object.json"


def _items(ask: _Ask, bucket: str, upload: str) -> Iterator[Mapping[str, Any]]:
    params = {"prefix": _folder(upload), "fields": "items(name,size,generation,crc32c),nextPageToken"}
    return items(ask, f"{bucket_path(bucket)}/o", params)


def _compose(
    ask: _Ask,
    bucket: str,
    sources: list[tuple[str, str]],
    key: str,
    resource: Mapping[str, Any],
    conditions: Mapping[str, str],
) -> Mapping[str, Any]:
    body = {
        "sourceObjects": [{"name": name, "generation": generation} for name, generation in sources],
        "destination": {"contentType": "application/octet-stream", **resource},
    }
    path = f"{object_path(bucket, key)}/compose"
    headers = {"content-type": "application/json"}
    return ask("POST", path, params=dict(conditions), headers=headers, content=json.dumps(body).encode()).json()
