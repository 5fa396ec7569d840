"""The Store port over S3 and S3-compatible servers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

from crossload.ports.errors import NotFound, PreconditionFailed, Unavailable, Unsupported
from crossload.ports.provider import Settings
from crossload.ports.store import BucketInfo, Bytes, Digests, ObjectInfo, ObjectMeta, Part, PlainReads, StoreFeatures
from crossload.providers.aws import fast
from crossload.providers.aws.errors import translated
from crossload.providers.aws.fast import checksum, digest_of
from crossload.providers.aws.session import client, credentials
from crossload.providers.aws.wire import Wire

_FREEZE = "CrossloadFreeze"
_WRITES = ("s3:PutObject", "s3:DeleteObject", "s3:DeleteObjectVersion", "s3:PutObjectTagging", "s3:DeleteObjectTagging")


def open_store(settings: Settings) -> S3Store:
    return S3Store(settings)


class S3Store(PlainReads):
    """Digest on every write: crc64nvme in `x-amz-checksum-crc64nvme`, which the server checks.

    What a copy asks once per object goes over `wire`, the rest, and every failure, through the SDK. Setting
    `data_path: sdk` sends everything through the SDK."""

    features = StoreFeatures(
        digests_returned=frozenset({"crc64nvme"}),
        digests_verified=frozenset({"crc64nvme"}),
        versions=True,
        tags=True,
    )

    def __init__(self, settings: Settings) -> None:
        self.place = settings.place.id
        self._settings = settings
        with translated():
            self._s3: Any = client(settings, "s3")
            keys = None if settings.get("data_path") == "sdk" else credentials(settings)
        self._wire = Wire(self._s3.meta.endpoint_url, self._s3.meta.region_name, keys) if keys is not None else None

    def uri(self, bucket: str, key: str = "") -> str:
        return f"s3://{bucket}/{key}"

    def buckets(self) -> list[BucketInfo]:
        with translated():
            return [BucketInfo(item["Name"]) for item in self._s3.list_buckets()["Buckets"]]

    def ensure_bucket(self, bucket: str) -> bool:
        with translated():
            try:
                self._s3.head_bucket(Bucket=bucket)
                return False
            except self._s3.exceptions.ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                    raise
            region = self._settings.place.region
            where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
            self._s3.create_bucket(Bucket=bucket, **where)
            return True

    def remove_bucket(self, bucket: str) -> bool:
        try:
            # S3 refuses to delete a bucket that holds something; not every server that speaks S3 does.
            if next(self.list(bucket), None) or next(self.versions(bucket), None):
                raise PreconditionFailed(f"bucket {bucket} is not empty", hint="old versions and delete markers count")
            with translated():
                self._s3.delete_bucket(Bucket=bucket)
        except NotFound:
            return False
        return True

    def list(self, bucket: str, prefix: str = "", start_after: str = "") -> Iterator[ObjectInfo]:
        token, begun = "", False
        while self._wire is not None:
            found = fast.page(self._wire, bucket, prefix, start_after, token)
            if found is None:
                break
            begun = True
            yield from found[0]
            token = found[1]
            if not token:
                return
        if begun:  # the SDK cannot go on with our token's page, but it can begin behind the last key
            raise Unavailable(f"{bucket}: the listing broke off")
        more = {"StartAfter": start_after} if start_after else {}
        with translated():
            for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, **more):
                for item in page.get("Contents", ()):
                    yield ObjectInfo(
                        item["Key"], item["Size"], item["ETag"].strip('"'), modified_at=item["LastModified"].timestamp()
                    )

    def versions(self, bucket: str) -> Iterator[ObjectInfo]:
        with translated():
            for page in self._s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
                for item in page.get("Versions", ()):
                    yield ObjectInfo(
                        item["Key"], item["Size"], item["ETag"].strip('"'), item["VersionId"],
                        item["LastModified"].timestamp(), is_latest=item["IsLatest"],
                    )  # fmt: skip
                for item in page.get("DeleteMarkers", ()):
                    yield ObjectInfo(
                        item["Key"], 0, "", item["VersionId"], item["LastModified"].timestamp(),
                        is_latest=item["IsLatest"], is_delete_marker=True,
                    )  # fmt: skip

    def head(self, bucket: str, key: str) -> tuple[ObjectInfo, ObjectMeta]:
        if self._wire is not None and (found := fast.head(self._wire, bucket, key)) is not None:
            return found
        with translated():
            answer = self._s3.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
            tags: dict[str, str] = {}
            if answer.get("TagCount", 1):  # absent means the server does not say, so we ask
                listed = self._s3.get_object_tagging(Bucket=bucket, Key=key)["TagSet"]
                tags = {item["Key"]: item["Value"] for item in listed}
        return _info(key, answer), _meta(answer, tags)

    def read(self, bucket: str, key: str, start: int = 0, length: int | None = None, if_match: str = "") -> bytes:
        if length == 0:
            return b""
        span = ""
        if start or length is not None:
            span = f"bytes={start}-{'' if length is None else start + length - 1}"
        if self._wire is not None and (data := fast.read(self._wire, bucket, key, span, if_match)) is not None:
            return data
        more: dict[str, Any] = {"IfMatch": f'"{if_match}"'} if if_match else {}
        if span:
            more["Range"] = span
        with translated():
            try:
                return self._s3.get_object(Bucket=bucket, Key=key, **more)["Body"].read()
            except self._s3.exceptions.ClientError as error:
                # 416: the range starts behind the end, which is no bytes and no failure.
                if error.response.get("Error", {}).get("Code") not in ("InvalidRange", "416"):
                    raise
                return b""

    def read_into(self, bucket: str, key: str, start: int, buffer: memoryview, if_match: str = "") -> int:
        if self._wire is not None and len(buffer):
            count = fast.read_into(self._wire, bucket, key, start, buffer, if_match)
            if count is not None:
                return count
        return PlainReads.read_into(self, bucket, key, start, buffer, if_match)

    def fetch(self, bucket: str, key: str, buffer: memoryview, if_match: str = "") -> tuple[ObjectInfo, ObjectMeta]:
        if self._wire is not None:
            found = fast.fetch(self._wire, bucket, key, buffer, if_match)
            if found is not None:
                return found
        return PlainReads.fetch(self, bucket, key, buffer, if_match)

    def write(
        self, bucket: str, key: str, data: Bytes, meta: ObjectMeta, *, if_absent: bool = False, if_match: str = "",
        digests: Digests = (),
    ) -> ObjectInfo:  # fmt: skip
        if self._wire is not None:
            written = fast.write(
                self._wire, bucket, key, data, meta, if_absent=if_absent, if_match=if_match, digests=digests
            )
            if written is not None:
                return written
        with translated():
            answer = self._s3.put_object(
                Bucket=bucket, Key=key, Body=bytes(data), ChecksumCRC64NVME=checksum(data, digests),
                **_conditions(if_absent, if_match), **_arguments(meta),
            )  # fmt: skip
        told = answer.get("ChecksumCRC64NVME")
        return ObjectInfo(
            key, len(data), answer["ETag"].strip('"'), answer.get("VersionId", ""),
            digests=(digest_of(told),) if told else (),
        )  # fmt: skip

    def open_upload(self, bucket: str, key: str, meta: ObjectMeta, size_bytes: int) -> str:
        with translated():
            return self._s3.create_multipart_upload(
                Bucket=bucket, Key=key, ChecksumAlgorithm="CRC64NVME", ChecksumType="FULL_OBJECT", **_arguments(meta)
            )["UploadId"]

    def write_part(
        self, bucket: str, key: str, upload: str, part: Part, data: Bytes, *, last: bool, digests: Digests = ()
    ) -> Part:
        if self._wire is not None:
            etag = fast.write_part(self._wire, bucket, key, upload, part.number, data, digests)
            if etag is not None:
                return Part(part.number, part.offset_bytes, len(data), etag)
        with translated():
            answer = self._s3.upload_part(
                Bucket=bucket, Key=key, UploadId=upload, PartNumber=part.number, Body=bytes(data),
                ChecksumCRC64NVME=checksum(data, digests),
            )  # fmt: skip
        return Part(part.number, part.offset_bytes, len(data), answer["ETag"].strip('"'))

    def parts(self, bucket: str, key: str, upload: str) -> list[Part]:
        """S3 lists numbers and sizes only: offsets are right when all parts but the last have one size."""
        latest: dict[int, Mapping[str, Any]] = {}
        with translated():
            for page in self._s3.get_paginator("list_parts").paginate(Bucket=bucket, Key=key, UploadId=upload):
                for item in page.get("Parts", ()):
                    before = latest.get(item["PartNumber"])
                    # A part sent twice is listed twice by some servers.
                    if before is None or item["LastModified"] >= before["LastModified"]:
                        latest[item["PartNumber"]] = item
        size = max((item["Size"] for item in latest.values()), default=0)
        return [
            Part(number, (number - 1) * size, item["Size"], item["ETag"].strip('"'))
            for number, item in sorted(latest.items())
        ]

    def complete(
        self, bucket: str, key: str, upload: str, parts: list[Part], *, if_absent: bool = False, if_match: str = ""
    ) -> ObjectInfo:
        listed = [{"PartNumber": part.number, "ETag": f'"{part.etag}"'} for part in parts]
        with translated():
            answer = self._s3.complete_multipart_upload(
                Bucket=bucket,
                Key=key,
                UploadId=upload,
                MultipartUpload={"Parts": listed},
                **_conditions(if_absent, if_match),
            )
        return _info(key, {**answer, "ContentLength": sum(part.size_bytes for part in parts)})

    def abort(self, bucket: str, key: str, upload: str) -> None:
        try:
            with translated():
                self._s3.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload)
        except NotFound:
            return

    def delete(self, bucket: str, key: str, if_match: str = "") -> None:
        more = {"IfMatch": f'"{if_match}"'} if if_match else {}
        try:
            with translated():
                self._s3.delete_object(Bucket=bucket, Key=key, **more)
        except NotFound:
            return

    def freeze(self, bucket: str) -> str:
        """A Deny statement in the bucket policy, for everybody, ourselves included; the token is the policy before."""
        before = self._policy(bucket)
        policy: dict[str, Any] = json.loads(before) if before else {"Version": "2012-10-17", "Statement": []}
        statements: list[dict[str, Any]] = policy["Statement"]
        if any(item.get("Sid") == _FREEZE for item in statements):
            return ""
        deny = {
            "Sid": _FREEZE,
            "Effect": "Deny",
            "Principal": "*",
            "Action": list(_WRITES),
            "Resource": f"arn:aws:s3:::{bucket}/*",
        }
        with translated():
            frozen = {**policy, "Statement": [*statements, deny]}
            self._s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(frozen))
        if _FREEZE not in self._policy(bucket):
            raise Unsupported(
                f"{self.place} took the freeze of {bucket} and forgot it", hint="stop the writers by hand"
            )
        return before

    def thaw(self, bucket: str, token: str) -> None:
        now = self._policy(bucket)
        if not now:
            return
        policy: dict[str, Any] = json.loads(now)
        kept = [item for item in policy["Statement"] if item.get("Sid") != _FREEZE]
        with translated():
            if kept:
                self._s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({**policy, "Statement": kept}))
            else:
                self._s3.delete_bucket_policy(Bucket=bucket)

    def _policy(self, bucket: str) -> str:
        with translated():
            try:
                return self._s3.get_bucket_policy(Bucket=bucket)["Policy"]
            except self._s3.exceptions.ClientError as error:
                if error.response["Error"]["Code"] in ("NoSuchBucketPolicy", "NoSuchPolicy"):
                    return ""
                raise


def _conditions(if_absent: bool, if_match: str) -> dict[str, str]:
    if if_absent:
        return {"IfNoneMatch": "*"}
    return {"IfMatch": f'"{if_match}"'} if if_match else {}


def _arguments(meta: ObjectMeta) -> dict[str, Any]:
    named = {
        "ContentType": meta.content_type,
        "CacheControl": meta.cache_control,
        "ContentDisposition": meta.content_disposition,
        "ContentEncoding": meta.content_encoding,
        "ContentLanguage": meta.content_language,
    }
    out: dict[str, Any] = {name: value for name, value in named.items() if value}
    if meta.user:
        out["Metadata"] = dict(meta.user)
    if meta.tags:
        out["Tagging"] = urlencode(meta.tags)
    return out


def _info(key: str, answer: Mapping[str, Any]) -> ObjectInfo:
    crc = answer.get("ChecksumCRC64NVME")
    modified = answer.get("LastModified")
    return ObjectInfo(
        key, answer["ContentLength"], answer["ETag"].strip('"'), answer.get("VersionId", ""),
        modified.timestamp() if modified else 0.0, (digest_of(crc),) if crc else (),
    )  # fmt: skip


def _meta(answer: Mapping[str, Any], tags: Mapping[str, str]) -> ObjectMeta:
    return ObjectMeta(
        answer.get("ContentType", ""), answer.get("CacheControl", ""), answer.get("ContentDisposition", ""),
        answer.get("ContentEncoding", ""), answer.get("ContentLanguage", ""),
        {name.lower(): value for name, value in answer.get("Metadata", {}).items()}, dict(tags),
    )  # fmt: skip
