"""The mover through a relay: a bucket there and back, over connections that are cut, proved at the end."""

from __future__ import annotations

import random
from pathlib import Path

from relay_parts import MIB, agent, folder, piped, relay

from crossload.engines.mover.bucket import move_bucket
from crossload.engines.mover.options import CopyOptions
from crossload.engines.mover.proof import prove
from crossload.ledger.journal import Journal
from crossload.ports.retrying import RetryingStore, RetryPolicy
from crossload.ports.store import ObjectMeta
from crossload.providers import keepalive

QUICK = RetryPolicy(base_seconds=0.01, delay_seconds_max=0.05, give_up_seconds=20.0)
OPTIONS = CopyOptions(part_size_bytes=MIB, workers=4)


def test_a_bucket_there_and_back(tmp_path: Path) -> None:
    here, far, again = (folder(tmp_path / name) for name in ("here", "far", "again"))
    here.ensure_bucket("docs")
    chance = random.Random(3)
    for number in range(40):
        text = " ".join(chance.choices(["refund", "printer", "invoice", "late"], k=20_000)).encode()
        data = text * 30 if number % 8 == 0 else text[: chance.randrange(100_000)]
        meta = ObjectMeta("text/plain", user={"number": str(number)}, tags={"kind": "test"})
        here.write("docs", f"folder {number % 5}/ü-{number}", data, meta)
    size = sum(info.size_bytes for info in here.list("docs"))
    with agent(far, buckets=("docs",)) as made, piped(made.url) as pipe:
        near = RetryingStore(relay(pipe.url), QUICK, lambda _: None)
        near.ensure_bucket("docs")
        pipe.cut_up, pipe.cut_down = size // 20, 6000
        there = Journal(tmp_path / "there.db")
        report = move_bucket(here, "docs", near, "docs", there, OPTIONS)
        assert report.copied == 40 and not report.failures
        assert pipe.cut_up is None and pipe.cut_down is None, "both cuts came, and were got over"
        assert pipe.up_bytes < size / 2
        proof = prove(near, "docs", there, reread_sample=1.0)
        assert (proof.objects, proof.wrong, proof.extra) == (40, {}, [])
        there.close()
        again.ensure_bucket("docs")
        back = Journal(tmp_path / "back.db")
        report = move_bucket(near, "docs", again, "docs", back, OPTIONS)
        back.close()
        assert report.copied == 40 and not report.failures
        keepalive.close_idle()
    for info in here.list("docs"):
        for other in (far, again):
            assert other.read("docs", info.key) == here.read("docs", info.key)
            assert other.head("docs", info.key)[1] == here.head("docs", info.key)[1]
