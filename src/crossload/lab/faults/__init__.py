"""Faults on a running lab, each a context manager that proves it fired: a fault that never happened proves nothing.

with crash(lab, "seaweedfs"): ...          killed on entry, started again on exit
with outage(lab, "fake-gcs", 20.0): ...    gone for 20 s, then back by itself, also while the block still runs
with pause(lab, "fake-gcs", 5.0): ...      alive and silent for 5 s
with abort(lab, "llm-b", percent=50): ...  503 on the road to a model        with slow(lab, "llm-b", delay_ms=300): ...
with slowdown(lab, "seaweedfs", percent=50) as road: ...    S3's own SlowDown at road.url
with thin_link(lab, "seaweedfs", megabits=80, latency_ms=50) as link: ...    a slow line at link.url
with small_disk(folder, 16 << 20) as disk: disk.fill()
argv = skewed(["python", "x.py"], hours=2)
"""

from __future__ import annotations

from crossload.lab.faults.link import Direction, LinkReport, ThinLink, thin_link
from crossload.lab.faults.machine import SmallDisk, skewed, small_disk
from crossload.lab.faults.models import abort, set_road, slow
from crossload.lab.faults.named import switch
from crossload.lab.faults.proof import FaultDidNotFire, FaultUnavailable
from crossload.lab.faults.servers import crash, outage, pause
from crossload.lab.faults.stores import SlowRoad, set_slowdown, slowdown

__all__ = [
    "Direction", "FaultDidNotFire", "FaultUnavailable", "LinkReport", "SlowRoad", "SmallDisk", "ThinLink", "abort",
    "crash", "outage", "pause", "set_road", "set_slowdown", "skewed", "slow", "slowdown", "small_disk", "switch",
    "thin_link",
]  # fmt: skip
