"""The Store port over Cloud Storage's JSON API."""

from __future__ import annotations

import base64
import contextlib
import gzip
import itertools
import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, cast

from awscrt import checksums

from crossload.estate.digest import Digest
from crossload.ports.errors import CrossloadError, DigestMismatch, Invalid, NotFound, PreconditionFailed, Unsupported
from crossload.ports.provider import Settings
from crossload.ports.store import BucketInfo, Bytes, Digests, ObjectInfo, ObjectMeta, Part, PlainReads, StoreFeatures
from crossload.providers.gcp import uploads
from crossload.providers.gcp.session import bucket_path, items, object_path, request, upload_path
from crossload.providers.keepalive import Answer

# Above this size metadata and bytes go in two requests: one body for both would have to be copied to be built.
_MULTIPART_BYTES_MAX = 8 * 2**20
_FIELDS = "name,size,etag,generation,crc32c,md5Hash,updated,timeDeleted"
_READ = frozenset({200, 206, 416})
_CLASS_NAMES = {"infrequent": "NEARLINE", "cold": "COLDLINE", "archive": "ARCHIVE"}
_CLASS_WORDS = {name: word for word, name in _CLASS_NAMES.items()}


def open_store(settings: Settings) -> GcsStore:
    return GcsStore(settings)


