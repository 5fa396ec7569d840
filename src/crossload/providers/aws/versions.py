"""Single versions of S3 objects, and the order in which they came."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from crossload.ports.errors import NotFound, PreconditionFailed, Unsupported
from crossload.ports.store import ObjectInfo, ObjectMeta
from crossload.providers.aws.answers import info_of, meta_of
from crossload.providers.aws.errors import translated

if TYPE_CHECKING:
    from crossload.ports.store import StoreFeatures

_KINDS = re.compile(rb"<(?:\w+:)?(Version|DeleteMarker)[\s>]")
_ORDER = "CrossloadOrder"


def keep_order(response_dict: Mapping[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    """Hook of the SDK, which sorts versions and delete markers into two lists and forgets how they were mixed. Times
    do not tell: they are whole seconds, and an upload in parts carries the time at which it was begun."""
    body = response_dict.get("body") or b""
    customized_response_dict[_ORDER] = [kind == b"DeleteMarker" for kind in _KINDS.findall(body)]


class Versions:
    """What `ports.store.VersionedStore` asks, for the S3 store."""

    place: str
    _s3: Any

    @property
    def features(self) -> StoreFeatures:
        raise NotImplementedError

    def versions(self, bucket: str) -> Iterator[ObjectInfo]:
        if not self.features.versions:
            raise Unsupported(f"{self.place} keeps no versions")
        with translated():
            for page in self._s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
                for item, is_marker in as_listed(page):
                    size, etag = (0, "") if is_marker else (item["Size"], item["ETag"].strip('"'))
                    yield ObjectInfo(
                        item["Key"], size, etag, item["VersionId"],
                        item["LastModified"].timestamp(), is_latest=item["IsLatest"], is_delete_marker=is_marker,
                    )  # fmt: skip

    def keeps_versions(self, bucket: str) -> bool:
        with translated():
            return self._s3.get_bucket_versioning(Bucket=bucket).get("Status") == "Enabled"

    def keep_versions(self, bucket: str) -> None:
        with translated():
            self._s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})

    def head_version(self, bucket: str, key: str, version: str) -> tuple[ObjectInfo, ObjectMeta]:
        with translated():
            answer = self._s3.head_object(Bucket=bucket, Key=key, VersionId=version, ChecksumMode="ENABLED")
            tags: dict[str, str] = {}
            if self.features.tags and answer.get("TagCount") != 0:
                listed = self._s3.get_object_tagging(Bucket=bucket, Key=key, VersionId=version)["TagSet"]
                tags = {item["Key"]: item["Value"] for item in listed}
        return info_of(key, {"VersionId": version, **answer}), meta_of(answer, tags)

    def read_version_into(self, bucket: str, key: str, version: str, start: int, buffer: memoryview) -> int:
        if not len(buffer):
            return 0
        span = f"bytes={start}-{start + len(buffer) - 1}"
        with translated():
            data = self._s3.get_object(Bucket=bucket, Key=key, VersionId=version, Range=span)["Body"].read()
        buffer[: len(data)] = data
        return len(data)

    def delete_version(self, bucket: str, key: str, version: str) -> None:
        try:
            with translated():
                self._s3.delete_object(Bucket=bucket, Key=key, VersionId=version)
        except NotFound:
            return

    def mark_deleted(self, bucket: str, key: str) -> str:
        with translated():
            answer = self._s3.delete_object(Bucket=bucket, Key=key)
        version = str(answer.get("VersionId", ""))
        if not version:
            raise PreconditionFailed(f"{bucket} keeps no versions: the delete left no marker")
        return version


def as_listed(page: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], bool]]:
    """(item, whether it is a delete marker) in the order of the page; by time where the order is not known."""
    versions, markers = list(page.get("Versions", ())), list(page.get("DeleteMarkers", ()))
    order = page.get(_ORDER, [])
    if sum(order) == len(markers) and len(order) == len(markers) + len(versions):
        waiting = {True: iter(markers), False: iter(versions)}
        return [(next(waiting[is_marker]), is_marker) for is_marker in order]
    both = [*((item, False) for item in versions), *((item, True) for item in markers)]
    return sorted(
        both, key=lambda pair: (pair[0]["Key"], -pair[0]["LastModified"].timestamp(), not pair[0]["IsLatest"])
    )
