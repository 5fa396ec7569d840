"""The Store port over Azure Blob Storage: a bucket is a container, an object a block blob."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.storage.blob import BlobBlock, ContentSettings, StandardBlobTier

from crossload.estate.digest import Digest
from crossload.ports.errors import Invalid, NotFound, PreconditionFailed, Unsupported
from crossload.ports.provider import Settings
from crossload.ports.store import BucketInfo, Bytes, Digests, ObjectInfo, ObjectMeta, Part, PlainReads, StoreFeatures
from crossload.providers.azure import names, uploads
from crossload.providers.azure.errors import code_of, translated
from crossload.providers.azure.session import endpoint, service

_TIERS = {
    "infrequent": StandardBlobTier.COOL, "cold": StandardBlobTier.COLD, "archive": StandardBlobTier.ARCHIVE,
}  # fmt: skip
_TIER_WORDS = {tier.value: word for word, tier in _TIERS.items()}


def open_store(settings: Settings) -> AzureStore:
    return AzureStore(settings)


class AzureStore(PlainReads):
    """Every write and every part carries a Content-MD5, which the service checks.

    `digests_returned` is true of whole writes: there the service keeps the MD5 that it computed. A blob made of parts
    has none, and must be read again to be proved; a blob that somebody else made of parts may carry an MD5 that nobody
    checked."""

    features = StoreFeatures(
        digests_returned=frozenset({"md5"}),
        digests_verified=frozenset({"md5"}),
        tags=True,
        part_size_bytes_min=1,
        parts_max=50_000,
        user_metadata_bytes_max=8192,
        storage_classes=("infrequent", "cold", "archive"),
        classes_offline=("archive",),
        dot_segments=False,
        trims_dots=True,
        letters_refused="".join(map(chr, [*range(9), 11, 12, *range(14, 32)])) + "\ufffe\uffff",
    )

    def __init__(self, settings: Settings, page_keys: int = 5000) -> None:
        self.place = settings.place.id
        self._settings = settings
        self._page_keys = page_keys
        if settings.get("offline_classes") == "allowed":
            self.features = replace(type(self).features, classes_offline=())
        with translated():
            self._service: Any = service(settings)

    def uri(self, bucket: str, key: str = "") -> str:
        return f"{endpoint(self._settings)}/{bucket}/{quote(key, safe='/')}"

    def buckets(self) -> list[BucketInfo]:
        with translated():
            return [BucketInfo(item.name, self._settings.place.region) for item in self._service.list_containers()]

    def ensure_bucket(self, bucket: str) -> bool:
        with translated():
            try:
                self._container(bucket).get_container_properties()
                return False
            except ResourceNotFoundError:
                pass
            try:
                self._service.create_container(bucket)
            except ResourceExistsError as error:
                if code_of(error) != "ContainerAlreadyExists":
                    raise
                return False
            return True

    def remove_bucket(self, bucket: str) -> bool:
        try:
            with translated():
                # Azure deletes a container with everything in it.
                if next(iter(self._container(bucket).list_blobs(results_per_page=1)), None) is not None:
                    raise PreconditionFailed(f"container {bucket} is not empty", hint="open uploads count")
                self._container(bucket).delete_container()
        except NotFound:
            return False
        return True

    def list(self, bucket: str, prefix: str = "", start_after: str = "") -> Iterator[ObjectInfo]:
        """Azure's listing begins at its own marks only: keys up to `start_after` are read again and left out."""
        with translated():
            pages = self._container(bucket).list_blobs(
                name_starts_with=prefix or None, results_per_page=self._page_keys
            )
            for item in pages:
                if not uploads.is_upload(item.name) and (not start_after or item.name > start_after):
                    yield _info(item)

    def versions(self, bucket: str) -> Iterator[ObjectInfo]:
        raise Unsupported("versions of blobs are not read", hint="turn soft delete on to be able to go back")

    def head(self, bucket: str, key: str) -> tuple[ObjectInfo, ObjectMeta]:
        with translated():
            blob = self._blob(bucket, key)
            found = blob.get_blob_properties()
            tags = blob.get_blob_tags() if found.tag_count else {}
        return _info(found, key), _meta(found, tags)

    def read(self, bucket: str, key: str, start: int = 0, length: int | None = None, if_match: str = "") -> bytes:
        if length == 0:
            return b""
        with translated():
            try:
                stream = self._blob(bucket, key).download_blob(
                    start, length, decompress=False, max_concurrency=1, **_conditions(False, if_match)
                )
                return stream.readall()
            except HttpResponseError as error:
                if error.status_code != 416:  # the range starts behind the end: no bytes, and no failure
                    raise
                return b""

    def write(
        self, bucket: str, key: str, data: Bytes, meta: ObjectMeta, *, if_absent: bool = False, if_match: str = "",
        digests: Digests = (),
    ) -> ObjectInfo:  # fmt: skip
        with translated():
            answer = self._blob(bucket, key).upload_blob(
                bytes(data), overwrite=not if_absent, validate_content=True, max_concurrency=1, **_arguments(meta),
                **_conditions(if_absent, if_match),
            )  # fmt: skip
        md5 = answer.get("content_md5")
        digests = (Digest("md5", bytes(md5).hex()),) if md5 else ()
        return ObjectInfo(key, len(data), answer["etag"].strip('"'), answer.get("version_id") or "", digests=digests)

    def open_upload(self, bucket: str, key: str, meta: ObjectMeta, size_bytes: int) -> str:
        held = {
            "key": key, "content_type": meta.content_type, "cache_control": meta.cache_control,
            "content_disposition": meta.content_disposition, "content_encoding": meta.content_encoding,
            "content_language": meta.content_language, "user": dict(meta.user), "tags": dict(meta.tags),
            "storage_class": meta.storage_class,
        }  # fmt: skip
        with translated():
            return uploads.begin(self._container(bucket), held)

    def write_part(
        self, bucket: str, key: str, upload: str, part: Part, data: Bytes, *, last: bool, digests: Digests = ()
    ) -> Part:
        crc = uploads.crc64(data)
        block = uploads.Block(upload, part.number, part.offset_bytes, crc)
        with translated():
            uploads.expect_open(self._container(bucket), upload)
            self._blob(bucket, key).stage_block(block.id, bytes(data), len(data), validate_content=True)
        return Part(part.number, part.offset_bytes, len(data), crc)

    def parts(self, bucket: str, key: str, upload: str) -> list[Part]:
        with translated():
            uploads.expect_open(self._container(bucket), upload)
            try:
                committed, uncommitted = self._blob(bucket, key).get_block_list("all")
            except ResourceNotFoundError:
                return []  # the upload is open and has no block yet
            return uploads.parts_of(committed, uncommitted, upload)

    def complete(
        self, bucket: str, key: str, upload: str, parts: list[Part], *, if_absent: bool = False, if_match: str = ""
    ) -> ObjectInfo:
        with translated():
            held = uploads.meta_of(self._container(bucket), upload)
            del held["key"]
            blocks = [BlobBlock(block) for block in uploads.blocks_for(upload, parts)]
            answer = self._blob(bucket, key).commit_block_list(
                blocks, **_arguments(ObjectMeta(**held)), **_conditions(if_absent, if_match)
            )
            uploads.forget(self._container(bucket), upload)
        size = sum(part.size_bytes for part in parts)
        return ObjectInfo(key, size, answer["etag"].strip('"'), answer.get("version_id") or "")

    def abort(self, bucket: str, key: str, upload: str) -> None:
        try:
            with translated():
                uploads.forget(self._container(bucket), upload)
        except NotFound:
            return

    def delete(self, bucket: str, key: str, if_match: str = "") -> None:
        try:
            with translated():
                self._blob(bucket, key).delete_blob(**_conditions(False, if_match))
        except NotFound:
            return

    def freeze(self, bucket: str) -> str:
        raise Unsupported(
            "Blob Storage has no undoable write freeze for one container", hint="remove the writers' role, then go on"
        )

    def thaw(self, bucket: str, token: str) -> None:
        return

    def _container(self, bucket: str) -> Any:
        return self._service.get_container_client(bucket)

    def _blob(self, bucket: str, key: str) -> Any:
        _expect_holdable(key)
        return self._service.get_blob_client(bucket, key)


