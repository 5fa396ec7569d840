"""Bytes on the wire and time through a relay, against the same bytes sent plain, over a link of a set speed.

    python benchmarks/relay.py [--mib 32] [--mbit 200]

Writes benchmarks/results/relay.json and prints the table. Agent, store (a folder) and client run here, in one process;
between them stands a pipe that counts what passes and lets no more through than the link would. Peers run in the same
run, on the same bytes."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import random
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from zstandard import ZstdCompressor

sys.path.insert(0, str(Path(__file__).resolve().parent))

from rows import Row, row, write

from crossload.engines.mover.chunks.content import Content
from crossload.engines.mover.chunks.patch import apply_patch, make_patch
from crossload.estate.place import Place
from crossload.ports.provider import Settings
from crossload.ports.store import ObjectMeta, Store
from crossload.providers.keepalive import close_idle
from crossload.providers.local.store import open_store as open_folder
from crossload.providers.relay.agent import Agent, AgentOptions
from crossload.providers.relay.store import RelayStore, open_store

TOKEN = "0123456789abcdef-of-a-benchmark"
MIB = 2**20
SHARE = "% of bytes"
META = ObjectMeta()
MOVED_SHARE = 0.00222  # moves 31.5 % of bf16 words: a full fine-tune


# -- what is sent ----------------------------------------------------------------------------------------------------


_PHRASES = (
    "My printer does not print since the last update", "I would like a refund for order",
    "The invoice shows the amount",
    "Please reset the password of my account", "Thank you, that worked at once", "I am sorry to hear that",
    "Could you tell me the serial number", "The parcel has not arrived yet", "We have forwarded this to our engineers",
    "Is there anything else that we can do for you",
)  # fmt: skip


def tickets(size_bytes: int) -> bytes:
    """Chats of a help desk: phrases again and again, with numbers and names in them."""
    chance = random.Random(1)

    def said() -> str:
        return ". ".join(f"{chance.choice(_PHRASES)} {chance.randrange(10**6)}" for _ in range(chance.randrange(2, 7)))

    return _lines(size_bytes, lambda n: {
        "id": f"ticket-{n:08d}", "created_at": 1.7e9 + 37 * n, "customer": f"c-{chance.randrange(10**5)}",
        "messages": [{"role": "user", "content": said()}, {"role": "assistant", "content": said()}],
    })  # fmt: skip


def prose(size_bytes: int) -> bytes:
    """Words drawn at random from 2,000, rare ones rarely: nothing ever repeats but the words."""
    chance = random.Random(1)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randrange(2, 11))) for _ in range(2000)]
    weights = range(2000, 0, -1)
    return _lines(size_bytes, lambda n: {
        "id": n, "text": " ".join(chance.choices(words, k=chance.randrange(5, 60), weights=weights))
    })  # fmt: skip


def _lines(size_bytes: int, entry: Callable[[int], dict[str, Any]]) -> bytes:
    lines: list[str] = []
    size = 0
    while size < size_bytes:
        lines.append(json.dumps(entry(len(lines))) + "\n")
        size += len(lines[-1])
    return "".join(lines).encode()[:size_bytes]


def bf16(values: Any) -> bytes:
    """Rounded to nearest even, as training does it."""
    bits = values.astype("<f4").view("<u4")
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()


def checkpoints(size_bytes: int) -> tuple[bytes, bytes]:
    """A safetensors file of bf16 weights, and the same after a full fine-tune."""
    chance, count = np.random.default_rng(1), size_bytes // 8 // 2
    old: list[bytes] = []
    new: list[bytes] = []
    header: dict[str, Any] = {}
    for number in range(8):
        weights = chance.standard_normal(count, dtype="f4") * np.float32(0.02)
        moves = np.float32(1) + np.float32(MOVED_SHARE) * chance.standard_normal(count, dtype="f4")
        old.append(bf16(weights))
        new.append(bf16(weights * moves))
        at = [2 * count * number, 2 * count * (number + 1)]
        header[f"layer.{number}.weight"] = {"dtype": "BF16", "shape": [count], "data_offsets": at}
    text = json.dumps(header).encode()
    head = len(text).to_bytes(8, "little") + text
    return head + b"".join(old), head + b"".join(new)


# -- the way ---------------------------------------------------------------------------------------------------------


class Wire:
    """Counts what passes to and from an address, at no more than so many bytes a second in each direction."""

    def __init__(self, url: str, bytes_per_second: float) -> None:
        self._there = (urlsplit(url).hostname or "", urlsplit(url).port or 0)
        self._rate = bytes_per_second
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.bytes = 0
        self._free_at = [0.0, 0.0]
        self._mutex = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._there)
                for end in (near, far):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for one, other, way in ((near, far, 0), (far, near, 1)):
                    threading.Thread(target=self._carry, args=(one, other, way), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket, way: int) -> None:
        with contextlib.suppress(OSError):
            while block := one.recv(64 * 1024):
                with self._mutex:
                    self.bytes += len(block)
                    now = time.monotonic()
                    self._free_at[way] = max(self._free_at[way], now) + len(block) / self._rate
                    wait = self._free_at[way] - now
                if wait > 0:
                    time.sleep(wait)
                other.sendall(block)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def apply(base: tuple[Any, int], patch: tuple[Any, int], out: Callable[[bytes], object], **known: Any) -> str:
    return apply_patch(Content(*base), Content(*patch), out, **known)


@contextmanager
def relayed(mbit: float) -> Iterator[tuple[Store, Wire]]:
    with tempfile.TemporaryDirectory() as root:
        connection = {"root": root}
        far = open_folder(Settings(Place("far", "local", "here", "DE", connection), connection, {}))
        far.ensure_bucket("data")
        with Agent(far, AgentOptions(TOKEN, ("data",)), apply) as agent:
            wire = Wire(agent.url, mbit * 1e6 / 8)
            try:
                yield far, wire
            finally:
                close_idle()
                wire.close()


def near(url: str, compression: str) -> RelayStore:
    connection = {"url": url, "token": "env:TOKEN", "compression": compression}
    return open_store(Settings(Place("b", "relay", "there", "DE", connection), connection, {"TOKEN": TOKEN}))


@dataclass(frozen=True, slots=True)
class Sent:
    """`up` and `down`: parts of the plain bytes that passed, heads and all; seconds of each."""

    up: float
    down: float
    up_seconds: float
    down_seconds: float


PART_BYTES = 4 * MIB


def parts(data: bytes) -> list[bytes]:
    return [data[at : at + PART_BYTES] for at in range(0, len(data), PART_BYTES)]


def carried(far: Store, wire: Wire, data: bytes, compression: str) -> Sent:
    """There and back in parts of 4 MiB; bytes that differ end the benchmark."""
    store = near(wire.url, compression)
    pieces = parts(data)
    before, began = wire.bytes, time.monotonic()
    for number, piece in enumerate(pieces):
        store.write("data", f"object-{number}", piece, META)
    up, up_seconds = wire.bytes - before, time.monotonic() - began
    before, began = wire.bytes, time.monotonic()
    back = [store.read("data", f"object-{number}", 0, len(piece)) for number, piece in enumerate(pieces)]
    down, down_seconds = wire.bytes - before, time.monotonic() - began
    if back != pieces or any(far.read("data", f"object-{n}") != piece for n, piece in enumerate(pieces)):
        raise SystemExit("other bytes arrived than were sent")
    return Sent(up / len(data), down / len(data), up_seconds, down_seconds)


def patched(far: Store, wire: Wire, old: bytes, new: bytes) -> tuple[float, float, float]:
    """(part of the new file's bytes that passed, seconds with the making of the patch, seconds to send it whole)."""
    etag = far.write("data", "model", old, META).etag
    store, before, began = near(wire.url, "auto"), wire.bytes, time.monotonic()
    out = bytearray()
    report = make_patch(Content.of(old), Content.of(new), out.extend)
    store.write_patch(
        "data", "model", out, META, base_key="model", base_etag=etag, new_size_bytes=len(new),
        new_sha256=report.new_sha256, if_match=etag,
    )  # fmt: skip
    seconds, share = time.monotonic() - began, (wire.bytes - before) / len(new)
    if hashlib.sha256(far.read("data", "model")).digest() != hashlib.sha256(new).digest():
        raise SystemExit("the patch is not exact")
    began = time.monotonic()
    store.write("data", "whole", new, META)
    return share, seconds, time.monotonic() - began


def zstd_alone(data: bytes) -> float:
    """What zstd -1 makes of the same parts."""
    return sum(len(ZstdCompressor(level=1).compress(piece)) for piece in parts(data)) / len(data)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mib", type=int, default=32, help="bytes of each kind")
    parser.add_argument("--mbit", type=float, default=200.0, help="speed of the link, each way")
    asked = parser.parse_args()
    old, new = checkpoints(asked.mib * MIB)
    kinds = {
        "JSONL, tickets": tickets(asked.mib * MIB),
        "JSONL, random words": prose(asked.mib * MIB),
        "bf16 weights": old,
        "random bytes": random.Random(2).randbytes(asked.mib * MIB),
    }
    rows: list[Row] = []
    link = f"plain, at {asked.mbit:g} Mbit/s"
    with relayed(asked.mbit) as (far, wire):
        for name, data in kinds.items():
            auto, plain, best = carried(far, wire, data, "auto"), carried(far, wire, data, "off"), zstd_alone(data)
            rows += [
                row(f"{name}: written", 100 * auto.up, SHARE, "zstd -1 alone", 100 * best, 100 * best + 1),
                row(f"{name}: read", 100 * auto.down, SHARE, "zstd -1 alone", 100 * best, 100 * best + 1),
                row(f"{name}: time to write", auto.up_seconds, "s", link, plain.up_seconds, 1.15 * plain.up_seconds),
                row(
                    f"{name}: time to read", auto.down_seconds, "s", link, plain.down_seconds, 1.15 * plain.down_seconds
                ),
            ]
        share, seconds, whole = patched(far, wire, old, new)
        rows += [
            row("full fine-tune as a patch: sent", 100 * share, SHARE, "the file", 100.0, 25),
            row("full fine-tune as a patch: time", seconds, "s", "sent whole, packed", whole),
        ]
    return write("relay", rows)


if __name__ == "__main__":
    sys.exit(main())
