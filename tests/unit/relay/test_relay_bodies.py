"""Bodies on their way: what is packed and what not, bytes on the wire, cuts, and an agent that dies."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from relay_parts import MIB, PLAIN, TOKEN, Pipe, agent, folder, piped, relay

from crossload.engines.mover.chunks import sampling
from crossload.estate.digest import Digest
from crossload.ports.errors import CrossloadError, Invalid, PreconditionFailed, Unavailable
from crossload.ports.retrying import RetryingStore, RetryPolicy
from crossload.ports.store import ObjectInfo, ObjectMeta, Part, Store, StoreFeatures
from crossload.providers import keepalive
from crossload.providers.relay import agent as serving
from crossload.providers.relay import answering, packing, words
from crossload.providers.relay.agent import Agent
from crossload.providers.relay.packing import Link, pack, unpack

QUICK = RetryPolicy(base_seconds=0.01, delay_seconds_max=0.05, give_up_seconds=10.0)


def json_lines(size_bytes: int, seed: int = 1) -> bytes:
    chance = random.Random(seed)
    words = ["refund", "printer", "invoice", "login", "reset", "ticket", "urgent", "customer", "delay", "shipping"]
    lines: list[str] = []
    while sum(map(len, lines)) < size_bytes:
        for _ in range(500):
            text = " ".join(chance.choices(words, k=30))
            lines.append(json.dumps({"id": chance.randrange(10**9), "role": "user", "content": text}) + "\n")
    return "".join(lines).encode()[:size_bytes]


def bf16(size_bytes: int) -> bytes:
    values = np.random.default_rng(1).standard_normal(size_bytes // 2, dtype="f4") * np.float32(0.02)
    return (values.view("<u4") >> 16).astype("<u2").tobytes()


@pytest.fixture
def far(tmp_path: Path) -> Store:
    made = folder(tmp_path / "far")
    made.ensure_bucket("docs")
    return made


@pytest.fixture
def served(far: Store) -> Iterator[Agent]:
    with agent(far) as made:
        yield made
    keepalive.close_idle()


@pytest.fixture
def pipe(served: Agent) -> Iterator[Pipe]:
    with piped(served.url) as made:
        yield made
    keepalive.close_idle()


@pytest.mark.parametrize(
    ("data", "least", "most"),
    [(json_lines(8 * MIB), 0.05, 0.30), (bf16(8 * MIB), 0.70, 0.88), (random.Random(5).randbytes(8 * MIB), 0.99, 1.01)],
    ids=["jsonl", "bf16", "random"],
)
def test_bytes_on_the_wire(pipe: Pipe, far: Store, data: bytes, least: float, most: float) -> None:
    """Counted in the pipe, heads and all, in both directions; what is stored is plain."""
    store = relay(pipe.url)
    store.write("docs", "object", data, PLAIN)
    assert least < pipe.up_bytes / len(data) < most
    assert far.read("docs", "object") == data
    before = pipe.down_bytes
    assert store.read("docs", "object") == data
    assert least < (pipe.down_bytes - before) / len(data) < most
    buffer = bytearray(len(data))
    info, meta = store.fetch("docs", "object", memoryview(buffer))
    assert (buffer, info.size_bytes, meta) == (data, len(data), PLAIN)
    assert store.traffic.sent_plain_bytes == len(data)
    assert store.traffic.received_plain_bytes == 2 * len(data)
    assert store.traffic.sent_wire_bytes == pytest.approx(pipe.up_bytes, rel=0.01)


def test_facts_and_metadata_make_the_round_trip() -> None:
    """All fields that the port has, those that are added later too."""
    kinds: dict[Any, Any] = {frozenset: frozenset({"crc64nvme"}), tuple: ("cold",), bool: True, int: 77, str: "x"}
    values: dict[str, Any] = {field.name: kinds[type(field.default)] for field in fields(StoreFeatures)}
    told = json.loads(json.dumps(words.features_to_json(StoreFeatures(**values))))
    assert words.features_from_json({**told, "of a later version": 1}) == StoreFeatures(**values)
    assert words.features_from_json({}) == StoreFeatures()
    texts: dict[str, Any] = {
        field.name: field.name for field in fields(ObjectMeta) if field.name not in ("user", "tags")
    }
    meta = ObjectMeta(**texts, user={"a": "ü"}, tags={"b": "c"})
    assert words.meta_from_json(words.from_header(words.to_header(words.meta_to_json(meta)))) == meta
    info = ObjectInfo("k", 5, "e", "v", 1.5, (Digest("crc32c", "00ff"),), False, True)
    assert words.info_from_json(json.loads(json.dumps(words.info_to_json(info)))) == info


def test_off_is_off(pipe: Pipe) -> None:
    data = json_lines(MIB)
    store = relay(pipe.url, compression="off")
    store.write("docs", "object", data, PLAIN)
    assert store.read("docs", "object") == data
    assert pipe.up_bytes > len(data) < pipe.down_bytes


def test_a_mode_that_is_none() -> None:
    with pytest.raises(Invalid, match="compression `gzip`"):
        relay("http://127.0.0.1:1", compression="gzip")


def test_the_rule_is_that_of_the_chunks() -> None:
    """Written down twice, since neither room may know the other: they must say the same."""
    for ratio in (0.05, 0.2, 0.78, 0.9, 0.91, 1.0):
        for cpu in (0.5, 2.0, 8.0, 100.0):
            for link in (1e6, 1e7, 1e8, 3e8, 1e9, 1e10):
                for cores in (1, 2, 16):
                    assert packing.pays(ratio, cpu, link, cores) == sampling.pays(ratio, cpu, link, cores)
    assert packing.pays(0.9, 100.0, None, 1) and not packing.pays(0.91, 0.0, None, 1)


def test_a_fast_link_takes_plain_bytes() -> None:
    data = json_lines(MIB)
    assert pack(data, "auto", None) is not None
    assert pack(data, "auto", 1e6) is not None
    assert pack(data, "auto", 1e12) is None
    assert pack(data, "zstd", 1e12) is not None
    assert pack(data, "off", None) is None
    assert pack(data[:100], "zstd", None) is None
    assert pack(b"", "zstd", None) is None
    head = random.Random(6).randbytes(4 * MIB)
    assert pack(head + bytes(60 * MIB), "auto", None) is not None, "the sample is of all of it, not of its beginning"


def test_packing_makes_the_round_trip() -> None:
    for size in (256, 5000, 2 * MIB + 1, 3 * MIB):
        data = json_lines(size)
        frame = pack(memoryview(data), "zstd", None)
        assert frame is not None and len(frame) < len(data)
        assert unpack(frame, len(data)) == data
        with pytest.raises(Invalid):
            unpack(frame, len(data) + 1)
        with pytest.raises(Invalid):
            unpack(frame[:-1], len(data))


def test_the_link_is_measured_over_all_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(packing.time, "monotonic", lambda: now[0])
    link = Link()
    assert link.bytes_per_second is None
    link.begin()
    link.begin()
    now[0] += 2.0
    link.end(4 * MIB)
    link.end(4 * MIB)
    now[0] += 1000.0  # idle time says nothing
    assert link.bytes_per_second == 4 * MIB
    link.begin()
    now[0] += 1.0
    link.end(0)
    assert link.bytes_per_second == pytest.approx(8 * MIB / 3)


def no_spec(name: str) -> None:
    """As if nothing were installed."""


def test_without_zstandard_bytes_go_plain(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing.importlib.util, "find_spec", no_spec)
    packing.can_pack.cache_clear()
    try:
        data = json_lines(MIB)
        store = relay(pipe.url)
        assert not store.agreed.zstd
        store.write("docs", "object", data, PLAIN)
        assert store.read("docs", "object") == data
        assert pipe.up_bytes > len(data) < pipe.down_bytes
        with pytest.raises(CrossloadError, match="zstandard"):
            relay(pipe.url, compression="zstd")
    finally:
        packing.can_pack.cache_clear()


# -- cuts ------------------------------------------------------------------------------------------------------------


def test_a_cut_on_the_way_there_tears_nothing(pipe: Pipe, far: Store) -> None:
    old, new = bf16(2 * MIB), random.Random(7).randbytes(4 * MIB)
    store = relay(pipe.url)
    etag = store.write("docs", "object", old, PLAIN).etag
    keepalive.close_idle()  # a kept connection that ends is opened again without a word
    pipe.cut_up = pipe.up_bytes + 2 * MIB
    with pytest.raises(Unavailable) as error:
        store.write("docs", "object", new, PLAIN, if_match=etag)
    assert error.value.retryable
    assert far.read("docs", "object") == old
    again = RetryingStore(store, QUICK, lambda _: None)
    pipe.cut_up = pipe.up_bytes + 2 * MIB
    again.write("docs", "object", new, PLAIN, if_match=etag)
    assert pipe.cut_up is None
    assert far.read("docs", "object") == new


@pytest.mark.parametrize("compression", ["auto", "off"])
def test_a_cut_on_the_way_back_gives_no_bytes(pipe: Pipe, far: Store, compression: str) -> None:
    data = bf16(4 * MIB)
    far.write("docs", "object", data, PLAIN)
    store = relay(pipe.url, compression=compression)
    assert store.agreed.body_bytes_max
    buffer = memoryview(bytearray(len(data)))
    for read in (
        lambda: store.read("docs", "object"),
        lambda: store.read_into("docs", "object", 0, buffer),
        lambda: store.fetch("docs", "object", buffer),
    ):
        pipe.cut_down = pipe.down_bytes + MIB
        with pytest.raises(Unavailable):
            read()
        assert pipe.cut_down is None
    assert RetryingStore(store, QUICK, lambda _: None).read("docs", "object") == data


def test_an_answer_with_other_bytes_is_worth_another_try(
    pipe: Pipe, far: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    far.write("docs", "object", b"intact" * 10, PLAIN)
    store = relay(pipe.url, compression="off")
    right = hashlib.sha256

    def wrong(data: bytes = b"") -> object:
        return right(bytes(data) + b"!")

    monkeypatch.setattr(answering.hashlib, "sha256", wrong)
    monkeypatch.setattr("crossload.providers.relay.store.hashlib", type("Plain", (), {"sha256": staticmethod(right)}))
    with pytest.raises(Unavailable, match="are not those"):
        store.read("docs", "object")


_AGENT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from relay_parts import agent, folder
made = agent(folder(Path(sys.argv[2])))
print(made.url, flush=True)
made.serve()
"""


