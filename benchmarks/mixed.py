"""A data set of small and large objects, some with odd names, and what is known of each of them."""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from servers import S3Server

SMALL_BYTES = 16 * 1024
LARGE_BYTES = 40 * 2**20
PART_BYTES = 8 * 2**20
_ODD = ("two words {}", "größe {}", "plus+{}", "percent%20{}", "ключ-{}", "a&b={}", "(x) [y] {}", "~{}'")


@dataclass(frozen=True, slots=True)
class Known:
    size_bytes: int
    sha256: str


def name(small: int, large: int) -> str:
    return f"{small:,} x 16 KiB, {large} x 40 MiB, one empty"


def seed(server: S3Server, bucket: str, small: int, large: int) -> dict[str, Known]:
    """The same bytes every time, no two objects alike. Returns what was stored, by key."""
    client = server.client()
    client.create_bucket(Bucket=bucket)

    def put(number: int) -> tuple[str, Known]:
        odd = _ODD[number // 50 % len(_ODD)].format(number) if number % 50 == 0 else f"o{number:05d}"
        return _put(client, bucket, f"d{number % 30:02d}/{odd}", random.Random(number).randbytes(SMALL_BYTES))

    with ThreadPoolExecutor(8) as pool:
        found = dict(pool.map(put, range(small)))
    for number in range(large):
        found |= [_put_in_parts(client, bucket, f"large/m{number:02d}", random.Random(-number - 1))]
    return found | dict([_put(client, bucket, "empty", b"")])


def listed(client: Any, bucket: str) -> dict[str, int]:
    """Sizes by key; nothing where there is no such bucket."""
    found: dict[str, int] = {}
    try:
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            found |= {item["Key"]: item["Size"] for item in page.get("Contents", [])}
    except client.exceptions.NoSuchBucket:
        return {}
    return found


def same(client: Any, bucket: str, key: str, known: Mapping[str, Known]) -> bool:
    """Whether the object there has the bytes that were stored."""
    body = client.get_object(Bucket=bucket, Key=key)["Body"].read()
    return key in known and hashlib.sha256(body).hexdigest() == known[key].sha256


def _put(client: Any, bucket: str, key: str, body: bytes) -> tuple[str, Known]:
    client.put_object(Bucket=bucket, Key=key, Body=body, ContentType="application/octet-stream")
    return key, Known(len(body), hashlib.sha256(body).hexdigest())


def _put_in_parts(client: Any, bucket: str, key: str, chance: random.Random) -> tuple[str, Known]:
    from boto3.s3.transfer import TransferConfig

    body = chance.randbytes(LARGE_BYTES)
    config = TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES)
    client.upload_fileobj(io.BytesIO(body), bucket, key, Config=config)
    return key, Known(len(body), hashlib.sha256(body).hexdigest())
