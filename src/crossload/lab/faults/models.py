"""Faults on the roads to the models (CROSSLOAD_LAB_LLM_A_FAULTY, _LLM_B_FAULTY), made by Envoy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from crossload.lab.faults.envoy import count, set_runtime
from crossload.lab.faults.proof import FaultDidNotFire
from crossload.lab.front.config import MODEL_ROADS, runtime_key
from crossload.lab.lab import Lab


@contextmanager
def abort(lab: Lab, road: str, *, percent: int, status: int = 503) -> Iterator[None]:
    """Answer `percent` of the requests on the road to "llm-a" or "llm-b" (CROSSLOAD_LAB_LLM_*_FAULTY) with `status`."""
    settings = {"abort_percent": percent, "abort_status": status}
    with _road_fault(lab, road, settings, "aborts_injected"):
        yield


@contextmanager
def slow(lab: Lab, road: str, *, delay_ms: int, percent: int = 100) -> Iterator[None]:
    """Hold `percent` of the requests on the road to a model back for `delay_ms`."""
    settings = {"delay_percent": percent, "delay_ms": delay_ms}
    with _road_fault(lab, road, settings, "delays_injected"):
        yield


@contextmanager
def _road_fault(lab: Lab, road: str, settings: Mapping[str, int], counter: str) -> Iterator[None]:
    before = count(lab, _counter(road, counter))
    set_road(lab, road, settings)
    try:
        yield
    finally:
        set_road(lab, road, dict.fromkeys(settings))
    if count(lab, _counter(road, counter)) == before:
        raise FaultDidNotFire(f"no request on the road to {road} met the fault")


def set_road(lab: Lab, road: str, settings: Mapping[str, int | None]) -> None:
    """Change fault settings of a road at once; None puts a setting back to no fault."""
    if road not in MODEL_ROADS:
        raise KeyError(road)
    values = {runtime_key(road, key): "" if value is None else value for key, value in settings.items()}
    set_runtime(lab, values)


def _counter(road: str, counter: str) -> str:
    return f"http.{road.replace('-', '_')}.fault.{counter}"
