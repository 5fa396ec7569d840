"""The Store port over Cloud Storage's JSON API."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any
from urllib.parse import quote

import httpx
from awscrt import checksums

from crossload.estate.digest import Digest
from crossload.ports.errors import DigestMismatch, Invalid, NotFound, PreconditionFailed, Unsupported
from crossload.ports.provider import Settings
from crossload.ports.store import BucketInfo, ObjectInfo, ObjectMeta, Part, StoreFeatures
from crossload.providers.gcp.session import request

_CHUNK_BYTES = 256 * 1024  # resumable chunks are multiples of this, the last one excepted
_FIELDS = "name,size,etag,generation,crc32c,md5Hash,updated"


def open_store(settings: Settings) -> GcsStore:
    return GcsStore(settings)


class GcsStore:
    """Objects are named by generation: it changes with every write and serves as etag and version."""

    features = StoreFeatures(
        digests_returned=frozenset({"crc32c", "md5"}),
        digests_verified=frozenset({"crc32c"}),
        versions=True,
        tags=False,
        ordered_parts=True,
        part_size_bytes_min=_CHUNK_BYTES,
        user_metadata_bytes_max=8192,
    )

    def __init__(self, settings: Settings) -> None:
        self.place = settings.place.id
        self._settings = settings
        if settings.get("versioning", "on") == "off":
            self.features = replace(type(self).features, versions=False)

    def buckets(self) -> list[BucketInfo]:
        answer = self._ask("GET", "/storage/v1/b", params={"project": self._settings.get("project")})
        return [BucketInfo(item["name"], item.get("location", "").lower()) for item in answer.json().get("items", ())]

    def ensure_bucket(self, bucket: str) -> bool:
        try:
            self._ask("GET", f"/storage/v1/b/{quote(bucket, safe='')}")
            return False
        except NotFound:
            body = {
                "name": bucket,
                "location": self._settings.place.region,
                "iamConfiguration": {
                    "uniformBucketLevelAccess": {"enabled": True},
                    "publicAccessPrevention": "enforced",
                },
                "versioning": {"enabled": self.features.versions},
            }
            self._send_json("POST", "/storage/v1/b", body, {"project": self._settings.get("project")})
            return True

    def remove_bucket(self, bucket: str) -> bool:
        try:
            self._ask("DELETE", f"/storage/v1/b/{quote(bucket, safe='')}")
        except NotFound:
            return False
        return True

    def list(self, bucket: str, prefix: str = "") -> Iterator[ObjectInfo]:
        yield from self._pages(bucket, {"prefix": prefix} if prefix else {})

    def versions(self, bucket: str) -> Iterator[ObjectInfo]:
        yield from self._pages(bucket, {"versions": "true"})

    def _pages(self, bucket: str, more: Mapping[str, str]) -> Iterator[ObjectInfo]:
        params = {"fields": f"items({_FIELDS}),nextPageToken", "maxResults": "1000", **more}
        while True:
            page = self._ask("GET", f"/storage/v1/b/{quote(bucket, safe='')}/o", params=params).json()
            for item in page.get("items", ()):
                yield _info(item)
            token = page.get("nextPageToken")
            if not token:
                return
            params["pageToken"] = token

    def head(self, bucket: str, key: str) -> tuple[ObjectInfo, ObjectMeta]:
        item = self._ask("GET", _object_path(bucket, key)).json()
        return _info(item), _meta(item)

    def read(self, bucket: str, key: str, start: int = 0, length: int | None = None, if_match: str = "") -> bytes:
        if length == 0:
            return b""
        params = {"alt": "media"}
        if if_match:
            params["ifGenerationMatch"] = if_match
        headers: dict[str, str] = {}
        if start or length is not None:
            headers["Range"] = f"bytes={start}-{'' if length is None else start + length - 1}"
        return self._ask("GET", _object_path(bucket, key), params=params, headers=headers).content

    def write(
        self, bucket: str, key: str, data: bytes, meta: ObjectMeta, *, if_absent: bool = False, if_match: str = ""
    ) -> ObjectInfo:
        crc = _crc32c_base64(data)
        boundary = f"crossload-{secrets.token_hex(12)}"
        head = json.dumps({**_resource(key, meta), "crc32c": crc}, ensure_ascii=False).encode()
        body = b"".join((
            f"--{boundary}\r\ncontent-type: application/json; charset=UTF-8\r\n\r\n".encode(), head,
            f"\r\n--{boundary}\r\ncontent-type: {meta.content_type or 'application/octet-stream'}\r\n\r\n".encode(),
            data, f"\r\n--{boundary}--\r\n".encode(),
        ))  # fmt: skip
        params = {"uploadType": "multipart", **_conditions(if_absent, if_match)}
        headers = {"content-type": f"multipart/related; boundary={boundary}"}
        path = f"/upload/storage/v1/b/{quote(bucket, safe='')}/o"
        item = self._ask("POST", path, params=params, headers=headers, content=body).json()
        if item.get("crc32c") != crc:
            # The bytes at the target are not ours: nobody may read them as a finished copy.
            self.delete(bucket, key, if_match=str(item.get("generation", "")))
            raise DigestMismatch(f"{bucket}/{key}: sent crc32c {crc}, the store has {item.get('crc32c')}")
        return _info(item)

    def open_upload(
        self, bucket: str, key: str, meta: ObjectMeta, size_bytes: int, *, if_absent: bool = False, if_match: str = ""
    ) -> str:
        """A resumable session (RFC-less, documented by Cloud Storage). Its URI is a capability: journals holding it
        are readable by their owner only."""
        path = f"/upload/storage/v1/b/{quote(bucket, safe='')}/o"
        headers = {
            "content-type": "application/json; charset=UTF-8",
            "x-upload-content-length": str(size_bytes),
            "x-upload-content-type": meta.content_type or "application/octet-stream",
        }
        params = {"uploadType": "resumable", **_conditions(if_absent, if_match)}
        body = json.dumps(_resource(key, meta), ensure_ascii=False).encode()
        return self._ask("POST", path, params=params, headers=headers, content=body).headers["location"]

    def write_part(self, bucket: str, key: str, upload: str, part: Part, data: bytes, *, last: bool) -> Part:
        end = part.offset_bytes + len(data)
        total = str(end) if last else "*"
        span = f"bytes {part.offset_bytes}-{end - 1}/{total}" if data else f"bytes */{total}"
        answer = self._session("PUT", upload, {"content-range": span}, data)
        etag = ""
        if answer.status_code in (200, 201):
            etag = str(answer.json().get("generation", ""))
        elif last:
            raise Invalid(f"{bucket}/{key}: the session did not finish with its last part")
        else:
            stored = _stored_bytes(answer)
            if stored < end:
                raise PreconditionFailed(f"{bucket}/{key}: the session holds {stored} bytes, expected {end}")
        return Part(part.number, part.offset_bytes, len(data), etag)

    def parts(self, bucket: str, key: str, upload: str) -> list[Part]:
        """One part that stands for all bytes the session holds."""
        answer = self._session("PUT", upload, {"content-range": "bytes */*"}, b"")
        if answer.status_code in (200, 201):
            item = answer.json()
            return [Part(1, 0, int(item["size"]), str(item["generation"]))]
        stored = _stored_bytes(answer)
        return [Part(1, 0, stored, "")] if stored else []

    def complete(
        self, bucket: str, key: str, upload: str, parts: list[Part], *, if_absent: bool = False
    ) -> ObjectInfo:
        """The last part completed it; here we read back what the store holds."""
        return self.head(bucket, key)[0]

    def abort(self, bucket: str, key: str, upload: str) -> None:
        try:
            request(self._settings, "DELETE", upload, accept=frozenset({200, 204, 404, 410, 499}))
        except (NotFound, Invalid):
            return

    def delete(self, bucket: str, key: str, if_match: str = "") -> None:
        try:
            self._ask("DELETE", _object_path(bucket, key), params=_conditions(False, if_match))
        except NotFound:
            return

    def freeze(self, bucket: str) -> str:
        raise Unsupported(
            "Cloud Storage has no undoable write freeze for one bucket", hint="remove the writers' role, then go on"
        )

    def thaw(self, bucket: str, token: str) -> None:
        return

    def _ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        return request(self._settings, method, path, **more)

    def _send_json(self, method: str, path: str, body: Any, params: Mapping[str, str]) -> httpx.Response:
        headers = {"content-type": "application/json"}
        return self._ask(method, path, params=params, headers=headers, content=json.dumps(body).encode())

    def _session(self, method: str, upload: str, headers: Mapping[str, str], data: bytes) -> httpx.Response:
        accept = frozenset({200, 201, 308})
        return request(self._settings, method, upload, headers=headers, content=data, accept=accept)


def _stored_bytes(answer: httpx.Response) -> int:
    """`Range: bytes=0-N` of a 308 answer; absent means nothing is stored."""
    span = answer.headers.get("range", "")
    return int(span.rpartition("-")[2]) + 1 if "-" in span else 0


def _object_path(bucket: str, key: str) -> str:
    return f"/storage/v1/b/{quote(bucket, safe='')}/o/{quote(key, safe='')}"


def _conditions(if_absent: bool, if_match: str) -> dict[str, str]:
    if if_absent:
        return {"ifGenerationMatch": "0"}
    return {"ifGenerationMatch": if_match} if if_match else {}


def _crc32c_base64(data: bytes) -> str:
    return base64.b64encode(checksums.crc32c(data).to_bytes(4, "big")).decode()


def _resource(key: str, meta: ObjectMeta) -> dict[str, Any]:
    named = {
        "contentType": meta.content_type,
        "cacheControl": meta.cache_control,
        "contentDisposition": meta.content_disposition,
        "contentEncoding": meta.content_encoding,
        "contentLanguage": meta.content_language,
    }
    out: dict[str, Any] = {"name": key, **{name: value for name, value in named.items() if value}}
    if meta.user:
        out["metadata"] = dict(meta.user)
    return out


def _info(item: Mapping[str, Any]) -> ObjectInfo:
    digests: list[Digest] = []
    if item.get("crc32c"):
        digests.append(Digest("crc32c", base64.b64decode(item["crc32c"]).hex()))
    if item.get("md5Hash"):
        digests.append(Digest("md5", base64.b64decode(item["md5Hash"]).hex()))
    generation = str(item.get("generation", ""))
    updated = datetime.fromisoformat(item["updated"]).timestamp() if item.get("updated") else 0.0
    return ObjectInfo(item["name"], int(item["size"]), generation, generation, updated, tuple(digests))


def _meta(item: Mapping[str, Any]) -> ObjectMeta:
    return ObjectMeta(
        item.get("contentType", ""), item.get("cacheControl", ""), item.get("contentDisposition", ""),
        item.get("contentEncoding", ""), item.get("contentLanguage", ""),
        {name.lower(): value for name, value in item.get("metadata", {}).items()},
    )  # fmt: skip
