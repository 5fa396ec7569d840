"""A page of ListObjectsV2, in all the forms that servers write: the quick reader and the XML reader agree."""

from __future__ import annotations

from urllib.parse import quote_plus
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as some

from crossload.ports.errors import Invalid, Unavailable
from crossload.providers.aws import pages
from crossload.providers.aws.pages import read_page

HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
URL = "<EncodingType>url</EncodingType>"


def item(key: str, etag: str = "&quot;abc&quot;", more: str = "", size: int = 7) -> str:
    return (
        f"<Contents><Key>{key}</Key><LastModified>2024-05-01T10:00:00.000Z</LastModified><ETag>{etag}</ETag>"
        f"<Size>{size}</Size>{more}<StorageClass>STANDARD</StorageClass></Contents>"
    )


def document(*items: str, before: str = URL, after: str = "", head: str = HEAD) -> bytes:
    return f"{head}<Name>b</Name><Prefix/>{before}{''.join(items)}{after}</ListBucketResult>".encode()


def both(content: bytes) -> tuple[list[str], bool]:
    """(keys, whether the quick reader took it); the other reader must say the same of every field."""
    quick = pages._plain(content)  # pyright: ignore[reportPrivateUsage]
    slow = pages._any(content)  # pyright: ignore[reportPrivateUsage]
    assert quick is None or quick == slow
    found, _ = read_page(content, "b")
    assert found == slow[0]
    return [info.key for info in found], quick is not None


@given(some.lists(some.text(some.characters(exclude_categories=("Cs", "Cc")), min_size=1), max_size=5))
def test_keys_come_back_as_they_are(keys: list[str]) -> None:
    encoded = document(*(item(quote_plus(key, safe="/")) for key in keys))
    assert both(encoded) == (keys, True)
    plain = document(*(item(escape(key)) for key in keys), before="")
    assert both(plain)[0] == keys


def test_all_fields_of_an_object() -> None:
    (info,), token = read_page(document(item("a%2Fb+c%2B", size=5)), "b")
    assert (info.key, info.size_bytes, info.etag, info.version, token) == ("a/b c+", 5, "abc", "", "")
    assert info.modified_at == 1714557600.0


OWNER = "<Owner><ID>me</ID><DisplayName>a &amp; b</DisplayName></Owner>"


@pytest.mark.parametrize(
    ("content", "keys", "quick"),
    [
        (document(), [], True),
        (document(item("k", more=OWNER)), ["k"], True),
        (document(item("k", more="<Owner/>"), item("l", more="<Owner><ID/></Owner>")), ["k", "l"], True),
        (document(item("k").replace("<Size>", "<ChecksumAlgorithm>CRC32</ChecksumAlgorithm><ChecksumType>"
         "FULL_OBJECT</ChecksumType><Size>")), ["k"], True),
        (document(item("k", etag='"abc"')), ["k"], True),
        (document(item("k"), after="\n"), ["k"], True),
        (document(item("k")) + b"\n", ["k"], True),
        (document(item("k"), head="<ListBucketResult>"), ["k"], True),
        (document(item("a &amp; b&#x20;c"), before=""), ["a & b c"], False),
        (document(item("Contents")), ["Contents"], True),
        (document(item("<![CDATA[<Contents>x</Contents>]]>"), before=""), ["<Contents>x</Contents>"], False),
        (document(item("k"), before="<!-- <Contents> -->"), ["k"], False),
        (document(item("k").replace("><", ">\r\n  <")), ["k"], False),
        (document(item("k").replace("<Contents>", '<Contents a="1">')), ["k"], False),
        (document("<Contents><Size>1</Size><Key>k</Key></Contents>"), ["k"], False),
        (document(item("k", more="<RestoreStatus><IsRestoreInProgress>false</IsRestoreInProgress></RestoreStatus>")),
         ["k"], False),
        (document(item("k")).replace(b"<ListB", b"<s:ListB").replace(b"</ListB", b"</s:ListB")
         .replace(b"xmlns=", b"xmlns:s="), ["k"], False),
        (document(item("é"), head=HEAD.replace("UTF-8", "ISO-8859-1")).decode().encode("latin-1"), ["é"], False),
    ],
)  # fmt: skip
def test_forms_of_a_page(content: bytes, keys: list[str], quick: bool) -> None:
    assert both(content) == (keys, quick)


def test_empty_fields_are_no_failure() -> None:
    content = document("<Contents><Key>k</Key><LastModified></LastModified><ETag/><Size>0</Size></Contents>")
    (info,), _ = read_page(content, "b")
    assert (info.etag, info.modified_at, info.size_bytes) == ("", 0.0, 0)


@pytest.mark.parametrize(
    ("after", "token"),
    [
        ("<IsTruncated>true</IsTruncated><NextContinuationToken>a/b=</NextContinuationToken>", "a/b="),
        ("<IsTruncated>true</IsTruncated><NextContinuationToken>a&amp;b</NextContinuationToken>", "a&b"),
        ("<IsTruncated>false</IsTruncated><NextContinuationToken/>", ""),
        ("<IsTruncated>false</IsTruncated><NextContinuationToken>x</NextContinuationToken>", ""),
        ("", ""),
    ],
)
def test_the_token_of_the_next_page(after: str, token: str) -> None:
    assert read_page(document(item("k"), after=after), "b")[1] == token
    assert read_page(document(item("k"), before=after), "b")[1] == token


def test_a_page_that_goes_on_without_a_token_is_not_taken_for_the_end() -> None:
    with pytest.raises(Invalid, match="no continuation token"):
        read_page(document(item("k"), after="<IsTruncated>true</IsTruncated>"), "b")


@pytest.mark.parametrize(
    "content",
    [
        b"", b"<html>busy", document(item("k"))[:-5], document(item("k"))[:-60], b"\xff" + document(),
        document(item("k").replace("<Key>k</Key>", "")), document(item("k", etag="&x;")),
        document(item("k").replace("<Size>7</Size>", "<Size></Size>")),
        document(item("k").replace("2024-05-01T10:00:00.000Z", "yesterday")),
    ],
)  # fmt: skip
def test_half_a_page_is_asked_for_again(content: bytes) -> None:
    with pytest.raises(Unavailable):
        read_page(content, "b")
