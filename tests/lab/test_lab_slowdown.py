"""A store that asks its clients to slow down says it as its cloud does, and clients that listen finish their work."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import botocore.session
import httpx
import pytest
from botocore.config import Config

from crossload.estate.place import Place
from crossload.lab import faults
from crossload.lab.faults.stores import aws_config
from crossload.lab.main import main
from crossload.lab.process import pss_bytes, session_members
from crossload.lab.table import all_servers
from crossload.ports.errors import Throttled
from crossload.ports.provider import Settings
from crossload.ports.retrying import RetryingStore, RetryPolicy
from crossload.ports.store import ObjectMeta
from crossload.providers.aws.store import open_store

if TYPE_CHECKING:
    from crossload.lab import Lab

BUCKET = "lab-slowdown"
SPOKEN = {
    "seaweedfs": (503, "<Code>SlowDown</Code>"),
    "fake-gcs": (429, '"reason": "rateLimitExceeded"'),
    "azurite": (503, "<Code>ServerBusy</Code>"),
}


def _need(server: str) -> None:
    if reason := all_servers()[server].missing():
        pytest.skip(reason)


def _client(lab: Lab, config: Path | str, attempts: int = 1) -> Any:
    session = botocore.session.Session(profile="lab-a-seed")
    session.set_config_variable("config_file", str(config))
    session.set_config_variable("credentials_file", lab.env()["CROSSLOAD_LAB_AWS_CREDENTIALS"])
    retries = {"mode": "standard", "total_max_attempts": attempts}
    return boto3.Session(botocore_session=session).client("s3", config=Config(retries=retries))


def _store(lab: Lab, config: Path) -> Any:
    connection = {
        "config_file": str(config),
        "credentials_file": "env:CROSSLOAD_LAB_AWS_CREDENTIALS",
        "profile": "lab-a-seed",
    }
    return open_store(Settings(Place("a", "aws", "eu-central-1", "DE", connection), connection, lab.env()))


@pytest.fixture
def direct(lab: Lab) -> Iterator[Any]:
    """S3 on its own address, with the bucket of these tests."""
    _need("seaweedfs")
    s3 = _client(lab, lab.env()["CROSSLOAD_LAB_AWS_CONFIG"], attempts=5)
    if BUCKET not in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]:
        s3.create_bucket(Bucket=BUCKET)
    yield s3
    s3.close()


def _all(write: Callable[[int], Any], count: int = 16) -> list[Any]:
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(write, range(count)))


def test_the_sdk_finishes_when_half_of_its_requests_are_refused(lab: Lab, direct: Any) -> None:
    with faults.slowdown(lab, "seaweedfs", percent=50) as road:
        s3 = _client(lab, road.aws_config(), attempts=20)
        answers = _all(lambda number: s3.put_object(Bucket=BUCKET, Key=f"sdk/{number}", Body=b"%d" % number), 12)
        s3.close()
        assert road.refused > 0
        assert road.passed >= 12
    assert sum(answer["ResponseMetadata"]["RetryAttempts"] for answer in answers) == road.refused
    for number in range(12):
        assert direct.get_object(Bucket=BUCKET, Key=f"sdk/{number}")["Body"].read() == b"%d" % number


def test_our_store_finishes_when_half_of_its_requests_are_refused(lab: Lab, direct: Any) -> None:
    policy = RetryPolicy(base_seconds=0.02, delay_seconds_max=0.2)
    with faults.slowdown(lab, "seaweedfs", percent=50) as road:
        store = RetryingStore(_store(lab, road.aws_config()), policy, lambda _line: None)
        _all(lambda number: store.write(BUCKET, f"own/{number}", b"%d" % number, ObjectMeta(user={"n": "x  y"})))
        # A body that is still under way when the refusal comes: the connection ends, the write does not.
        large = os.urandom(9 << 20)
        store.write(BUCKET, "own/large", large, ObjectMeta())
        assert road.refused > 0
    assert direct.get_object(Bucket=BUCKET, Key="own/large")["Body"].read() == large
    for number in range(16):
        assert direct.get_object(Bucket=BUCKET, Key=f"own/{number}")["Body"].read() == b"%d" % number


def test_a_refused_write_is_a_throttled_one_and_the_straight_road_stays_free(lab: Lab, direct: Any) -> None:
    with faults.slowdown(lab, "seaweedfs", percent=100) as road:
        with pytest.raises(Throttled, match="SlowDown"):
            _store(lab, road.aws_config()).write(BUCKET, "refused", b"1", ObjectMeta())
        assert direct.put_object(Bucket=BUCKET, Key="straight", Body=b"1")["ResponseMetadata"]["RetryAttempts"] == 0
        assert road.passed == 0
    names = [item["Key"] for item in direct.list_objects_v2(Bucket=BUCKET)["Contents"]]
    assert "straight" in names
    assert "refused" not in names


@pytest.mark.parametrize("server", SPOKEN)
@pytest.mark.parametrize("limit", [{"percent": 100}, {"requests_per_second": 1}], ids=["share", "rate"])
def test_each_store_says_it_as_its_cloud_does(lab: Lab, server: str, limit: dict[str, int]) -> None:
    _need(server)
    status, words = SPOKEN[server]
    for retry_after in (False, True):
        with faults.slowdown(lab, server, **limit, retry_after=retry_after) as road, httpx.Client() as http:

            def refused(method: str, road: faults.SlowRoad = road, http: httpx.Client = http) -> httpx.Response:
                for _ in range(20):
                    answer = http.request(method, f"{road.url}/x/y")
                    if answer.status_code == status:
                        return answer
                pytest.fail(f"20 requests and no {status}")

            answer = refused("GET")
            assert words in answer.text
            assert ("Retry-After" in answer.headers) is retry_after
            assert refused("HEAD").content == b""
            assert road.refused == 2
            assert road.passed == 0 or "requests_per_second" in limit
    assert httpx.get(f"{road.url}/x/y").status_code not in (429, 503)


def test_a_rate_is_kept_and_what_is_above_it_is_refused(lab: Lab) -> None:
    _need("seaweedfs")
    rate = 40
    with faults.slowdown(lab, "seaweedfs", requests_per_second=rate) as road, httpx.Client() as http:
        begun = time.monotonic()
        while (seconds := time.monotonic() - begun) < 2.0:
            http.get(f"{road.url}/{BUCKET}/none")
        passed, refused = road.passed, road.refused
    burst = rate // 10
    assert rate * seconds * 0.85 <= passed <= rate * seconds + burst + 1
    assert refused > passed / 4


def test_a_store_that_is_gone_does_not_say_slow_down(lab: Lab) -> None:
    _need("azurite")
    with faults.crash(lab, "azurite"):
        answer = httpx.get(lab.env()["CROSSLOAD_LAB_AZURE_FAULTY"])
        assert (answer.status_code, "ServerBusy" in answer.text) == (503, False)


def test_signatures_hold_and_bodies_stream_on_the_road_of_the_fault(lab: Lab, direct: Any) -> None:
    s3 = _client(lab, aws_config(lab, lab.env()["CROSSLOAD_LAB_S3_FAULTY"]))
    for key in ("a b+c%d&e=f?g#h", "ü☃/日本", "x%2Fy", "q;w=1", "~_-!*'()"):
        s3.put_object(Bucket=BUCKET, Key=key, Body=key.encode(), Metadata={"under_score": "two  spaces"})
        assert direct.get_object(Bucket=BUCKET, Key=key)["Body"].read() == key.encode()
    envoy = session_members(lab.pid("envoy"))
    before = pss_bytes(envoy)
    large = os.urandom(48 << 20)
    s3.put_object(Bucket=BUCKET, Key="large", Body=large)
    assert s3.get_object(Bucket=BUCKET, Key="large")["Body"].read() == large
    assert pss_bytes(envoy) - before < 24 << 20
    s3.close()


def test_a_slowdown_that_met_nobody_or_cannot_be_is_an_error(lab: Lab) -> None:
    with pytest.raises(faults.FaultDidNotFire, match="seaweedfs"):
        with faults.slowdown(lab, "seaweedfs", percent=50):
            pass
    with pytest.raises(ValueError, match="percent"):
        with faults.slowdown(lab, "seaweedfs"):
            pass
    with pytest.raises(KeyError, match="nats"):
        with faults.slowdown(lab, "nats", percent=50):
            pass


def test_slowdown_by_name_on_the_command_line(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    home = ["--home", str(lab.home)]
    url = lab.env()["CROSSLOAD_LAB_S3_FAULTY"]

    def statuses() -> set[int]:
        with httpx.Client() as http:
            return {http.get(f"{url}/{BUCKET}/none").status_code for _ in range(150)}

    for name in ("slowdown-seaweedfs", "limit-seaweedfs"):
        assert main(["fault", name, "on", *home]) == 0
        assert url in capsys.readouterr().err
        assert 503 in statuses()
        assert main(["fault", name, "off", *home]) == 0
        assert 503 not in statuses()
    assert main(["fault", "slowdown-nats", "on", *home]) == 2