class GcsStore(PlainReads):
    """Objects are named by generation: it changes with every write and serves as etag and version.

    Setting `versioning: off` makes new buckets without object versioning (which is on by default, so that what a
    migration overwrites can be brought back)."""

    features = StoreFeatures(
        digests_returned=frozenset({"crc32c", "md5"}),
        digests_verified=frozenset({"crc32c"}),
        versions=True,
        tags=False,
        sorted_list=True,
        part_size_bytes_min=1,
        user_metadata_bytes_max=8192,
        storage_classes=("infrequent", "cold", "archive"),  # all of them can be read at once
        letters_refused="\r\n",
    )

    def __init__(self, settings: Settings) -> None:
        self.place = settings.place.id
        self._settings = settings
        if settings.get("versioning", "on") == "off":
            self.features = replace(type(self).features, versions=False)

    def uri(self, bucket: str, key: str = "") -> str:
        return f"gs://{bucket}/{key}"

    def buckets(self) -> list[BucketInfo]:
        found = items(self._ask, "/storage/v1/b", {"project": self._settings.get("project")})
        return [BucketInfo(item["name"], item.get("location", "").lower()) for item in found]

    def ensure_bucket(self, bucket: str) -> bool:
        try:
            self._ask("GET", bucket_path(bucket))
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
            self._ask("DELETE", bucket_path(bucket))
        except NotFound:
            return False
        return True

    def list(self, bucket: str, prefix: str = "", start_after: str = "") -> Iterator[ObjectInfo]:
        named = {"prefix": prefix, "startOffset": start_after}
        for info in self._pages(bucket, {name: value for name, value in named.items() if value}):
            if info.key != start_after:  # the offset is the first key that the service gives
                yield info

    def versions(self, bucket: str) -> Iterator[ObjectInfo]:
        if not self.features.versions:
            raise Unsupported(f"{self.place} keeps no versions (setting `versioning: off`)")
        for _, generations in itertools.groupby(self._pages(bucket, {"versions": "true"}), lambda info: info.key):
            yield from sorted(generations, key=lambda info: int(info.version or 0), reverse=True)

    def keeps_versions(self, bucket: str) -> bool:
        if not self.features.versions:
            raise Unsupported(f"{self.place} keeps no versions (setting `versioning: off`)")
        return bool(self._ask("GET", bucket_path(bucket)).json().get("versioning", {}).get("enabled"))

    def keep_versions(self, bucket: str) -> None:
        self._send_json("PATCH", bucket_path(bucket), {"versioning": {"enabled": True}}, {})

    def head_version(self, bucket: str, key: str, version: str) -> tuple[ObjectInfo, ObjectMeta]:
        item = self._ask("GET", object_path(bucket, key), params={"generation": version}).json()
        return _info(item), _meta(item)

    def read_version_into(self, bucket: str, key: str, version: str, start: int, buffer: memoryview) -> int:
        if not len(buffer):
            return 0
        headers = {"accept-encoding": "gzip", "range": f"bytes={start}-{start + len(buffer) - 1}"}
        answer = self._ask(
            "GET", object_path(bucket, key), params={"alt": "media", "generation": version}, headers=headers,
            accept=_READ,
        )  # fmt: skip
        if answer.status_code == 416:
            return 0
        data = answer.content
        if answer.headers.get("content-encoding") == "gzip" and _packed_on_the_way(answer):
            data = gzip.decompress(data)
        buffer[: len(data)] = data
        return len(data)

    def delete_version(self, bucket: str, key: str, version: str) -> None:
        try:
            self._ask("DELETE", object_path(bucket, key), params={"generation": version})
        except NotFound:
            return

    def mark_deleted(self, bucket: str, key: str) -> str:
        """Cloud Storage marks no deletes: the live generation becomes an older one."""
        self._ask("DELETE", object_path(bucket, key))
        return ""

    def _pages(self, bucket: str, more: Mapping[str, str]) -> Iterator[ObjectInfo]:
        params = {"fields": f"items({_FIELDS}),nextPageToken", "maxResults": "1000", **more}
        for item in items(self._ask, f"{bucket_path(bucket)}/o", params):
            if not uploads.is_part(item["name"]):
                yield _info(item)

    def head(self, bucket: str, key: str) -> tuple[ObjectInfo, ObjectMeta]:
        item = self._ask("GET", object_path(bucket, key)).json()
        return _info(item), _meta(item)

    def read(self, bucket: str, key: str, start: int = 0, length: int | None = None, if_match: str = "") -> bytes:
        if length == 0:
            return b""
        answer = self._read(bucket, key, start, length, if_match)
        if answer.headers.get("content-encoding") == "gzip" and _packed_on_the_way(answer):
            return gzip.decompress(answer.content)
        return answer.content

    def read_into(self, bucket: str, key: str, start: int, buffer: memoryview, if_match: str = "") -> int:
        if not len(buffer):
            return 0
        answer = self._read(bucket, key, start, len(buffer), if_match, into=buffer)
        if answer.headers.get("content-encoding") == "gzip" and _packed_on_the_way(answer):
            return PlainReads.read_into(self, bucket, key, start, buffer, if_match)
        return answer.filled

    def _read(
        self, bucket: str, key: str, start: int, length: int | None, if_match: str, into: memoryview | None = None
    ) -> Answer:
        params = {"alt": "media"}
        if if_match:
            params["ifGenerationMatch"] = if_match
        headers = {"accept-encoding": "gzip"}  # or the store unpacks objects whose content encoding is gzip
        if start or length is not None:
            headers["range"] = f"bytes={start}-{'' if length is None else start + length - 1}"
        answer = self._ask("GET", object_path(bucket, key), params=params, headers=headers, accept=_READ, into=into)
        if answer.status_code == 416:  # the range starts behind the end: no bytes, and no failure
            return Answer(416, {}, b"", answer.path)
        generation = answer.headers.get("x-goog-generation", if_match)
        if if_match and generation != if_match:
            raise PreconditionFailed(f"{bucket}/{key}: generation {generation} is not {if_match}")
        return answer

    def write(
        self, bucket: str, key: str, data: Bytes, meta: ObjectMeta, *, if_absent: bool = False, if_match: str = "",
        digests: Digests = (),
    ) -> ObjectInfo:  # fmt: skip
        crc = _crc32c_base64(data, digests)
        resource = {**_resource(key, meta), "crc32c": crc}
        send = self._write_at_once if len(data) <= _MULTIPART_BYTES_MAX else self._write_in_session
        item = send(bucket, resource, data, _conditions(if_absent, if_match))
        self._check_crc32c(bucket, key, item, crc)
        return _info(item)

    def _write_at_once(
        self, bucket: str, resource: Mapping[str, Any], data: Bytes, conditions: Mapping[str, str]
    ) -> Mapping[str, Any]:
        boundary = f"crossload-{secrets.token_hex(12)}"
        kind = resource.get("contentType", "application/octet-stream")
        head = json.dumps(resource, ensure_ascii=False)
        opening = (
            f"--{boundary}\r\ncontent-type: application/json; charset=UTF-8\r\n\r\n{head}"
            f"\r\n--{boundary}\r\ncontent-type: {kind}\r\n\r\n"
        )
        body = b"".join((opening.encode(), data, f"\r\n--{boundary}--\r\n".encode()))
        params = {"uploadType": "multipart", **conditions}
        headers = {"content-type": f"multipart/related; boundary={boundary}"}
        return self._ask("POST", upload_path(bucket), params=params, headers=headers, content=body).json()

    def _write_in_session(
        self, bucket: str, resource: Mapping[str, Any], data: Bytes, conditions: Mapping[str, str]
    ) -> Mapping[str, Any]:
        headers = {
            "content-type": "application/json; charset=UTF-8",
            "x-upload-content-length": str(len(data)),
            "x-upload-content-type": resource.get("contentType", "application/octet-stream"),
        }
        params = {"uploadType": "resumable", **conditions}
        body = json.dumps(resource, ensure_ascii=False).encode()
        session = self._ask("POST", upload_path(bucket), params=params, headers=headers, content=body)
        span = {"content-range": f"bytes 0-{len(data) - 1}/{len(data)}"}
        return self._ask("PUT", session.headers["location"], headers=span, content=data).json()

    def _check_crc32c(self, bucket: str, key: str, item: Mapping[str, Any], crc: str) -> None:
        if item.get("crc32c") == crc:
            return
        # The bytes at the target are not ours: nobody may read them as a finished copy.
        with contextlib.suppress(CrossloadError):
            self.delete(bucket, key, if_match=str(item.get("generation", "")))
        raise DigestMismatch(f"{bucket}/{key}: sent crc32c {crc}, the store has {item.get('crc32c')}")

    def open_upload(self, bucket: str, key: str, meta: ObjectMeta, size_bytes: int) -> str:
        return uploads.begin(self._ask, bucket, _resource(key, meta))

    def write_part(
        self, bucket: str, key: str, upload: str, part: Part, data: Bytes, *, last: bool, digests: Digests = ()
    ) -> Part:
        crc = _crc32c_base64(data, digests)
        item = uploads.send(self._ask, bucket, upload, part, data)
        self._check_crc32c(bucket, str(item["name"]), item, crc)
        return Part(part.number, part.offset_bytes, len(data), crc)

    def parts(self, bucket: str, key: str, upload: str) -> list[Part]:
        return [part.as_part() for part in uploads.stored(self._ask, bucket, upload)]

    def complete(
        self, bucket: str, key: str, upload: str, parts: list[Part], *, if_absent: bool = False, if_match: str = ""
    ) -> ObjectInfo:
        chosen = uploads.chosen(uploads.stored(self._ask, bucket, upload), parts, f"{bucket}/{key}")
        crc = base64.b64encode(uploads.combined_crc32c(chosen).to_bytes(4, "big")).decode()
        item = uploads.join(self._ask, bucket, upload, chosen, key, _conditions(if_absent, if_match))
        self._check_crc32c(bucket, key, item, crc)
        uploads.forget(self._ask, bucket, upload)
        return _info(item)

    def abort(self, bucket: str, key: str, upload: str) -> None:
        uploads.forget(self._ask, bucket, upload)

    def delete(self, bucket: str, key: str, if_match: str = "") -> None:
        try:
            self._ask("DELETE", object_path(bucket, key), params=_conditions(False, if_match))
        except NotFound:
            return

    def freeze(self, bucket: str) -> str:
        raise Unsupported(
            "Cloud Storage has no undoable write freeze for one bucket", hint="remove the writers' role, then go on"
        )

    def thaw(self, bucket: str, token: str) -> None:
        return

    def _ask(self, method: str, path: str, **more: Any) -> Answer:
        return request(self._settings, method, path, **more)

    def _send_json(self, method: str, path: str, body: Any, params: Mapping[str, str]) -> Answer:
        headers = {"content-type": "application/json"}
        return self._ask(method, path, params=params, headers=headers, content=json.dumps(body).encode())


