"""S3's answers to the requests of `wire`, in the words of the Store port. None everywhere means: ask the SDK."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Mapping
from dataclasses import replace
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import cast
from urllib.parse import urlencode
from xml.etree import ElementTree

from awscrt import checksums

from crossload.estate.digest import Digest
from crossload.ports.errors import PreconditionFailed, Unavailable
from crossload.ports.store import Bytes, Digests, ObjectInfo, ObjectMeta
from crossload.providers.aws.pages import read_page
from crossload.providers.aws.vendors import CLASS_NAMES, CLASS_WORDS
from crossload.providers.aws.wire import Wire
from crossload.providers.keepalive import Answer

_CRC = "x-amz-checksum-crc64nvme"
_META = "x-amz-meta-"


def crc64nvme_base64(data: Bytes) -> str:
    """Big-endian base64 of CRC-64/NVME, the form of `x-amz-checksum-crc64nvme`."""
    return base64.b64encode(checksums.crc64nvme(cast("bytes", data)).to_bytes(8, "big")).decode()


def digest_of(crc: str) -> Digest:
    """What `crc64nvme_base64` gave, or the server, in the port's words."""
    return Digest("crc64nvme", base64.b64decode(crc).hex())


def checksum(data: Bytes, digests: Digests) -> str:
    """`crc64nvme_base64`, from the digests that are known already if they name it."""
    for digest in digests:
        if digest.algorithm == "crc64nvme":
            return base64.b64encode(bytes.fromhex(digest.hex)).decode()
    return crc64nvme_base64(data)


def head(wire: Wire, bucket: str, key: str) -> tuple[ObjectInfo, ObjectMeta] | None:
    answer = wire.ask("HEAD", bucket, key, {"x-amz-checksum-mode": "ENABLED"})
    return None if answer is None else _described(wire, bucket, key, answer)


def fetch(wire: Wire, bucket: str, key: str, buffer: memoryview, if_match: str) -> tuple[ObjectInfo, ObjectMeta] | None:
    """The object's bytes in the buffer; its digest is not compared here, the caller computes one anyway."""
    headers = {"x-amz-checksum-mode": "ENABLED"}
    if if_match:
        headers["if-match"] = f'"{if_match}"'
    answer = wire.ask("GET", bucket, key, headers, into=buffer)
    if answer is None:
        return None
    if answer.filled != int(answer.headers.get("content-length", answer.filled)):
        raise PreconditionFailed(f"{bucket}/{key} is larger than it was when it was listed")
    return _described(wire, bucket, key, answer)


def _described(wire: Wire, bucket: str, key: str, answer: Answer) -> tuple[ObjectInfo, ObjectMeta] | None:
    """Tags are asked for where the answer does not say how many there are, unless the store is known to say it always
    and we are known to be allowed to see them."""
    tags: dict[str, str] | None = {}
    count = answer.headers.get("x-amz-tagging-count")
    if count != "0" and (count is not None or not wire.tells_tag_count(bucket)):
        tags = _tags(wire.ask("GET", bucket, key, {}, {"tagging": ""}))
        if tags is None:
            return None
        wire.may_see_tags(bucket)
    return _info(key, answer), _meta(answer.headers, tags)


def read(wire: Wire, bucket: str, key: str, span: str, if_match: str) -> bytes | None:
    """`span` is a Range header or ""; a whole object's checksum is compared when the server sends it along."""
    headers = {"if-match": f'"{if_match}"'} if if_match else {}
    headers |= {"range": span} if span else {"x-amz-checksum-mode": "ENABLED"}
    answer = wire.ask("GET", bucket, key, headers)
    if answer is None:
        return None
    crc = answer.headers.get(_CRC)
    whole = answer.status_code == 200 and answer.headers.get("x-amz-checksum-type", "FULL_OBJECT") == "FULL_OBJECT"
    if crc and whole and crc != crc64nvme_base64(answer.content):
        raise Unavailable(f"{bucket}/{key}: the bytes that arrived are not those of checksum {crc}")
    return answer.content


def read_into(wire: Wire, bucket: str, key: str, start: int, buffer: memoryview, if_match: str) -> int | None:
    headers = {"range": f"bytes={start}-{start + len(buffer) - 1}"}
    if if_match:
        headers["if-match"] = f'"{if_match}"'
    answer = wire.ask("GET", bucket, key, headers, into=buffer)
    return None if answer is None or answer.status_code != 206 else answer.filled


