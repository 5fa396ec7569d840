"""One page of ListObjectsV2 as the server wrote it, to objects: a third of what a general XML reader costs.

Servers write a page in one of a few plain forms, and those are read by one expression. Whatever is not exactly of such
a form (another order of elements, CDATA, comments, a namespace prefix, another encoding) is read by the XML reader."""

from __future__ import annotations

import re
from datetime import datetime
from functools import lru_cache
from urllib.parse import unquote_plus
from xml.etree import ElementTree

from crossload.ports.errors import Invalid, Unavailable
from crossload.ports.store import ObjectInfo

_Page = tuple[list[ObjectInfo], bool, str]  # objects, whether there is more, the token for it
_HEAD = re.compile(
    r'(?:<\?xml version="1\.0"(?: encoding="[Uu][Tt][Ff]-8")?(?: standalone="\w+")? ?\?>)?\s*'
    r'<ListBucketResult(?: xmlns="[^"]*")?>'
)
_OBJECT = re.compile(
    r"<Contents><Key>([^<]+)</Key><LastModified>([^<]*)</LastModified><ETag>([^<]*)</ETag>"
    r"(?:<Checksum[A-Za-z]+>[^<]*</Checksum[A-Za-z]+>)*<Size>(\d+)</Size>"
    r"(?:<StorageClass>[^<]*</StorageClass>|<StorageClass/>|<Owner>(?:<ID>[^<]*</ID>|<ID/>|<DisplayName>[^<]*"
    r"</DisplayName>|<DisplayName/>)*</Owner>|<Owner/>)*</Contents>"
)
_ENDS = ("</ListBucketResult>", "</ListBucketResult>\n")


def read_page(content: bytes, bucket: str) -> tuple[list[ObjectInfo], str]:
    """(objects, the token of the next page or ""). Raises Unavailable for a page that is not whole or makes no sense
    (it is asked for again), Invalid for one that promises more and does not say how to get it."""
    try:
        found, truncated, token = _plain(content) or _any(content)
    except ElementTree.ParseError as error:
        raise Unavailable(f"{bucket}: the listing is no XML: {error}") from error
    except (KeyError, ValueError) as error:
        raise Unavailable(f"{bucket}: the listing makes no sense: {error!r}") from error
    if truncated and not token:
        # Taking this for the end would lose every object behind it.
        raise Invalid(
            f"{bucket}: the listing goes on, but names no continuation token", hint="is list-type=2 known there?"
        )
    return found, token if truncated else ""


def _plain(content: bytes) -> _Page | None:
    """None unless the whole page is of the plain form."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    if not _HEAD.match(text) or not text.endswith(_ENDS) or "<!" in text or "\r" in text:
        return None
    rows = _OBJECT.findall(text)
    if text.count("<Contents") + text.count("</Contents") != 2 * len(rows):
        return None
    encoded = "<EncodingType>url</EncodingType>" in text
    found: list[ObjectInfo] = []
    for key, modified, etag, size in rows:
        if encoded:
            if "%" in key or "+" in key:
                key = unquote_plus(key)
        elif "&" in key:
            return None
        if "&" in etag:
            etag = etag.replace("&quot;", "")
            if "&" in etag:
                return None
        found.append(ObjectInfo(key, int(size), etag.strip('"'), "", _seconds(modified)))
    token = _between(text, "NextContinuationToken")
    return None if "&" in token else (found, _between(text, "IsTruncated") == "true", token)


def _between(text: str, name: str) -> str:
    begin = text.find(f"<{name}>")
    return text[begin + len(name) + 2 : text.find("<", begin + 1)] if begin >= 0 else ""


def _any(content: bytes) -> _Page:
    root = ElementTree.fromstring(content)  # noqa: S314  # from the store we signed in to; no entities since 3.11
    encoded = root.findtext("{*}EncodingType") == "url"
    found: list[ObjectInfo] = []
    for child in root:
        if child.tag.rpartition("}")[2] == "Contents":
            fields = {item.tag.rpartition("}")[2]: item.text or "" for item in child}
            key = unquote_plus(fields["Key"]) if encoded else fields["Key"]
            etag = fields.get("ETag", "").strip('"')
            found.append(ObjectInfo(key, int(fields["Size"]), etag, "", _seconds(fields.get("LastModified", ""))))
    return found, root.findtext("{*}IsTruncated") == "true", root.findtext("{*}NextContinuationToken") or ""


@lru_cache(maxsize=4096)
def _seconds(date: str) -> float:
    """Objects written in the same second share it."""
    return datetime.fromisoformat(date).timestamp() if date else 0.0
