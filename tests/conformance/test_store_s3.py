"""S3Store against SeaweedFS."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from crossload.conformance.store import CASES, Case, StoreBench
from crossload.estate.place import Place
from crossload.lab import Lab
from crossload.ports.provider import Settings
from crossload.ports.store import ObjectMeta, Store
from crossload.providers.aws.errors import translated
from crossload.providers.aws.fast import crc64nvme_base64
from crossload.providers.aws.session import client
from crossload.providers.aws.store import open_store

# What SeaweedFS 4.48 does that S3 does not. Each is a hazard that a plan must name when this store is a target.
KNOWN = {
    "key_double_slash": "`a//b` silently becomes `a/b`",
    "key_backslash": "`a\\b` silently becomes `a/b`",
    "key_trailing_slash": "the bytes of `folder/` are silently dropped",
    "absent_bucket_is_not_found": "an administrator's write makes the bucket",
}
_FREEZABLE = "helpdesk-docs"  # the bucket on which the lab gives a second identity the right to write


def settings_for(lab: Lab, profile: str, **files: str) -> Settings:
    connection = {
        "config_file": "env:CROSSLOAD_LAB_AWS_CONFIG",
        "credentials_file": "env:CROSSLOAD_LAB_AWS_CREDENTIALS",
        "profile": profile,
        **files,
    }
    return Settings(Place("a", "aws", "eu-central-1", "DE", connection), connection, lab.env())


def _profile_file(folder: Path, name: str, endpoint: str, key: str, secret: str) -> dict[str, str]:
    config, credentials = folder / f"{name}.config", folder / f"{name}.credentials"
    config.write_text(f"[profile {name}]\nregion = eu-central-1\nendpoint_url = {endpoint}\n")
    credentials.write_text(f"[{name}]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
    return {"config_file": str(config), "credentials_file": str(credentials)}


@pytest.fixture(scope="module")
def bench(
    conformance_lab: Lab, need: Callable[..., None], tmp_path_factory: pytest.TempPathFactory, dead_port: int
) -> Iterator[StoreBench]:
    need("seaweedfs")
    lab, folder = conformance_lab, tmp_path_factory.mktemp("aws")
    seed = settings_for(lab, "lab-a-seed")
    s3: Any = client(seed, "s3")
    intruder = _profile_file(folder, "intruder", s3.meta.endpoint_url, "AKIANOBODYKNOWSTHIS1", "wrong")
    nobody = _profile_file(folder, "nobody", f"http://127.0.0.1:{dead_port}", "AKIANOBODYKNOWSTHIS1", "wrong")

    def write_damaged(bucket: str, key: str) -> None:
        with translated():
            s3.put_object(Bucket=bucket, Key=key, Body=b"damaged", ChecksumCRC64NVME=crc64nvme_base64(b"intact"))

    def keep_versions(_: Store, bucket: str) -> None:
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})

    made = StoreBench(
        open=lambda: open_store(seed),
        bucket_name=lambda purpose: _FREEZABLE if purpose == "freeze" else f"conf-{purpose}-{secrets.token_hex(4)}",
        unsigned=lambda: open_store(settings_for(lab, "intruder", **intruder)),
        stranger=lambda: open_store(settings_for(lab, "lab-a-stranger")),
        writer=lambda: open_store(settings_for(lab, "lab-a-returner")),
        absent=lambda: open_store(settings_for(lab, "nobody", **nobody)),
        keep_versions=keep_versions,
        write_damaged=write_damaged,
    )
    yield made
    made.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_s3_on_seaweedfs(case: Case[StoreBench], bench: StoreBench, keeps: Callable[..., None]) -> None:
    keeps(case, bench, KNOWN)


# The same through the SDK alone, where the fast path and the SDK could disagree.
_BOTH_WAYS = tuple(
    case
    for case in CASES
    if case.name.startswith(
        ("write_", "range", "empty", "encoded", "user_", "headers_", "tags_", "plain_", "if_", "parts_")
    )
)


@pytest.fixture(scope="module")
def sdk_bench(conformance_lab: Lab, bench: StoreBench) -> StoreBench:
    settings = settings_for(conformance_lab, "lab-a-seed", data_path="sdk")
    return StoreBench(open=lambda: open_store(settings), bucket_name=lambda _: bench.area()[1], folder="sdk")


@pytest.mark.parametrize("case", _BOTH_WAYS, ids=lambda case: case.name)
def test_s3_through_the_sdk(case: Case[StoreBench], sdk_bench: StoreBench, keeps: Callable[..., None]) -> None:
    keeps(case, sdk_bench, KNOWN)


def test_both_ways_write_the_same(bench: StoreBench, sdk_bench: StoreBench) -> None:
    meta = ObjectMeta(
        "text/plain", "no-cache", 'inline; filename="a  b"', "", "de", {"owner": " two  spaces "}, {"team": "a b"}
    )
    fast, bucket, at = bench.area()
    slow = sdk_bench.open()
    fast.write(bucket, at + "fast", b"same", meta)
    slow.write(bucket, at + "slow", b"same", meta)
    for name in ("fast", "slow"):
        ours, theirs = (store.head(bucket, at + name) for store in (fast, slow))
        assert ours == theirs
    (one, _), (two, _) = (fast.head(bucket, at + name) for name in ("fast", "slow"))
    assert (one.etag, one.digests) == (two.etag, two.digests)
    assert fast.head(bucket, at + "fast")[1] == fast.head(bucket, at + "slow")[1]