def test_an_agent_that_is_killed_in_the_middle(tmp_path: Path) -> None:
    """kill -9 while eight threads write and read: every error may be tried again, and no object is torn."""
    root = tmp_path / "far"
    far = folder(root)
    far.ensure_bucket("docs")
    old = {f"k{n}": random.Random(n).randbytes(2 * MIB) for n in range(8)}
    new = {key: random.Random(key).randbytes(3 * MIB) for key in old}
    for key, data in old.items():
        far.write("docs", key, data, PLAIN)
    command = [sys.executable, "-c", _AGENT, str(Path(__file__).parent), str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as process:
        assert process.stdout is not None
        store = relay(process.stdout.readline().strip(), compression="off")
        assert store.agreed.patches

        def replace(key: str) -> CrossloadError | None:
            try:
                for _ in range(200):
                    store.write("docs", key, new[key], PLAIN)
                    assert store.read("docs", key) == new[key]
            except CrossloadError as error:
                return error
            return None

        with ThreadPoolExecutor(8) as pool:
            running = [pool.submit(replace, key) for key in old]
            while all(future.running() for future in running) and far.read("docs", "k0") == old["k0"]:
                pass
            process.send_signal(signal.SIGKILL)
            errors = [future.result() for future in running]
    assert all(isinstance(error, Unavailable) for error in errors), errors
    for key in old:
        assert far.read("docs", key) in (old[key], new[key])


# -- many at once ----------------------------------------------------------------------------------------------------


def test_eight_threads(served: Agent, far: Store) -> None:
    store = relay(served.url)

    def carry(number: int) -> None:
        for turn in range(12):
            size = 1000 * 7 ** (turn % 5)
            data = json_lines(size, number) if turn % 2 else random.Random(turn).randbytes(size)
            key = f"thread-{number}/{turn} ü.bin"
            meta = ObjectMeta(content_type="text/x", user={"n": f"{number}-{turn}"})
            known = (Digest("sha256", hashlib.sha256(data).hexdigest()),)
            info = store.write("docs", key, data, meta, if_absent=True, digests=known)
            buffer = bytearray(len(data))
            found, back = store.fetch("docs", key, memoryview(buffer), info.etag)
            assert (buffer, found.etag, back) == (data, info.etag, meta)
            with pytest.raises(PreconditionFailed):
                store.write("docs", key, b"other", meta, if_absent=True)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(carry, range(8)))
    assert len(list(store.list("docs"))) == len(list(far.list("docs"))) == 96


