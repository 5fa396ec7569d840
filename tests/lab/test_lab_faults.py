"""Each fault really happens, ends with its block, and complains when it did not happen."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from crossload.lab import faults
from crossload.lab.main import main
from crossload.lab.table import all_servers

if TYPE_CHECKING:
    from crossload.lab import Lab


def _model(lab: Lab, road: str = "CROSSLOAD_LAB_LLM_A_FAULTY") -> httpx.Response:
    headers = {"Authorization": f"Bearer {lab.secret('llm-a')}"}
    return httpx.get(lab.env()[road] + "/models", headers=headers, timeout=10)


def test_objects_survive_a_crash_of_their_store(lab: Lab) -> None:
    import boto3
    import botocore.session

    if all_servers()["seaweedfs"].missing():
        pytest.skip("seaweedfs is not installed")
    session = botocore.session.Session(profile="lab-a-seed")
    session.set_config_variable("config_file", lab.env()["CROSSLOAD_LAB_AWS_CONFIG"])
    session.set_config_variable("credentials_file", lab.env()["CROSSLOAD_LAB_AWS_CREDENTIALS"])
    store: Any = boto3.Session(botocore_session=session).client("s3")
    store.create_bucket(Bucket="lab-crash")
    keys = {f"k{number}" for number in range(30)}
    for key in keys:
        store.put_object(Bucket="lab-crash", Key=key, Body=key.encode())
    with faults.crash(lab, "seaweedfs"):
        with pytest.raises(OSError, match="refused"):
            os.close(_connect(lab.port("seaweedfs", "s3")))
    assert {found["Key"] for found in store.list_objects_v2(Bucket="lab-crash")["Contents"]} == keys
    assert {key: _read_when_ready(store, key) for key in keys} == {key: key.encode() for key in keys}


def _read_when_ready(store: Any, key: str) -> bytes:
    """After a crash the volumes come back a moment after the door: lost is only what never comes back."""
    from botocore.exceptions import ClientError

    until = time.monotonic() + 30
    while True:
        try:
            return store.get_object(Bucket="lab-crash", Key=key)["Body"].read()
        except ClientError as error:
            if error.response["Error"]["Code"] != "InternalError" or time.monotonic() > until:
                raise
            time.sleep(0.2)


def _connect(port: int) -> int:
    import socket

    return socket.create_connection(("127.0.0.1", port), timeout=1).detach()


def test_an_outage_ends_by_itself(lab: Lab, front: Any) -> None:
    front.media("a", b"1")
    begun = time.monotonic()
    with faults.outage(lab, "fake-gcs", 1.0) as back:
        assert front.read("a").status_code == 503
        while front.read("a").status_code != 200:
            assert time.monotonic() - begun < 20
            time.sleep(0.1)
        assert back.wait(10)
    assert time.monotonic() - begun >= 1.0


def test_a_paused_server_is_silent_and_then_answers(lab: Lab, front: Any) -> None:
    begun = time.monotonic()
    with faults.pause(lab, "fake-gcs", 0.7):
        assert front.http.get("/storage/v1/b", timeout=10).status_code == 200
    assert time.monotonic() - begun >= 0.7


def test_aborts_and_delays_on_the_road_to_a_model(lab: Lab) -> None:
    assert _model(lab).status_code == 200
    with faults.abort(lab, "llm-a", percent=100):
        assert _model(lab).status_code == 503
        assert _model(lab, "CROSSLOAD_LAB_LLM_A").status_code == 200, "the straight road must stay free"
    with faults.abort(lab, "llm-a", percent=100, status=429):
        assert _model(lab).status_code == 429
    with faults.slow(lab, "llm-a", delay_ms=900):
        begun = time.monotonic()
        assert _model(lab).status_code == 200
        assert time.monotonic() - begun > 0.8
    begun = time.monotonic()
    assert _model(lab).status_code == 200
    assert time.monotonic() - begun < 0.8


def test_a_fault_that_met_nobody_is_an_error(lab: Lab) -> None:
    with pytest.raises(faults.FaultDidNotFire, match="llm-a"):
        with faults.abort(lab, "llm-a", percent=100):
            pass
    assert _model(lab).status_code == 200


def test_a_small_disk_can_be_filled_and_is_gone_afterwards(tmp_path: Path) -> None:
    try:
        with faults.small_disk(tmp_path / "disk", 1 << 20) as disk:
            ballast = disk.fill()
            with pytest.raises(OSError, match="No space left"):
                (disk.folder / "more").write_bytes(b"x" * 8192)
            ballast.unlink()
            (disk.folder / "more").write_bytes(b"x" * 8192)
    except faults.FaultUnavailable as reason:
        pytest.skip(str(reason))
    assert list((tmp_path / "disk").iterdir()) == []


def test_the_clock_of_a_client_can_be_wrong() -> None:
    import subprocess

    try:
        argv = faults.skewed(["date", "+%s"], hours=2)
    except faults.FaultUnavailable as reason:
        pytest.skip(str(reason))
    shown = int(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    assert 7100 < shown - time.time() < 7300


def test_faults_by_name_on_the_command_line(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    home = ["--home", str(lab.home)]
    assert main(["fault", "slow-a", "on", *home]) == 0
    begun = time.monotonic()
    assert _model(lab).status_code == 200
    assert time.monotonic() - begun > 0.9
    assert main(["fault", "slow-a", "off", *home]) == 0
    assert main(["fault", "no-such-fault", "on", *home]) == 2
    assert "no-such-fault" in capsys.readouterr().err
