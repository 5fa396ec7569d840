"""Checkpoints that travel as patches: what arrives is exact, and a patch that is not makes nothing."""

from __future__ import annotations

import hashlib
import json
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from relay_parts import MIB, PLAIN, agent, folder, piped, relay

from crossload.engines.mover.chunks.content import Content
from crossload.engines.mover.chunks.patch import make_patch
from crossload.ports.errors import CrossloadError, DigestMismatch, Invalid, PreconditionFailed, Refused, Unsupported
from crossload.ports.store import ObjectMeta, Store
from crossload.providers import keepalive
from crossload.providers.relay import patching
from crossload.providers.relay.agent import Agent
from crossload.providers.relay.answering import Limits
from crossload.providers.relay.store import RelayStore

MODEL = ObjectMeta(content_type="application/x-safetensors", user={"step": "2000"})


def checkpoints(tensors: int = 6, rows: int = 2048) -> tuple[bytes, bytes]:
    """Two safetensors files in bf16: the second after a full fine-tune, which moves nearly a third of the words."""
    chance = np.random.default_rng(11)
    header: dict[str, Any] = {}
    old: list[bytes] = []
    new: list[bytes] = []
    at = 0
    for number in range(tensors):
        plain = chance.standard_normal(rows * 1024, dtype="f4") * np.float32(0.02)
        moved = plain * (np.float32(1) + np.float32(0.00222) * chance.standard_normal(rows * 1024, dtype="f4"))
        for values, words in ((plain, old), (moved, new)):
            bits = values.view("<u4")
            words.append((((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")).tobytes())
        header[f"layer.{number}"] = {"dtype": "BF16", "shape": [rows, 1024], "data_offsets": [at, at + rows * 2048]}
        at += rows * 2048
    text = json.dumps(header).encode()
    head = len(text).to_bytes(8, "little") + text
    return head + b"".join(old), head + b"".join(new)


def patch_of(old: bytes, new: bytes) -> bytes:
    out = bytearray()
    make_patch(Content.of(old), Content.of(new), out.extend)
    return bytes(out)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def models() -> tuple[bytes, bytes, bytes]:
    old, new = checkpoints()
    return old, new, patch_of(old, new)


@pytest.fixture
def far(tmp_path: Path) -> Store:
    made = folder(tmp_path / "far")
    made.ensure_bucket("models")
    return made


@pytest.fixture
def served(far: Store) -> Iterator[Agent]:
    with agent(far) as made:
        yield made
    keepalive.close_idle()


@pytest.fixture
def near(served: Agent) -> RelayStore:
    return relay(served.url)


def test_a_full_fine_tune_costs_a_quarter_at_most(
    served: Agent, far: Store, models: tuple[bytes, bytes, bytes]
) -> None:
    """24 MiB of new weights over a counted wire, in place of the old ones: bit-equal, and at most 25 % of the bytes."""
    old, new, patch = models
    etag = far.write("models", "m/model.safetensors", old, PLAIN).etag
    with piped(served.url) as pipe:
        info = relay(pipe.url).write_patch(
            "models", "m/model.safetensors", patch, MODEL, base_key="m/model.safetensors", base_etag=etag,
            new_size_bytes=len(new), new_sha256=sha(new), if_match=etag,
        )  # fmt: skip
        share = (pipe.up_bytes + pipe.down_bytes) / len(new)
        keepalive.close_idle()
    assert far.read("models", "m/model.safetensors") == new
    found, meta = far.head("models", "m/model.safetensors")
    assert (found.etag, found.size_bytes, meta) == (info.etag, len(new), MODEL)
    print(f"{share:.1%} of {len(new)} bytes")
    assert 0.05 < share <= 0.25


def test_a_patch_to_another_key_leaves_the_base(
    near: RelayStore, far: Store, models: tuple[bytes, bytes, bytes]
) -> None:
    old, new, patch = models
    etag = far.write("models", "step-1", old, PLAIN).etag
    more: dict[str, Any] = {"base_key": "step-1", "base_etag": etag, "new_size_bytes": len(new)}
    near.write_patch("models", "step-2", patch, MODEL, new_sha256=sha(new), if_absent=True, **more)
    assert (far.read("models", "step-1"), far.read("models", "step-2")) == (old, new)
    with pytest.raises(PreconditionFailed):
        near.write_patch("models", "step-2", patch, MODEL, new_sha256=sha(new), if_absent=True, **more)


def test_small_files_are_written_at_once(near: RelayStore, far: Store) -> None:
    old = random.Random(1).randbytes(300_000)
    new = old[:1000] + b"inserted" + old[1000:]
    etag = far.write("models", "notes", old, PLAIN).etag
    near.write_patch(
        "models", "notes", patch_of(old, new), PLAIN, base_key="notes", base_etag=etag, new_size_bytes=len(new),
        new_sha256=sha(new),
    )  # fmt: skip
    assert far.read("models", "notes") == new


def bad(models: tuple[bytes, bytes, bytes]) -> Iterator[tuple[str, type[CrossloadError], dict[str, Any], bytes]]:
    old, new, patch = models
    half = len(patch) // 2
    yield "cut off", Invalid, {}, patch[:half]
    yield "flipped", Invalid, {}, patch[:half] + bytes([patch[half] ^ 1]) + patch[half + 1 :]
    yield "no patch", Invalid, {}, b"these are no patch at all, but text"
    yield "empty", Invalid, {}, b""
    yield "another end", Refused, {"new_sha256": "0" * 64}, patch
    yield "larger than said", Refused, {"new_size_bytes": len(new) - 1}, patch
    yield "smaller than said", Invalid, {"new_size_bytes": len(new) + 1}, patch
    yield "another version", PreconditionFailed, {"base_etag": "0" * 64}, patch
    yield "no version", PreconditionFailed, {"base_etag": ""}, patch
    yield "another base", PreconditionFailed, {}, patch_of(new, old)
    yield "too large", Invalid, {"new_size_bytes": 2**41}, patch


def test_a_bad_patch_makes_nothing(near: RelayStore, far: Store, models: tuple[bytes, bytes, bytes]) -> None:
    """Nothing at the key, nothing changed in the base, no upload and no draft left behind."""
    old, new, _ = models
    etag = far.write("models", "step-1", old, PLAIN).etag
    side = Path(far.uri("models")) / ".crossload"
    tried = 0
    for name, error, other, patch in bad(models):
        more: dict[str, Any] = {"base_etag": etag, "new_size_bytes": len(new), "new_sha256": sha(new)} | other
        with pytest.raises(error):
            near.write_patch("models", "step-2", patch, MODEL, base_key="step-1", **more)
        assert [info.key for info in far.list("models")] == ["step-1"], name
        assert [path for kind in ("uploads", "drafts") for path in side.glob(f"{kind}/*")] == [], name
        tried += 1
    assert tried == 11
    assert far.read("models", "step-1") == old


def test_a_base_that_changes_meanwhile_makes_nothing(
    near: RelayStore, far: Store, models: tuple[bytes, bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, patch = models
    etag = far.write("models", "step-1", old, PLAIN).etag
    read, reads = far.read, 0
    mutex = threading.Lock()

    def swapped(*args: Any, **more: Any) -> bytes:
        nonlocal reads
        with mutex:
            reads += 1
            if reads == 4:
                far.write("models", "step-1", bytes(len(old)), PLAIN)
        return read(*args, **more)

    monkeypatch.setattr(far, "read", swapped)
    with pytest.raises(PreconditionFailed):
        near.write_patch(
            "models", "step-2", patch, MODEL, base_key="step-1", base_etag=etag, new_size_bytes=len(new),
            new_sha256=sha(new),
        )  # fmt: skip
    assert reads >= 4
    assert [info.key for info in far.list("models")] == ["step-1"]


def test_a_patch_that_is_cut_on_its_way_makes_nothing(
    served: Agent, far: Store, models: tuple[bytes, bytes, bytes]
) -> None:
    old, new, patch = models
    etag = far.write("models", "m", old, PLAIN).etag
    with piped(served.url) as pipe:
        store = relay(pipe.url)
        assert store.agreed.patches
        keepalive.close_idle()
        pipe.cut_up = pipe.up_bytes + len(patch) // 2
        with pytest.raises(CrossloadError) as error:
            store.write_patch(
                "models", "m", patch, MODEL, base_key="m", base_etag=etag, new_size_bytes=len(new), new_sha256=sha(new)
            )
        assert error.value.retryable
        keepalive.close_idle()
    assert far.read("models", "m") == old


def test_another_patch_than_was_sent(near: RelayStore, far: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    etag = far.write("models", "m", b"old", PLAIN).etag
    monkeypatch.setattr(patching, "hashlib", type("Wrong", (), {"sha256": lambda: hashlib.sha256(b"x")}))
    with pytest.raises(DigestMismatch):
        near.write_patch(
            "models", "m", patch_of(b"old", b"new"), PLAIN, base_key="m", base_etag=etag, new_size_bytes=3,
            new_sha256=sha(b"new"),
        )  # fmt: skip
    assert far.read("models", "m") == b"old"


def test_an_agent_that_applies_none(far: Store) -> None:
    from relay_parts import TOKEN

    from crossload.providers.relay.agent import AgentOptions

    with Agent(far, AgentOptions(TOKEN, ("*",))) as made:
        with pytest.raises(Unsupported, match="no patches"):
            relay(made.url).write_patch(
                "models", "m", b"patch", PLAIN, base_key="m", base_etag="x", new_size_bytes=1, new_sha256="0" * 64
            )
    keepalive.close_idle()


def test_a_patch_has_its_limit(far: Store) -> None:
    far.write("models", "m", b"old", PLAIN)
    with agent(far, limits=Limits(patch_bytes_max=MIB)) as made:
        with pytest.raises(CrossloadError):
            relay(made.url).write_patch(
                "models", "m", bytes(2 * MIB), PLAIN, base_key="m", base_etag="x", new_size_bytes=1, new_sha256="0" * 64
            )
    keepalive.close_idle()
