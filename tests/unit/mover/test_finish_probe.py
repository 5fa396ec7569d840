"""The probe of a link: what it measures, how long it may take, and that nothing of it stays."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from memory_store import Call, MemoryStore

from crossload.engines.mover.calendar import Calendar
from crossload.engines.mover.finish import forecast
from crossload.engines.mover.probing import PREFIX, SIZES_BYTES, Probed, probe
from crossload.ports.errors import AccessDenied, NotFound, Unavailable

MIB = 2**20
SMALL, MIDDLE, LARGE = SIZES_BYTES


class Link:
    """A hook that makes calls take time: latency and rate, on a clock that only they move."""

    def __init__(self, latency: float, rate: float) -> None:
        self.now, self.latency, self.rate = 0.0, latency, rate
        self.size = 0

    def clock(self) -> float:
        return self.now

    def hook(self, size_of: Callable[[Call], int]) -> Callable[[Call], None]:
        def called(call: Call) -> None:
            if call.when == "after" and call.name in ("read", "write", "head", "delete", "list"):
                self.now += self.latency
                if call.name in ("read", "write"):
                    self.now += size_of(call) / self.rate

        return called


def measured(source: MemoryStore, target: MemoryStore, link: Link) -> Probed:
    target.hook = link.hook(lambda call: len(target.objects["docs"][call.key].data))
    lengths: list[int] = []
    read = source.read

    def noted(bucket: str, key: str, start: int = 0, length: int | None = None, if_match: str = "") -> bytes:
        lengths.append(length or 0)
        return read(bucket, key, start, length, if_match)

    source.read = noted  # type: ignore[method-assign]
    source.hook = link.hook(lambda call: lengths[-1])
    return probe(source, "docs", target, "docs", clock=link.clock)


def test_latency_and_rates_of_three_sizes(source: MemoryStore, target: MemoryStore) -> None:
    source.put("docs", "large", bytes(20 * MIB))
    source.put("docs", "small", b"x")
    target.put("docs", "theirs", b"stays")
    found = measured(source, target, Link(0.05, 100 * MIB))
    assert [item.size_bytes for item in found.sizes] == list(SIZES_BYTES)
    assert found.latency().value == pytest.approx(0.1, rel=0.01)
    assert found.sizes[2].write_rate().value == pytest.approx(16 / (0.05 + 0.16) * MIB)
    assert found.sizes[2].read_rate().value == pytest.approx(16 / (0.05 + 0.16) * MIB)
    assert target.bytes_of("docs") == {"theirs": b"stays"}
    assert {key for name, key in source.log if name in ("write", "delete")} == set()
    assert all(key.startswith(PREFIX) for name, key in target.log if name in ("write", "delete"))
    assert (found.skipped, found.leftovers, found.problems) == ((), (), ())
    json.dumps(found.to_json(), allow_nan=False)


def test_its_samples_forecast_both_few_large_and_many_small(source: MemoryStore, target: MemoryStore) -> None:
    source.put("docs", "large", bytes(20 * MIB))
    samples = measured(source, target, Link(0.05, 100 * MIB)).samples()
    large = forecast(1000 * 64 * MIB, 1000, samples, Calendar(), start=0.0, workers=4, draws=50)
    assert large.p50 == pytest.approx(1000 * (0.1 + 2 * 0.64) / 4, rel=0.1)
    small = forecast(10**5 * 4096, 10**5, samples, Calendar(), start=0.0, workers=4, draws=50)
    assert small.p50 == pytest.approx(10**5 * 0.1 / 4, rel=0.1)


@pytest.mark.parametrize(("rate", "skipped"), [(100 * 1024, (LARGE,)), (10 * 1024, (MIDDLE, LARGE))])
def test_a_slow_link_is_not_probed_for_more_than_a_minute(
    source: MemoryStore, target: MemoryStore, rate: float, skipped: tuple[int, ...]
) -> None:
    source.put("docs", "large", bytes(20 * MIB))
    link = Link(0.01, rate)
    found = measured(source, target, link)
    assert found.skipped == skipped
    assert found.sizes
    assert link.now <= 60
    assert target.bytes_of("docs") == {}


def test_what_the_source_does_not_give_is_unknown(source: MemoryStore, target: MemoryStore) -> None:
    empty = measured(source, target, Link(0.01, 100 * MIB))
    assert empty.sizes[0].read_rate().value is None
    assert empty.sizes[0].write_rate().known
    assert not empty.latency().known
    assert empty.samples() == []
    assert "nothing there to read" in empty.problems[0]
    assert empty.to_json()["sizes"][0]["read_rate"]["value"] == "unknown"


def test_a_denied_source_is_told_and_the_target_is_measured_all_the_same(
    source: MemoryStore, target: MemoryStore
) -> None:
    source.put("docs", "large", bytes(MIB))

    def denied(call: Call) -> None:
        if call.name == "read":
            raise AccessDenied("no")

    source.hook = denied
    found = probe(source, "docs", target, "docs")
    assert found.problems == ("source: no",)
    assert len(found.sizes) == 3
    assert target.bytes_of("docs") == {}


def test_a_short_source_object_is_read_in_full_and_counted_as_long_as_it_is(
    source: MemoryStore, target: MemoryStore
) -> None:
    source.put("docs", "only", bytes(2 * MIB))
    found = measured(source, target, Link(0.0, 100 * MIB))
    assert found.sizes[2].read_bytes == 2 * MIB
    assert found.sizes[2].read_rate().value == pytest.approx(100 * MIB)
    assert found.samples()[2].seconds == pytest.approx(2 * 0.16)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_write_that_fails_leaves_nothing_and_is_raised(source: MemoryStore, target: MemoryStore, when: str) -> None:
    """After the call: the object is there, and only its answer was lost."""

    def lost(call: Call) -> None:
        if call.name == "write" and call.when == when:
            raise Unavailable("connection lost")

    target.hook = lost
    with pytest.raises(Unavailable):
        probe(source, "docs", target, "docs")
    assert target.bytes_of("docs") == {}


def test_what_cannot_be_removed_is_named(source: MemoryStore, target: MemoryStore) -> None:
    def kept(call: Call) -> None:
        if call.name == "delete" and call.when == "before":
            raise AccessDenied("no deletes here")

    target.hook = kept
    found = probe(source, "docs", target, "docs", sizes_bytes=[SMALL])
    assert set(found.leftovers) == set(target.bytes_of("docs"))
    assert found.leftovers
    assert "target: no deletes here" in found.problems


def test_the_rest_of_a_killed_probe_is_removed_by_the_next(source: MemoryStore, target: MemoryStore) -> None:
    target.put("docs", f"{PREFIX}old", b"left behind")  # the store in memory dates it in 1970
    target.put("docs", "theirs", b"stays")
    probe(source, "docs", target, "docs", sizes_bytes=[SMALL])
    assert set(target.bytes_of("docs")) == {"theirs"}


def test_a_bucket_that_is_not_there_is_said_so(source: MemoryStore, target: MemoryStore) -> None:
    with pytest.raises(NotFound):
        probe(source, "docs", target, "nowhere")