def test_parts_from_eight_threads_are_packed(pipe: Pipe, far: Store) -> None:
    store = relay(pipe.url)
    data = json_lines(16 * MIB)
    upload = store.open_upload("docs", "large", PLAIN, len(data))

    def send(number: int) -> Part:
        at = (number - 1) * MIB
        return store.write_part(
            "docs", "large", upload, Part(number, at, MIB, ""), data[at : at + MIB], last=number == 16
        )

    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(send, range(1, 17)))
    store.complete("docs", "large", upload, parts, if_absent=True)
    assert far.read("docs", "large") == data
    assert pipe.up_bytes < 0.3 * len(data)


def test_a_list_goes_on_where_it_was(served: Agent, far: Store) -> None:
    """More than two pages; the second time the agent has forgotten the list in between."""
    for number in range(4100):
        (Path(far.uri("docs")) / f"{number:05d}").write_bytes(b"")
    store = relay(served.url)
    wanted = [f"{number:05d}" for number in range(4100)]
    assert [info.key for info in store.list("docs")] == wanted
    found = store.list("docs", start_after="00009")
    keys = [next(found).key for _ in range(100)]
    served._server.answering._cursors._held.clear()  # pyright: ignore[reportPrivateUsage]
    assert keys + [info.key for info in found] == wanted[10:]


def test_long_work_is_not_taken_for_death(far: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client bears a second of silence here; completing takes three."""
    monkeypatch.setattr(keepalive, "_SILENCE_SECONDS", 1.0)
    monkeypatch.setattr(serving, "_ALIVE_SECONDS", 0.3)
    complete = far.complete

    def slowly(bucket: str, key: str, upload: str, parts: list[Part], **more: Any) -> ObjectInfo:
        time.sleep(3)
        return complete(bucket, key, upload, parts, **more)

    monkeypatch.setattr(far, "complete", slowly)
    keepalive.close_idle()
    with agent(far) as made:
        store = relay(made.url)
        upload = store.open_upload("docs", "slow", PLAIN, 4)
        part = store.write_part("docs", "slow", upload, Part(1, 0, 4, ""), b"slow", last=True)
        assert store.complete("docs", "slow", upload, [part]).size_bytes == 4
    keepalive.close_idle()
    assert TOKEN not in store.uri("docs", "slow")
