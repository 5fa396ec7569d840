"""Stores that ask their clients to slow down, in the words of the cloud that they stand for."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from crossload.lab.faults.envoy import count, set_runtime, stat
from crossload.lab.faults.proof import FaultDidNotFire
from crossload.lab.front.slowdown import (
    SLOW_ROADS,
    counters,
    rate_version_counter,
    retry_after_key,
    share_key,
    write_rate,
)
from crossload.lab.lab import Lab, LabError
from crossload.lab.site import write_public

_ADDRESS = {
    "seaweedfs": "CROSSLOAD_LAB_S3_FAULTY",
    "fake-gcs": "CROSSLOAD_LAB_GCS_ENDPOINT",
    "azurite": "CROSSLOAD_LAB_AZURE_FAULTY",
}
_IN_FORCE_SECONDS_MAX = 5.0


@dataclass(frozen=True, slots=True)
class SlowRoad:
    """The road to a store on which requests are refused. Counts are those since the fault was set."""

    lab: Lab
    server: str
    url: str
    refused_before: int
    requests_before: int

    @property
    def refused(self) -> int:
        """Requests that were told to slow down."""
        return refused_ever(self.lab, self.server) - self.refused_before

    @property
    def passed(self) -> int:
        """Requests that went through to the store."""
        _, _, requests = counters(self.server)
        return count(self.lab, requests) - self.requests_before - self.refused

    def aws_config(self) -> Path:
        """For "seaweedfs": a copy of cloud A's AWS configuration in which S3 is this road."""
        return aws_config(self.lab, self.url)


@contextmanager
def slowdown(
    lab: Lab,
    server: str,
    *,
    percent: int = 0,
    requests_per_second: int | None = None,
    retry_after: bool = False,
) -> Iterator[SlowRoad]:
    """Refuse `percent` of the requests to a store, and those above `requests_per_second`, as its cloud does.

    "seaweedfs": 503 SlowDown, at CROSSLOAD_LAB_S3_FAULTY; "azurite": 503 ServerBusy, at CROSSLOAD_LAB_AZURE_FAULTY;
    "fake-gcs": 429, on the one road there is. `retry_after` adds `Retry-After: 1`. A client that is still sending
    megabytes when it is refused sees its connection end after a second instead of the answer.
    Raises KeyError for another server, ValueError when neither limit is given, and FaultDidNotFire when no request was
    refused.
    """
    if percent == 0 and requests_per_second is None:
        raise ValueError("give percent or requests_per_second: else nothing is refused")
    url = road_url(lab, server)
    road = SlowRoad(lab, server, url, refused_ever(lab, server), count(lab, counters(server)[2]))
    try:
        set_slowdown(lab, server, percent=percent, requests_per_second=requests_per_second, retry_after=retry_after)
        yield road
    finally:
        set_slowdown(lab, server)
    if road.refused == 0:
        raise FaultDidNotFire(f"no request on the road to {server} ({url}) was refused")


def set_slowdown(
    lab: Lab, server: str, *, percent: int = 0, requests_per_second: int | None = None, retry_after: bool = False
) -> None:
    """Set what is refused from now on, and leave it so; without arguments nothing is."""
    # What is wanted may stand there already; a text of its own tells the new file from any before it.
    version = secrets.token_hex(8)
    write_rate(lab.home / "envoy", server, requests_per_second, version)
    set_runtime(lab, {share_key(server): percent or "", retry_after_key(server): 100 if retry_after else ""})
    deadline = time.monotonic() + _IN_FORCE_SECONDS_MAX
    while stat(lab, rate_version_counter(server)) != version:
        if time.monotonic() > deadline:
            raise FaultDidNotFire(f"envoy did not take the new rate for {server}")
        time.sleep(0.01)


def refused_ever(lab: Lab, server: str) -> int:
    """Requests on the road to a store that were refused since Envoy's start."""
    by_share, by_rate, _ = counters(server)
    return count(lab, by_share) + count(lab, by_rate)


def road_url(lab: Lab, server: str) -> str:
    """The address on which `server` can be slowed down. KeyError when it is no such store, or is not installed."""
    if server not in SLOW_ROADS:
        raise KeyError(server)
    return lab.env()[_ADDRESS[server]]


def aws_config(lab: Lab, url: str) -> Path:
    """A copy of cloud A's AWS configuration in which S3 is at `url`; credentials stay where they are."""
    own = f"endpoint_url = http://127.0.0.1:{lab.port('seaweedfs', 's3')}\n"
    text = Path(lab.env()["CROSSLOAD_LAB_AWS_CONFIG"]).read_text()
    if own not in text:
        raise LabError("cloud A's AWS configuration does not lead to the lab's S3")
    path = _aws_config_path(lab, int(url.rpartition(":")[2]))
    write_public(path, text.replace(own, f"endpoint_url = {url}\n"))
    return path


def forget_aws_config(lab: Lab, port: int) -> None:
    """Delete the copy that leads to a port where nobody listens any more."""
    _aws_config_path(lab, port).unlink(missing_ok=True)


def _aws_config_path(lab: Lab, port: int) -> Path:
    return lab.home / "aws" / f"config-{port}"
