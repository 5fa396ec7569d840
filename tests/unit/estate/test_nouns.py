"""The nouns: unknown is never zero, digests name their kind, references never show what they stand for."""

from __future__ import annotations

import json
import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossload.estate.asset import Asset, Inventory, Kind
from crossload.estate.diagnostic import Diagnostic, errors_in
from crossload.estate.digest import Digest, canonical_json, digest_of_json, sha256_of
from crossload.estate.evidence import Outcome
from crossload.estate.place import Place
from crossload.estate.quantity import Quantity
from crossload.estate.secret import ReferenceUnresolved, is_reference, read_env_file, resolve
from crossload.ports.errors import Invalid
from crossload.ports.provider import Settings

# -- quantities ------------------------------------------------------------------------------------------------------

finite = st.floats(allow_nan=False, allow_infinity=False, width=32)
ages = st.sampled_from(["2026-01-01", "2026-11-24", "unknown"])
quantities = st.builds(Quantity, st.none() | finite, st.just("usd"), st.sampled_from(["list", "probe"]), ages)


@given(st.text(max_size=5), st.text(max_size=5))
def test_unknown_is_never_zero(unit: str, source: str) -> None:
    unknown = Quantity.unknown(unit, source)
    assert not unknown.known
    assert str(unknown) == "unknown"
    assert unknown.to_json()["value"] == "unknown"
    assert unknown != Quantity(0.0, unit, source)
    assert Quantity(0.0, unit, source).known


@given(st.lists(quantities, max_size=8))
def test_a_sum_is_unknown_as_soon_as_one_part_is(parts: list[Quantity]) -> None:
    total = Quantity.total(parts, "usd")
    if any(not part.known for part in parts):
        assert total.value is None
        assert total.to_json()["value"] == "unknown"
        assert str(total) == "unknown"
    else:
        assert total.value == pytest.approx(sum(part.value or 0 for part in parts))
        known = {part.as_of for part in parts}
        assert total.as_of == ("unknown" if not known or "unknown" in known else min(known))
    for part in parts:
        assert part.source in total.source


@given(quantities)
def test_the_json_form_has_the_unit_and_the_source(quantity: Quantity) -> None:
    value = json.loads(json.dumps(quantity.to_json()))
    assert (value["unit"], value["source"], value["as_of"]) == (quantity.unit, quantity.source, quantity.as_of)
    assert value["value"] == ("unknown" if quantity.value is None else quantity.value)


def test_an_estimate_says_its_range() -> None:
    assert str(Quantity(1234.5, "s", "probe", low=1000, high=2000)) == "1,234.5 s (1,000-2,000)"
    assert Quantity(None, "s", "probe", low=1, high=2).to_json() == {
        "value": "unknown", "unit": "s", "source": "probe", "as_of": "unknown", "low": 1, "high": 2,
    }  # fmt: skip


# -- digests ---------------------------------------------------------------------------------------------------------


def test_known_digests() -> None:
    assert str(sha256_of(b"abc")) == "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert (
        canonical_json({"b": [1, None, "ü"], "a": {"z": True, "y": 1.5}})
        == '{"a":{"y":1.5,"z":true},"b":[1,null,"ü"]}'.encode()
    )
    assert digest_of_json({"a": 1, "b": 2}) == digest_of_json({"b": 2, "a": 1})


@given(st.sampled_from(["sha256", "crc64nvme"]), st.binary(min_size=1, max_size=8))
def test_a_digest_is_read_as_it_is_written(algorithm: str, data: bytes) -> None:
    digest = Digest(algorithm, data.hex())
    assert Digest.parse(str(digest)) == digest
    assert Digest.parse(str(digest).upper().replace(algorithm.upper(), algorithm)) == digest


def test_digests_of_two_kinds_are_never_equal() -> None:
    assert Digest("crc32c", "00000000") != Digest("md5", "00000000")


