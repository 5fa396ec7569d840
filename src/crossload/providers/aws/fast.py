"""S3's answers to the requests of `wire`, in the words of the Store port. None everywhere means: ask the SDK."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from urllib.parse import urlencode
from xml.etree import ElementTree

from awscrt import checksums

from crossload.estate.digest import Digest
from crossload.ports.errors import Unavailable
from crossload.ports.store import ObjectInfo, ObjectMeta
from crossload.providers.aws.wire import Wire
from crossload.providers.keepalive import Answer

_CRC = "x-amz-checksum-crc64nvme"
_META = "x-amz-meta-"


def crc64nvme_base64(data: bytes) -> str:
    """Big-endian base64 of CRC-64/NVME, the form of `x-amz-checksum-crc64nvme`."""
    return base64.b64encode(checksums.crc64nvme(data).to_bytes(8, "big")).decode()


def digest_of(crc: str) -> Digest:
    """What `crc64nvme_base64` gave, or the server, in the port's words."""
    return Digest("crc64nvme", base64.b64decode(crc).hex())


def head(wire: Wire, bucket: str, key: str) -> tuple[ObjectInfo, ObjectMeta] | None:
    answer = wire.ask("HEAD", bucket, key, {"x-amz-checksum-mode": "ENABLED"})
    if answer is None:
        return None
    tags: dict[str, str] | None = {}
    if answer.headers.get("x-amz-tagging-count") != "0":  # absent means the server does not say, so we ask
        tags = _tags(wire.ask("GET", bucket, key, {}, {"tagging": ""}))
    if tags is None:
        return None
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


def write(
    wire: Wire, bucket: str, key: str, data: bytes, meta: ObjectMeta, *, if_absent: bool, if_match: str
) -> ObjectInfo | None:
    headers = _headers(meta)
    headers[_CRC] = crc64nvme_base64(data)
    if if_absent:
        headers["if-none-match"] = "*"
    elif if_match:
        headers["if-match"] = f'"{if_match}"'
    answer = wire.ask("PUT", bucket, key, headers, content=data)
    if answer is None or "etag" not in answer.headers:
        return None
    digests = (digest_of(headers[_CRC]),)
    return ObjectInfo(key, len(data), _etag(answer), answer.headers.get("x-amz-version-id", ""), digests=digests)


def write_part(wire: Wire, bucket: str, key: str, upload: str, number: int, data: bytes) -> str | None:
    """The part's etag."""
    query = {"partNumber": str(number), "uploadId": upload}
    answer = wire.ask("PUT", bucket, key, {_CRC: crc64nvme_base64(data)}, query, data)
    return None if answer is None or "etag" not in answer.headers else _etag(answer)


def _etag(answer: Answer) -> str:
    return answer.headers["etag"].strip('"')


def _info(key: str, answer: Answer) -> ObjectInfo:
    crc = answer.headers.get(_CRC)
    modified = 0.0
    with contextlib.suppress(KeyError, ValueError):
        modified = parsedate_to_datetime(answer.headers["last-modified"]).timestamp()
    return ObjectInfo(
        key, int(answer.headers["content-length"]), _etag(answer), answer.headers.get("x-amz-version-id", ""), modified,
        (digest_of(crc),) if crc else (),
    )  # fmt: skip


def _meta(headers: Mapping[str, str], tags: Mapping[str, str]) -> ObjectMeta:
    user = {name[len(_META) :]: value for name, value in headers.items() if name.startswith(_META)}
    return ObjectMeta(
        headers.get("content-type", ""), headers.get("cache-control", ""), headers.get("content-disposition", ""),
        headers.get("content-encoding", ""), headers.get("content-language", ""), user, tags,
    )  # fmt: skip


def _headers(meta: ObjectMeta) -> dict[str, str]:
    named = {
        "content-type": meta.content_type,
        "cache-control": meta.cache_control,
        "content-disposition": meta.content_disposition,
        "content-encoding": meta.content_encoding,
        "content-language": meta.content_language,
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
