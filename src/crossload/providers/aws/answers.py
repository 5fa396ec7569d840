"""What goes with S3's objects: the port's words as arguments of the SDK, and its answers as the port's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from crossload.ports.store import ObjectInfo, ObjectMeta, StoreFeatures
from crossload.providers.aws.fast import digest_of
from crossload.providers.aws.vendors import CLASS_NAMES, CLASS_WORDS


def arguments_of(meta: ObjectMeta, told: StoreFeatures) -> dict[str, Any]:
    """What goes with the bytes, as arguments of put_object and create_multipart_upload."""
    named = {
        "ContentType": meta.content_type,
        "CacheControl": meta.cache_control,
        "ContentDisposition": meta.content_disposition,
        "ContentEncoding": meta.content_encoding,
        "ContentLanguage": meta.content_language,
        "Expires": meta.expires,
        "StorageClass": CLASS_NAMES.get(meta.storage_class, ""),
    }
    out: dict[str, Any] = {name: value for name, value in named.items() if value}
    if meta.user:
        out["Metadata"] = dict(meta.user)
    if meta.tags and told.tags:  # some vendors refuse the header, and none of those keeps tags
        out["Tagging"] = urlencode(meta.tags)
    return out


def info_of(key: str, answer: Mapping[str, Any]) -> ObjectInfo:
    crc = answer.get("ChecksumCRC64NVME")
    modified = answer.get("LastModified")
    return ObjectInfo(
        key, answer["ContentLength"], answer["ETag"].strip('"'), answer.get("VersionId", ""),
        modified.timestamp() if modified else 0.0, (digest_of(crc),) if crc else (),
    )  # fmt: skip


def meta_of(answer: Mapping[str, Any], tags: Mapping[str, str]) -> ObjectMeta:
    return ObjectMeta(
        answer.get("ContentType", ""), answer.get("CacheControl", ""), answer.get("ContentDisposition", ""),
        answer.get("ContentEncoding", ""), answer.get("ContentLanguage", ""),
        {name.lower(): value for name, value in answer.get("Metadata", {}).items()}, dict(tags),
        CLASS_WORDS.get(answer.get("StorageClass", ""), ""), answer.get("ExpiresString", ""),
    )  # fmt: skip
