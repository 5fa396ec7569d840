import hashlib

import pytest
from botocore.exceptions import ClientError

from helpdesk.documents import DocumentMissing, Documents


def test_what_was_written_is_read_back(documents, prefix):
    documents.write(prefix + "a.txt", "größer, 大きい")
    assert documents.read(prefix + "a.txt") == "größer, 大きい"


def test_etag_is_the_md5_of_the_bytes(documents, prefix):
    assert documents.write(prefix + "a.txt", "hello") == hashlib.md5(b"hello").hexdigest()


def test_a_second_write_replaces_the_first(documents, prefix):
    documents.write(prefix + "a.txt", "first")
    documents.write(prefix + "a.txt", "second")
    assert documents.read(prefix + "a.txt") == "second"


def test_missing_document_has_its_own_error(documents, prefix):
    with pytest.raises(DocumentMissing):
        documents.read(prefix + "nothing.txt")


def test_exists(documents, prefix):
    assert not documents.exists(prefix + "a.txt")
    documents.write(prefix + "a.txt", "x")
    assert documents.exists(prefix + "a.txt")


def test_author_is_kept_as_metadata(documents, prefix):
    documents.write(prefix + "a.txt", "x", author="Ada")
    documents.write(prefix + "b.txt", "x")
    assert documents.author(prefix + "a.txt") == "Ada"
    assert documents.author(prefix + "b.txt") is None


def test_keys_with_sizes_in_order(documents, prefix):
    for name in ("b.txt", "a.txt", "sub/c d+e.txt"):
        documents.write(prefix + name, name)
    assert documents.keys(prefix) == [(prefix + name, len(name)) for name in ("a.txt", "b.txt", "sub/c d+e.txt")]


def test_folders(documents, prefix):
    for name in ("top.txt", "one/a.txt", "one/b.txt", "two/c.txt"):
        documents.write(prefix + name, name)
    assert documents.folders(prefix) == [prefix + "one/", prefix + "two/"]


def test_start_reads_only_the_first_bytes(documents, prefix):
    documents.write(prefix + "long.txt", "0123456789" * 100)
    assert documents.start(prefix + "long.txt", 12) == "012345678901"


def test_an_empty_document(documents, prefix):
    documents.write(prefix + "empty.txt", "")
    assert documents.read(prefix + "empty.txt") == ""
    assert documents.keys(prefix) == [(prefix + "empty.txt", 0)]


def test_removing_twice_is_no_error(documents, prefix):
    documents.write(prefix + "a.txt", "x")
    documents.remove(prefix + "a.txt")
    documents.remove(prefix + "a.txt")
    assert not documents.exists(prefix + "a.txt")


def test_a_bucket_that_is_not_there(prefix):
    with pytest.raises(ClientError) as caught:
        Documents("helpdesk-no-such-bucket").write(prefix + "a.txt", "x")
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] in (403, 404)