@pytest.mark.parametrize("text", ["", "sha256", "sha256:", ":abc", "sha256:xyz", "sha256:ab cd"])
def test_what_is_no_digest(text: str) -> None:
    with pytest.raises(ValueError, match="not a digest"):
        Digest.parse(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(json_values)
def test_canonical_json_is_stable_under_reading(value: object) -> None:
    once = canonical_json(value)
    assert canonical_json(json.loads(once)) == once


# -- references ------------------------------------------------------------------------------------------------------

SECRET = "hunter2-and-more"


def test_references_are_resolved_at_the_moment_of_use(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text(f"  {SECRET}\n")
    environment = {"DIRECT": SECRET, "HOP": f"file:{path}", "TWO": "env:HOP", "PLAIN": "x"}
    assert resolve(f"file:{path}", environment) == SECRET
    assert resolve("env:DIRECT", environment) == SECRET
    assert resolve("env:HOP", environment) == SECRET
    assert resolve("env:TWO", environment) == SECRET
    assert resolve("just text", environment) == "just text"
    path.write_text("changed")
    assert resolve("env:HOP", environment) == "changed"


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSLOAD_TEST_VALUE", SECRET)
    assert resolve("env:CROSSLOAD_TEST_VALUE") == SECRET


@pytest.mark.parametrize(
    "text", ["env:NOBODY", "env:", "file:/nowhere/at/all", "env:MISSING_FILE", "env:CIRCLE", "env:LONG0"]
)
def test_a_reference_to_nothing_is_an_error_that_names_it(text: str) -> None:
    environment = {
        "MISSING_FILE": "file:/nowhere/at/all", "CIRCLE": "env:CIRCLE", "OTHER": SECRET,
        **{f"LONG{n}": f"env:LONG{n + 1}" for n in range(9)}, "LONG9": SECRET,
    }  # fmt: skip
    with pytest.raises(ReferenceUnresolved) as unresolved:
        resolve(text, environment)
    assert SECRET not in str(unresolved.value)
    assert text in str(unresolved.value) or "MISSING_FILE" in text


def test_a_secret_that_is_no_text_stays_out_of_the_traceback(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(SECRET.encode() + b"\xff\xfe")
    with pytest.raises(ReferenceUnresolved) as unresolved:
        resolve(f"file:{path}", {})
    shown = "".join(traceback.format_exception(unresolved.value)) + repr(unresolved.value.__cause__)
    assert SECRET not in shown
    assert "hunter2" not in shown


def test_settings_never_show_values(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text(SECRET)
    place = Place(
        "b", "local", "disk", connection={"token": "env:TOKEN", "profile": "mover", "profile@audit": "auditor"}
    )
    settings = Settings(place, place.connection, {"TOKEN": f"file:{path}", "OTHER": SECRET})
    assert settings.require("token") == SECRET
    assert settings.get("absent", "default") == "default"
    for text in (repr(settings), str(settings), repr(place), f"{settings!r}"):
        assert SECRET not in text
    assert Settings(place, place.connection, {}, "audit").get("profile") == "auditor"
    assert Settings(place, place.connection, {}, "freeze").get("profile") == "mover"
    with pytest.raises(Invalid, match="place b: environment variable TOKEN is not set"):
        Settings(place, place.connection, {}).get("token")
    with pytest.raises(Invalid, match="`absent` is missing"):
        settings.require("absent")


def test_what_is_a_reference() -> None:
    assert is_reference("env:X")
    assert is_reference("file:x")
    assert not is_reference("hunter2")
    assert not is_reference("")


def test_environment_files(tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.write_text("# a comment\n\nA=1\n B = two words \nURL=postgresql://x?a=b\nEMPTY=\n")
    assert read_env_file(path) == {"A": "1", "B": "two words", "URL": "postgresql://x?a=b", "EMPTY": ""}
    path.write_text(f"A=1\n{SECRET}\n")
    with pytest.raises(ValueError, match=":2: expected KEY=VALUE") as error:
        read_env_file(path)
    assert SECRET not in str(error.value)
    with pytest.raises(OSError):
        read_env_file(tmp_path / "nowhere")


# -- the rest --------------------------------------------------------------------------------------------------------


def test_assets_come_back_as_they_were_written() -> None:
    asset = Asset(
        "dataset:docs", Kind.DATASET, "docs", "a", "native:docs", {"size_bytes": None}, {"t": "1"}, {"app": "x"}
    )
    assert Asset.from_json(json.loads(json.dumps(asset.to_json()))) == asset
    inventory = Inventory((asset,))
    assert inventory.get("dataset:docs") is asset
    assert inventory.get("dataset:other") is None
    assert inventory.of(Kind.DATASET) == [asset]
    assert inventory.of(Kind.MODEL) == []


def test_diagnostics_come_back_as_they_were_written() -> None:
    made = [
        Diagnostic.error("XL100", "summary", detail="detail", subject="file.yaml", hint="hint", line=3, column=7),
        Diagnostic.warning("XL510", "summary"),
        Diagnostic.note("XL501", "summary", subject="dataset:docs"),
    ]
    assert [Diagnostic.from_json(json.loads(json.dumps(item.to_json()))) for item in made] == made
    assert errors_in(made) == made[:1]
    assert [str(item) for item in made] == [
        "file.yaml:3:7: error XL100: summary\n  detail\n  hint: hint",
        "warning XL510: summary",
        "dataset:docs: note XL501: summary",
    ]


def test_outcomes_know_whether_they_are_good() -> None:
    assert Outcome.done("x").good
    assert Outcome.unchanged("x", n=1).data == {"n": 1}
    assert not Outcome.failed("x").good
    assert not Outcome.refused("x").good
    assert not Outcome("pending", "x").good