def write(
    wire: Wire, bucket: str, key: str, data: Bytes, meta: ObjectMeta, *, if_absent: bool, if_match: str,
    digests: Digests,
) -> ObjectInfo | None:  # fmt: skip
    headers = _headers(meta if wire.tags() != "none" else replace(meta, tags={}))
    headers[_CRC] = checksum(data, digests)
    if if_absent:
        headers["if-none-match"] = "*"
    elif if_match:
        headers["if-match"] = f'"{if_match}"'
    answer = wire.ask("PUT", bucket, key, headers, content=data)
    if answer is None or "etag" not in answer.headers:
        return None
    told = answer.headers.get(_CRC)
    return ObjectInfo(
        key, len(data), _etag(answer), answer.headers.get("x-amz-version-id", ""),
        digests=(digest_of(told),) if told else (),
    )  # fmt: skip


def write_part(
    wire: Wire, bucket: str, key: str, upload: str, number: int, data: Bytes, digests: Digests
) -> str | None:
    """The part's etag."""
    query = {"partNumber": str(number), "uploadId": upload}
    headers = {_CRC: checksum(data, digests)}
    answer = wire.ask("PUT", bucket, key, headers, query, data)
    return None if answer is None or "etag" not in answer.headers else _etag(answer)


def page(wire: Wire, bucket: str, prefix: str, start_after: str, token: str) -> tuple[list[ObjectInfo], str] | None:
    """One page of ListObjectsV2: (objects, the token of the next page or "")."""
    query = {"list-type": "2", "encoding-type": "url", "max-keys": "1000"}
    named = {"prefix": prefix, "start-after": "" if token else start_after, "continuation-token": token}
    answer = wire.ask("GET", bucket, "", {}, query | {name: value for name, value in named.items() if value})
    return None if answer is None else read_page(answer.content, bucket)


def _etag(answer: Answer) -> str:
    return answer.headers["etag"].strip('"')


def _info(key: str, answer: Answer) -> ObjectInfo:
    crc = answer.headers.get(_CRC)
    return ObjectInfo(
        key, int(answer.headers["content-length"]), _etag(answer), answer.headers.get("x-amz-version-id", ""),
        _seconds(answer.headers.get("last-modified", "")),
        (digest_of(crc),) if crc else (),
    )  # fmt: skip


@lru_cache(maxsize=256)
def _seconds(date: str) -> float:
    """Of an HTTP date; objects written in the same second share it."""
    with contextlib.suppress(ValueError):
        return parsedate_to_datetime(date).timestamp()
    return 0.0


def _meta(headers: Mapping[str, str], tags: Mapping[str, str]) -> ObjectMeta:
    user = {name[len(_META) :]: headers[name] for name in headers if name.startswith(_META)}
    return ObjectMeta(
        headers.get("content-type", ""), headers.get("cache-control", ""), headers.get("content-disposition", ""),
        headers.get("content-encoding", ""), headers.get("content-language", ""), user, tags,
        CLASS_WORDS.get(headers.get("x-amz-storage-class", ""), ""), headers.get("expires", ""),
    )  # fmt: skip


def _headers(meta: ObjectMeta) -> dict[str, str]:
    named = {
        "content-type": meta.content_type,
        "cache-control": meta.cache_control,
        "content-disposition": meta.content_disposition,
        "content-encoding": meta.content_encoding,
        "content-language": meta.content_language,
        "expires": meta.expires,
        "x-amz-storage-class": CLASS_NAMES.get(meta.storage_class, ""),
        "x-amz-tagging": urlencode(meta.tags),
    }
    user = {f"{_META}{name}": value for name, value in meta.user.items()}
    return {name: value for name, value in named.items() if value} | user


def _tags(answer: Answer | None) -> dict[str, str] | None:
    if answer is None:
        return None
    try:
        root = ElementTree.fromstring(answer.content)  # noqa: S314  # from the store we signed in to; no entities since 3.11
    except ElementTree.ParseError:
        return None
    found: dict[str, str] = {}
    for tag in root.iterfind("{*}TagSet/{*}Tag"):
        found[tag.findtext("{*}Key") or ""] = tag.findtext("{*}Value") or ""
    return found