def _expect_holdable(key: str) -> None:
    """Refuse keys that HTTP clients on the way would take for another blob, or that no listing (XML 1.0) can show."""
    hint = "leave the object out, or rename it on its way (a rule of the transfer)"
    if {".", ".."} & set(key.split("/")):
        raise Invalid(f"key {key!r} holds `.` or `..` as a folder: it would name another blob", hint=hint)
    if any((letter < " " and letter not in "\t\n\r") or letter in "\ufffe\uffff" for letter in key):
        raise Invalid(f"key {key!r} holds a control character", hint=hint)


def _conditions(if_absent: bool, if_match: str) -> dict[str, Any]:
    if if_absent:
        return {"match_condition": MatchConditions.IfMissing}
    if if_match:
        return {"etag": f'"{if_match}"', "match_condition": MatchConditions.IfNotModified}
    return {}


def _arguments(meta: ObjectMeta) -> dict[str, Any]:
    settings = ContentSettings(
        content_type=meta.content_type or None,
        cache_control=meta.cache_control or None,
        content_disposition=meta.content_disposition or None,
        content_encoding=meta.content_encoding or None,
        content_language=meta.content_language or None,
    )
    out: dict[str, Any] = {"content_settings": settings, "metadata": names.encode(meta.user)}
    if meta.tags:
        out["tags"] = dict(meta.tags)
    if meta.storage_class in _TIERS:
        out["standard_blob_tier"] = _TIERS[meta.storage_class]
    return out


def _info(item: Any, key: str = "") -> ObjectInfo:
    md5 = item.content_settings.content_md5
    digests = (Digest("md5", bytes(md5).hex()),) if md5 else ()
    modified = item.last_modified.timestamp() if item.last_modified else 0.0
    return ObjectInfo(
        key or item.name,
        int(item.size),
        str(item.etag).strip('"'),
        getattr(item, "version_id", None) or "",
        modified,
        digests,
    )


def _meta(item: Any, tags: Mapping[str, str] | None) -> ObjectMeta:
    held = item.content_settings
    return ObjectMeta(
        held.content_type or "", held.cache_control or "", held.content_disposition or "",
        held.content_encoding or "", held.content_language or "", names.decode(item.metadata or {}), dict(tags or {}),
        _TIER_WORDS.get(str(getattr(item.blob_tier, "value", item.blob_tier) or ""), ""),
    )  # fmt: skip
