"""The Store port over S3 and S3-compatible servers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from crossload.ports.errors import Invalid, NotFound, PreconditionFailed, Unavailable, Unsupported
from crossload.ports.provider import Settings
from crossload.ports.store import BucketInfo, Bytes, Digests, ObjectInfo, ObjectMeta, Part, PlainReads, StoreFeatures
from crossload.providers.aws import fast
from crossload.providers.aws.answers import arguments_of, info_of, meta_of
from crossload.providers.aws.errors import translated
from crossload.providers.aws.fast import checksum, digest_of
from crossload.providers.aws.session import client, credentials, server_at, vendor_at
from crossload.providers.aws.vendors import Vendor, features, quirks_of
from crossload.providers.aws.versions import Versions
from crossload.providers.aws.wire import Wire

_FREEZE = "CrossloadFreeze"
_WRITES = ("s3:PutObject", "s3:DeleteObject", "s3:DeleteObjectVersion", "s3:PutObjectTagging", "s3:DeleteObjectTagging")
# What is taken for true of a server that nobody recognises.
UNRECOGNISED = StoreFeatures(
    digests_returned=frozenset({"crc64nvme"}),
    digests_verified=frozenset({"crc64nvme"}),
    versions=True,
    tags=True,
    expires=True,
)


def open_store(settings: Settings) -> S3Store:
    return S3Store(settings)


class S3Store(Versions, PlainReads):
    """Digest on every write: crc64nvme in `x-amz-checksum-crc64nvme`, which the server checks. Where it is not known to
    do so none is sent, and the mover reads back what it wrote.

    What a copy asks once per object goes over `wire`, the rest, and every failure, through the SDK. Setting
    `data_path: sdk` sends everything through the SDK, and so do vendors that need the bucket in the host's name.

    `features` are those of the vendor, once it is known: by the setting, the endpoint's host, or its first answer."""

    def __init__(self, settings: Settings) -> None:
        self.place = settings.place.id
        self._settings = settings
        with translated():
            self._s3: Any = client(settings, "s3")
            keys = None if settings.get("data_path") == "sdk" else credentials(settings)
        endpoint = str(self._s3.meta.endpoint_url)
        self._endpoint = endpoint
        self._known: tuple[str, Vendor | None, StoreFeatures] | None = None
        self._all_wire = Wire(endpoint, self._s3.meta.region_name, keys) if keys is not None else None
        if self._all_wire is not None:
            self._all_wire.tags = self._tags_told
        self._vendor_now()  # a misspelt vendor is told at once

    @property
    def features(self) -> StoreFeatures:
        return self._vendor_now()[1]

    def _vendor_now(self) -> tuple[Vendor | None, StoreFeatures]:
        """Who answers, as far as is known by now; asked anew only when somebody said who he is."""
        if self._known is not None and self._known[1] is not None:
            return self._known[1], self._known[2]  # several times for every object
        server = (self._all_wire.server if self._all_wire is not None else "") or server_at(self._endpoint)
        if self._known is None or self._known[0] != server:
            vendor = vendor_at(self._settings, self._endpoint, server)
            told = UNRECOGNISED if vendor is None else features(vendor)
            if self._settings.get("offline_classes") == "allowed":
                told = replace(told, classes_offline=())
            self._known = (server, vendor, told)
        return self._known[1], self._known[2]

    @property
    def _wire(self) -> Wire | None:
        """The short way, for reading."""
        vendor = self._vendor_now()[0]
        if vendor is not None and (vendor.addressing == "virtual" or vendor.quirks.etag_conditions_bare):
            return None
        return self._all_wire

    @property
    def _wire_out(self) -> Wire | None:
        """The short way, for writing: there the digest is what guards the bytes."""
        return self._wire if self.features.digests_verified else None

    def _tags_told(self) -> str:
        """What the wire may think of an object whose answer names no number of tags."""
        vendor = self._vendor_now()[0]
        if vendor is None:
            return "ask"
        return "none" if not vendor.quirks.tags else "told" if vendor.quirks.tells_tag_count else "ask"

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
            history = self.versions(bucket) if self.features.versions else iter(())
            if next(self.list(bucket), None) or next(history, None):
                raise PreconditionFailed(f"bucket {bucket} is not empty", hint="old versions and delete markers count")
            with translated():
                self._s3.delete_bucket(Bucket=bucket)
        except NotFound:
            return False
        return True

    def list(self, bucket: str, prefix: str = "", start_after: str = "") -> Iterator[ObjectInfo]:
        token, begun = "", False
        while (wire := self._wire) is not None:
            found = fast.page(wire, bucket, prefix, start_after, token)
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

    def head(self, bucket: str, key: str) -> tuple[ObjectInfo, ObjectMeta]:
        if (wire := self._wire) is not None and (found := fast.head(wire, bucket, key)) is not None:
            return found
        with translated():
            answer = self._s3.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
            tags: dict[str, str] = {}
            if self.features.tags and answer.get("TagCount", 1):  # absent means the server does not say, so we ask
                listed = self._s3.get_object_tagging(Bucket=bucket, Key=key)["TagSet"]
                tags = {item["Key"]: item["Value"] for item in listed}
        return info_of(key, answer), meta_of(answer, tags)

    def read(self, bucket: str, key: str, start: int = 0, length: int | None = None, if_match: str = "") -> bytes:
        if length == 0:
            return b""
        span = ""
        if start or length is not None:
            span = f"bytes={start}-{'' if length is None else start + length - 1}"
        if (wire := self._wire) is not None and (data := fast.read(wire, bucket, key, span, if_match)) is not None:
            return data
        more: dict[str, Any] = {"IfMatch": self._etag(if_match)} if if_match else {}
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
        if (wire := self._wire) is not None and len(buffer):
            count = fast.read_into(wire, bucket, key, start, buffer, if_match)
            if count is not None:
                return count
        return PlainReads.read_into(self, bucket, key, start, buffer, if_match)

    def fetch(self, bucket: str, key: str, buffer: memoryview, if_match: str = "") -> tuple[ObjectInfo, ObjectMeta]:
        if (wire := self._wire) is not None:
            found = fast.fetch(wire, bucket, key, buffer, if_match)
            if found is not None:
                return found
        return PlainReads.fetch(self, bucket, key, buffer, if_match)

    def write(
        self, bucket: str, key: str, data: Bytes, meta: ObjectMeta, *, if_absent: bool = False, if_match: str = "",
        digests: Digests = (),
    ) -> ObjectInfo:  # fmt: skip
        self._expect_size(len(data), quirks_of(self._vendor_now()[0]).write_size_bytes_max)
        conditions = self._conditions("write", bucket, key, if_absent, if_match)
        wire = self._wire_out
        if wire is not None and (bool(conditions) == (if_absent or bool(if_match))):
            written = fast.write(wire, bucket, key, data, meta, if_absent=if_absent, if_match=if_match, digests=digests)
            if written is not None:
                return written
        with translated():
            answer = self._s3.put_object(
                Bucket=bucket, Key=key, Body=bytes(data), **self._digest(data, digests), **conditions,
                **arguments_of(meta, self.features),
            )  # fmt: skip
        told = answer.get("ChecksumCRC64NVME")
        return ObjectInfo(
            key, len(data), answer["ETag"].strip('"'), answer.get("VersionId", ""),
            digests=(digest_of(told),) if told else (),
        )  # fmt: skip

    def open_upload(self, bucket: str, key: str, meta: ObjectMeta, size_bytes: int) -> str:
        with translated():
            checked = {"ChecksumAlgorithm": "CRC64NVME", "ChecksumType": "FULL_OBJECT"}
            return self._s3.create_multipart_upload(
                Bucket=bucket, Key=key, **(checked if self.features.digests_verified else {}),
                **arguments_of(meta, self.features),
            )["UploadId"]  # fmt: skip

    def write_part(
        self, bucket: str, key: str, upload: str, part: Part, data: Bytes, *, last: bool, digests: Digests = ()
    ) -> Part:
        self._expect_size(len(data), quirks_of(self._vendor_now()[0]).part_size_bytes_max)
        wire = self._wire_out
        if wire is not None:
            etag = fast.write_part(wire, bucket, key, upload, part.number, data, digests)
            if etag is not None:
                return Part(part.number, part.offset_bytes, len(data), etag)
        with translated():
            answer = self._s3.upload_part(
                Bucket=bucket, Key=key, UploadId=upload, PartNumber=part.number, Body=bytes(data),
                **self._digest(data, digests),
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
        if self._equal_parts() and len({part.size_bytes for part in parts[:-1]}) > 1:
            raise Invalid(f"{bucket}/{key}: {self.place} wants all parts but the last of one size")
        conditions = self._conditions("complete", bucket, key, if_absent, if_match)
        with translated():
            answer = self._s3.complete_multipart_upload(
                Bucket=bucket,
                Key=key,
                UploadId=upload,
                MultipartUpload={"Parts": listed},
                **conditions,
            )
        return info_of(key, {**answer, "ContentLength": sum(part.size_bytes for part in parts)})

    def abort(self, bucket: str, key: str, upload: str) -> None:
        try:
            with translated():
                self._s3.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload)
        except NotFound:
            return

    def delete(self, bucket: str, key: str, if_match: str = "") -> None:
        more = self._conditions("delete", bucket, key, False, if_match)
        try:
            with translated():
                self._s3.delete_object(Bucket=bucket, Key=key, **more)
        except NotFound:
            return

    def freeze(self, bucket: str) -> str:
        """A Deny statement in the bucket policy, for everybody, ourselves included; the token is the policy before."""
        vendor = self._vendor_now()[0]
        if vendor is not None and "bucket_policy" in vendor.known and not vendor.quirks.bucket_policy:
            raise Unsupported(f"{vendor.title} has no policy that denies writes", hint="stop the writers by hand")
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

    # -- how this vendor wants it ------------------------------------------------------------------------------------

    def _etag(self, etag: str) -> str:
        return etag if quirks_of(self._vendor_now()[0]).etag_conditions_bare else f'"{etag}"'

    def _digest(self, data: Bytes, digests: Digests) -> dict[str, str]:
        return {"ChecksumCRC64NVME": checksum(data, digests)} if self.features.digests_verified else {}

    def _equal_parts(self) -> bool:
        vendor = self._vendor_now()[0]
        return vendor is not None and vendor.quirks.parts_equal

    def _expect_size(self, size_bytes: int, most: int) -> None:
        if size_bytes > most:
            raise Invalid(
                f"{self.place}: {size_bytes} bytes in one request are more than it takes ({most})",
                hint="choose a smaller `data.part_size_mib`",
            )

    def _conditions(self, call: str, bucket: str, key: str, if_absent: bool, if_match: str) -> dict[str, str]:
        """The headers of a condition. Where a vendor is known not to take it, we look ourselves: that leaves a moment
        in which somebody else may write, so it is only done where there is no better way."""
        if not (if_absent or if_match):
            return {}
        vendor = self._vendor_now()[0]
        quirk = f"{call}_if_{'absent' if if_absent else 'match'}"
        if vendor is None or quirk not in vendor.known or getattr(vendor.quirks, quirk):
            return {"IfNoneMatch": "*"} if if_absent else {"IfMatch": self._etag(if_match)}
        try:
            there = self.head(bucket, key)[0].etag
        except NotFound:
            there = ""
        if there != if_match and (there or call != "delete"):
            raise PreconditionFailed(f"{bucket}/{key}: the condition does not hold")
        return {}

    def _policy(self, bucket: str) -> str:
        with translated():
            try:
                return self._s3.get_bucket_policy(Bucket=bucket)["Policy"]
            except self._s3.exceptions.ClientError as error:
                if error.response["Error"]["Code"] in ("NoSuchBucketPolicy", "NoSuchPolicy"):
                    return ""
                raise
