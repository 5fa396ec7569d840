"""A thin link to a server of the lab: the rate is kept, the delay is felt, and what crosses it is unchanged."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import botocore.session
import httpx
import pytest

from crossload.lab import faults
from crossload.lab.main import main
from crossload.lab.process import is_same_process
from crossload.lab.table import all_servers

if TYPE_CHECKING:
    from crossload.lab import Lab

BUCKET = "lab-thin"


def _client(lab: Lab, config: Path | str) -> Any:
    session = botocore.session.Session(profile="lab-a-seed")
    session.set_config_variable("config_file", str(config))
    session.set_config_variable("credentials_file", lab.env()["CROSSLOAD_LAB_AWS_CREDENTIALS"])
    return boto3.Session(botocore_session=session).client("s3")


@pytest.fixture
def bucket(lab: Lab) -> str:
    if all_servers()["seaweedfs"].missing():
        pytest.skip("seaweedfs is not installed")
    s3 = _client(lab, lab.env()["CROSSLOAD_LAB_AWS_CONFIG"])
    s3.create_bucket(Bucket=BUCKET)
    s3.close()
    return BUCKET


def test_objects_cross_a_thin_link_at_its_rate(lab: Lab, bucket: str) -> None:
    megabits, latency_ms, data = 40, 20, os.urandom(6_000_000)
    with faults.thin_link(lab, "seaweedfs", port_name="s3", megabits=megabits, latency_ms=latency_ms) as link:
        config = link.aws_config()
        s3 = _client(lab, config)
        begun = time.monotonic()
        s3.put_object(Bucket=bucket, Key="big", Body=data)
        up_seconds = time.monotonic() - begun
        begun = time.monotonic()
        assert s3.get_object(Bucket=bucket, Key="big")["Body"].read() == data
        down_seconds = time.monotonic() - begun
        begun = time.monotonic()
        s3.head_object(Bucket=bucket, Key="big")
        assert time.monotonic() - begun >= 2 * latency_ms / 1000
        report = link.report()
        s3.close()
    fastest = len(data) * 8 / (megabits * 1e6)
    assert min(up_seconds, down_seconds) >= 0.95 * fastest
    for way in (report.up, report.down):
        assert way.bytes >= len(data)
        assert way.megabits == pytest.approx(megabits, rel=0.15)
    assert not config.exists()


def test_an_upload_that_was_begun_over_the_link_goes_on_over_it(lab: Lab, front: Any) -> None:
    with faults.thin_link(lab, "fake-gcs", latency_ms=30) as link:
        headers = {"Authorization": front.http.headers["Authorization"]}
        with httpx.Client(base_url=link.url, headers=headers, timeout=30) as http:
            asked = {"uploadType": "resumable", "ifGenerationMatch": 0}
            begun = http.post(f"/upload/storage/v1/b/{front.bucket}/o", params=asked, json={"name": "far"})
            assert begun.headers["location"].startswith(link.url)
            assert http.put(begun.headers["location"], content=b"12345").status_code == 200
    assert front.read("far", alt="media").content == b"12345"
    straight = front.session("near")
    assert straight.headers["location"].startswith(lab.env()["CROSSLOAD_LAB_GCS_ENDPOINT"])


def test_a_link_that_nothing_crossed_or_filled_is_an_error(lab: Lab) -> None:
    with pytest.raises(faults.FaultDidNotFire, match="nothing crossed"):
        with faults.thin_link(lab, "seaweedfs", latency_ms=10):
            pass
    with pytest.raises(faults.FaultDidNotFire, match="nothing had to wait"):
        with faults.thin_link(lab, "seaweedfs", megabits=100) as link:
            httpx.get(f"{link.url}/healthz")
    with pytest.raises(ValueError, match="thin"):
        with faults.thin_link(lab, "seaweedfs"):
            pass
    with pytest.raises(KeyError):
        with faults.thin_link(lab, "seaweedfs", port_name="no-such-port", megabits=1):
            pass


def test_a_link_by_name_on_the_command_line(
    lab: Lab, capsys: pytest.CaptureFixture[str], leftovers: Callable[[Path], list[int]]
) -> None:
    import json

    home = ["--home", str(lab.home)]
    assert main(["fault", "thin-seaweedfs", "on", *home]) == 0
    said = capsys.readouterr().err
    found = re.search(r"http://127\.0\.0\.1:\d+", said)
    assert found is not None
    standing = json.loads((lab.home / "links" / "seaweedfs").read_text())
    assert is_same_process(standing["pid"], standing["ticks"])
    begun = time.monotonic()
    assert httpx.get(f"{found.group()}/healthz", timeout=10).status_code == 200
    assert time.monotonic() - begun >= 0.2, "a round trip for the connection and one for the answer"
    assert main(["fault", "thin-seaweedfs", "on", *home]) == 0
    assert found.group() in capsys.readouterr().err, "there is one link, not two"
    assert main(["fault", "thin-seaweedfs", "off", *home]) == 0
    assert "1 connections" in capsys.readouterr().err
    assert not is_same_process(standing["pid"], standing["ticks"])
    assert main(["fault", "thin-seaweedfs", "off", *home]) == 0
    assert "no link" in capsys.readouterr().err
