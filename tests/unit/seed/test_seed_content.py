"""The seed's bytes: the same on every machine and every run, of the size that was asked for."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib

import pytest

from crossload.lab.seed_content import KIB, MIB, SeedObject, log_lines, noise, number_of, stored_gzip, ticket


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# Pinned: a change of any of these makes every seeded lab differ from every earlier one.
@pytest.mark.parametrize(
    ("made", "digest"),
    [
        (lambda: noise("a", 100_000), "3960bb7c3e9201eb3e3035c55c541e80f1048b7b2e53944930c909d14e92a8a7"),
        (lambda: noise("a", 3 * MIB + 5), "b9c2c5dd61d92ee8f771cc5ba204e8b67cf45ca4de522eab6bd731a0b2d8eb01"),
        (lambda: ticket("t", 2 * KIB), "bdd552e86a93281ef0c74da173ffc8803b562287084e6e5192bea89de1bfacff"),
        (lambda: log_lines("l", 60 * KIB), "8cf9ad6a55e7f55fb6d994a47fa45f8f57c7d5bb53825896b7992ba48c8f158b"),
        (lambda: stored_gzip(b"hello"), "ffa14e9e7aa85857fc2841fb2b57c77e0063f3e8ce505b88c0fcdc9971ba1f63"),
    ],
)
def test_bytes_are_pinned(made, digest) -> None:
    assert sha256(made()) == digest


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, MIB - 1, MIB, MIB + 1, 2 * MIB + 10])
def test_noise_has_the_size_asked_for(size: int) -> None:
    assert len(noise("x", size)) == size


def test_noise_differs_by_name_and_does_not_shrink() -> None:
    one, other = noise("one", 64 * KIB), noise("other", 64 * KIB)
    assert one[:64] != other[:64]
    assert len(zlib.compress(one, 9)) > 0.99 * len(one)


def test_noise_does_not_repeat_itself_inside_a_long_object() -> None:
    data = noise("long", 8 * MIB)
    assert len({data[at : at + 4 * KIB] for at in range(0, len(data), 4 * KIB)}) == len(data) // (4 * KIB)


def test_tickets_are_json_of_about_the_size() -> None:
    data = ticket("tickets/1.json", 2 * KIB)
    assert json.loads(data)["ticket"] == "tickets/1.json"
    assert KIB < len(data) < 3 * KIB


def test_log_lines_are_json_lines_that_compress() -> None:
    data = log_lines("logs/1", 100 * KIB)
    rows = [json.loads(line) for line in data.decode().splitlines()]
    assert [row["n"] for row in rows] == list(range(len(rows)))
    assert 70 * KIB < len(data) < 130 * KIB
    assert len(zlib.compress(data)) < len(data) / 4


def test_stored_gzip_is_gzip() -> None:
    assert gzip.decompress(stored_gzip(b'{"a": 1}')) == b'{"a": 1}'
    with pytest.raises(ValueError, match="65,535"):
        stored_gzip(bytes(70_000))


def test_sizes_stay_in_their_range_and_favour_small_ones() -> None:
    sizes = [number_of(f"n{number}", 1000, 64_000) for number in range(2000)]
    assert min(sizes) >= 1000
    assert max(sizes) <= 64_000
    assert sorted(sizes)[1000] < 12_000  # the middle of a uniform choice would be 32,500


def test_etag_of_parts_is_the_md5_of_their_md5s() -> None:
    item = SeedObject("big", "noise", 5 * MIB, part_size_bytes=2 * MIB)
    parts = list(item.parts())
    assert [len(part) for part in parts] == [2 * MIB, 2 * MIB, MIB]
    joined = b"".join(hashlib.md5(part).digest() for part in parts)
    assert item.etag() == f"{hashlib.md5(joined).hexdigest()}-3"
    assert SeedObject("one", "text", text="é", charset="iso-8859-1").etag() == hashlib.md5(b"\xe9").hexdigest()
