"""Dangerous keys are named before a byte moves: each kind, counted, with examples, and nothing else."""

from __future__ import annotations

import itertools
import resource
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossload.engines.mover import hazards
from crossload.ledger.comparison import Comparison
from crossload.ledger.journal import Journal
from crossload.ports.store import ObjectInfo, StoreFeatures

OPEN = StoreFeatures()
DISK = StoreFeatures(hierarchical=True, dot_segments=False, segment_bytes_max=255, letters_refused="\0")
CASELESS = replace(DISK, case_sensitive=False)
TRIMS = StoreFeatures(trims_dots=True, dot_segments=False)


def found(features: StoreFeatures, *keys: str) -> dict[str, str]:
    """code -> `summary` count and examples."""
    told = hazards.find(sorted(keys, key=str.encode), features)
    return {item.code: f"{item.summary.split()[0]}: {item.detail}" for item in told}


@pytest.mark.parametrize(
    ("features", "keys", "wanted"),
    [
        (DISK, ["a", "a/b"], {"XL540": "1: `a` and `a/b`"}),
        (DISK, ["a", "a b", "a-b", "a.b", "a/b", "a/c"], {"XL540": "1: `a` and `a/b`"}),
        (DISK, ["a/b", "a/b/c/d", "a/b/c"], {"XL540": "2: `a/b` and `a/b/c`, `a/b/c` and `a/b/c/d`"}),
        (DISK, ["a", "ab", "ab/c", "b/a"], {"XL540": "1: `ab` and `ab/c`"}),
        (DISK, ["a", "a!", "a!/x", "a/x"], {"XL540": "2: `a!` and `a!/x`, `a` and `a/x`"}),
        (DISK, ["a/", "a/b"], {"XL541": "1: `a/`"}),
        (DISK, ["a", "a/"], {"XL540": "1: `a` and `a/`", "XL541": "1: `a/`"}),
        (DISK, ["a//b", "/c"], {"XL542": "2: `/c`, `a//b`"}),
        (DISK, ["a/../b", "./c", "d.e", "..f"], {"XL543": "2: `./c`, `a/../b`"}),
        (TRIMS, ["a/./b"], {"XL543": "1: `a/./b`"}),
        (CASELESS, ["README", "readme", "Readme"], {"XL544": "2: `README` and `Readme`, `README` and `readme`"}),
        (CASELESS, ["caf\u00e9", "cafe\u0301"], {"XL544": "1: `cafe\u0301` and `caf\u00e9`"}),
        (CASELESS, ["straße", "STRASSE"], {"XL544": "1: `STRASSE` and `straße`"}),
        (OPEN, ["k" * 1025], {"XL545": f"1: `{'k' * 120}...` (1025 bytes)"}),
        (OPEN, ["ü" * 512 + "x"], {"XL545": f"1: `{'ü' * 120}...` (1025 bytes)"}),
        (DISK, ["d/" + "k" * 256], {"XL545": f"1: `d/{'k' * 118}...` (256 bytes between slashes)"}),
        (OPEN, ["a\nb", "c\x7f", "d"], {"XL546": "2: `a\\nb`, `c\\x7f`"}),
        (replace(OPEN, letters_refused="\\"), ["a\\b"], {"XL546": "1: `a\\b`"}),
        (OPEN, ["a\ud800"], {"XL546": "1: `a\\ud800`"}),
        (TRIMS, ["a./b", "c ", "d.e/f g"], {"XL547": "2: `a./b`, `c `"}),
        (OPEN, [".crossload/x", ".crossloads", "a/.crossload/x"], {"XL548": "1: `.crossload/x`"}),
        (OPEN, ["a", "a/", "a/b", "a//b", "a/../b", "A", "a ", "x."], {}),
        (DISK, ["a", "A", "a.", "b ", "c/d"], {}),
    ],
)  # fmt: skip
def test_each_kind(features: StoreFeatures, keys: list[str], wanted: dict[str, str]) -> None:
    keys.sort(key=lambda key: key.encode("utf-8", "surrogatepass"))
    told = hazards.find(keys, features, "dataset:docs")
    assert {item.code: f"{item.summary.split()[0]}: {item.detail}" for item in told} == wanted
    assert all(item.subject == "dataset:docs" and item.hint and str(item.severity) == "warning" for item in told)


def test_examples_are_few_and_the_count_is_whole() -> None:
    (told,) = hazards.find([f"a{number:03d}//b" for number in range(12)], DISK)
    assert told.summary.startswith("12 key(s)")
    assert told.detail.endswith("`a004//b` and 7 more")


def test_keys_out_of_order_are_no_answer() -> None:
    for keys in (["b", "a"], ["a", "a"], ["\U00010000", "\uffff"]):
        with pytest.raises(ValueError, match="UTF-8 order"):
            hazards.find(keys, DISK)
    assert hazards.find(["\uffff0", "\U00010000"], OPEN) == []


_KEYS = st.sets(st.text(alphabet="aA/.! ", min_size=1, max_size=6), max_size=12)


@settings(max_examples=300)
@given(_KEYS)
def test_files_that_are_folders_are_found_as_by_comparing_all(keys: set[str]) -> None:
    wanted = {key for key in keys if not key.endswith("/") and any(other.startswith(key + "/") for other in keys)}
    told = found(DISK, *keys).get("XL540", "0: ")
    assert int(told.partition(":")[0]) == len(wanted)


@settings(max_examples=100)
@given(_KEYS)
def test_case_only_pairs_are_found_as_by_comparing_all(keys: set[str]) -> None:
    groups = {key.casefold() for key in keys}
    told = found(replace(OPEN, case_sensitive=False), *keys).get("XL544", "0: ")
    assert int(told.partition(":")[0]) == len(keys) - len(groups)


def test_memory_does_not_grow_with_the_keys() -> None:
    def many(count: int) -> Iterator[str]:
        for number in range(count):
            yield f"data/part-{number // 100:06d}/file-{number % 100:04d}.bin"

    hazards.find(many(1000), CASELESS)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert hazards.find(many(150_000), CASELESS) == []
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30 * 1024  # KiB; the keys alone are 5 MiB


def test_a_chain_of_beginnings_is_bounded() -> None:
    """Each key begins with all before it: the worst there is."""
    keys = ["a" * number for number in range(1, 1025)]
    assert hazards.find(keys, DISK) and not [item for item in hazards.find(keys, DISK) if item.code == "XL540"]


def test_a_comparison_gives_its_keys(tmp_path: Path) -> None:
    wanted = sorted((f"k{number}" for number in range(2500)), key=str.encode)
    with Journal(tmp_path / "journal.db") as journal, Comparison(journal) as comparison:
        comparison.source(ObjectInfo(key, 1, "e") for key in reversed([*wanted, "k1/x"]))
        assert list(itertools.islice(comparison.source_keys(), 3)) == ["k0", "k1", "k1/x"]
        assert len(list(comparison.source_keys())) == 2501
        assert [item.code for item in hazards.find(comparison, DISK)] == ["XL540"]


def test_access_lists_are_named_once_a_bucket() -> None:
    told = hazards.access_lists("dataset:docs")
    assert (told.code, str(told.severity), told.subject) == ("XL549", "note", "dataset:docs")
    assert told.detail and told.hint