def _packed_on_the_way(answer: Answer) -> bool:
    """True when the server compressed a plain object for the road only."""
    return answer.headers.get("x-goog-stored-content-encoding") == "identity"


def _conditions(if_absent: bool, if_match: str) -> dict[str, str]:
    if if_absent:
        return {"ifGenerationMatch": "0"}
    return {"ifGenerationMatch": if_match} if if_match else {}


def _crc32c_base64(data: Bytes, digests: Digests = ()) -> str:
    for digest in digests:
        if digest.algorithm == "crc32c":
            return base64.b64encode(bytes.fromhex(digest.hex)).decode()
    return base64.b64encode(checksums.crc32c(cast("bytes", data)).to_bytes(4, "big")).decode()


def _resource(key: str, meta: ObjectMeta) -> dict[str, Any]:
    named = {
        "contentType": meta.content_type,
        "cacheControl": meta.cache_control,
        "contentDisposition": meta.content_disposition,
        "contentEncoding": meta.content_encoding,
        "contentLanguage": meta.content_language,
        "storageClass": _CLASS_NAMES.get(meta.storage_class, ""),
    }
    if any(ord(letter) < 32 for value in named.values() for letter in value):
        raise Invalid(f"{key}: a control character in the metadata", hint="clean the object's headers at the source")
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
    return ObjectInfo(
        item["name"], int(item["size"]), generation, generation, updated, tuple(digests),
        is_latest="timeDeleted" not in item,
    )  # fmt: skip


def _meta(item: Mapping[str, Any]) -> ObjectMeta:
    return ObjectMeta(
        item.get("contentType", ""), item.get("cacheControl", ""), item.get("contentDisposition", ""),
        item.get("contentEncoding", ""), item.get("contentLanguage", ""),
        {name.lower(): value for name, value in item.get("metadata", {}).items()},
        storage_class=_CLASS_WORDS.get(item.get("storageClass", ""), ""),
    )  # fmt: skip
