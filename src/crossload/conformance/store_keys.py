"""Keys that hurt: kept exactly, or refused with a hint. Never renamed, never lost, never outside the bucket."""

from __future__ import annotations

from collections.abc import Callable

from crossload.conformance.case import expect, expect_equal
from crossload.conformance.store_bench import STORE, StoreBench, keys, put
from crossload.ports.errors import CrossloadError, Invalid, NotFound
from crossload.ports.store import Store

case = STORE.case

# Every store must keep these.
_ORDINARY = {
    "space": "with space.txt",
    "plus": "a+b=c.txt",
    "percent": "100%25 %zz.txt",
    "quotes": 'it\'s "quoted".txt',
    "hash": "a#b.txt",
    "question": "a?b=c&d.txt",
    "punctuation": "(a)[b]{c};,@!$*~^`|.txt",
    "backslash": "a\\b.txt",
    "umlaut": "größe.txt",
    "cjk": "東京/案内.txt",
    "emoji": "🚀🧑\u200d🔬.txt",
    "right_to_left": "שלום/مرحبا.txt",
    "leading_dot": ".hidden",
    "trailing_dot": "name./file.",
    "leading_space": " a / b ",
    "dashes": "--flag/-r",
    "deep": "/".join("abcdefghij"),
    "bytes_900_in_segments": "/".join(["d" * 100] * 8 + ["e" * 70]),
}

# These a store may refuse, if it says so with Invalid. Changing them in silence is what loses data.
_HAZARDS = {
    "double_slash": "a//b.txt",
    "trailing_slash": "folder/",
    "dot_segment": "a/./b.txt",
    "parent_segment": "a/../b.txt",
    "bytes_900_in_one_segment": "k" * 880,
    "control_character": "a\tb\x01.txt",
    "newline": "a\nb.txt",
}


def _keep(store: Store, bucket: str, key: str) -> None:
    data = key.encode()
    written = put(store, bucket, key, data)
    expect_equal(written.key, key, "key returned by write")
    expect_equal(store.read(bucket, key), data, "bytes")
    expect_equal(store.head(bucket, key)[0].key, key, "key on head")


def _keep_case(key: str) -> Callable[[StoreBench], None]:
    def run(bench: StoreBench) -> None:
        store, bucket, at = bench.area()
        _keep(store, bucket, at + key)
        expect_equal(keys(store, bucket, at), [at + key], "keys listed")
        store.delete(bucket, at + key)
        expect_equal(keys(store, bucket, at), [], "keys after delete")

    return run


def _hazard_case(key: str) -> Callable[[StoreBench], None]:
    def run(bench: StoreBench) -> None:
        store, bucket, at = bench.area()
        try:
            _keep(store, bucket, at + key)
        except Invalid:
            expect_equal(keys(store, bucket, at), [], "keys listed after the refusal")
            return
        expect_equal(keys(store, bucket, at), [at + key], "keys listed")
        store.delete(bucket, at + key)

    return run


for _name, _key in _ORDINARY.items():
    STORE.add(f"key_{_name}", f"A key with {_name.replace('_', ' ')} is kept exactly.", _keep_case(_key))
for _name, _key in _HAZARDS.items():
    STORE.add(f"key_{_name}", f"A key with {_name.replace('_', ' ')} is kept exactly or refused.", _hazard_case(_key))


@case
def composed_and_decomposed_letters_differ(bench: StoreBench) -> None:
    """Keys that look alike but differ in Unicode form (NFC, NFD) are two objects."""
    store, bucket, at = bench.area()
    composed, decomposed = at + "caf\u00e9", at + "cafe\u0301"
    put(store, bucket, composed, b"NFC")
    put(store, bucket, decomposed, b"NFD")
    expect_equal(store.read(bucket, composed), b"NFC", "bytes of the NFC key")
    expect_equal(store.read(bucket, decomposed), b"NFD", "bytes of the NFD key")
    expect_equal(keys(store, bucket, at), sorted([composed, decomposed], key=str.encode), "keys listed")


@case
def case_matters(bench: StoreBench) -> None:
    """Keys that differ in upper and lower case only are two objects."""
    store, bucket, at = bench.area()
    put(store, bucket, at + "README", b"upper")
    put(store, bucket, at + "readme", b"lower")
    expect_equal(store.read(bucket, at + "README"), b"upper", "bytes of README")
    expect_equal(store.read(bucket, at + "readme"), b"lower", "bytes of readme")


@case
def file_and_folder_of_one_name(bench: StoreBench) -> None:
    """`a` and `a/b` are both kept, or the second is refused with Invalid and the first stays."""
    store, bucket, at = bench.area()
    _keep(store, bucket, at + "a")
    try:
        _keep(store, bucket, at + "a/b")
    except Invalid:
        expect_equal(keys(store, bucket, at), [at + "a"], "keys listed after the refusal")
        return
    expect_equal(store.read(bucket, at + "a"), (at + "a").encode(), "bytes of the first key")
    expect_equal(keys(store, bucket, at), [at + "a", at + "a/b"], "keys listed")


@case
def folder_and_file_of_one_name(bench: StoreBench) -> None:
    """`a/b` and then `a` are both kept, or the second is refused with Invalid and the first stays."""
    store, bucket, at = bench.area()
    _keep(store, bucket, at + "a/b")
    try:
        _keep(store, bucket, at + "a")
    except Invalid:
        expect_equal(keys(store, bucket, at), [at + "a/b"], "keys listed after the refusal")
        return
    expect_equal(keys(store, bucket, at), [at + "a", at + "a/b"], "keys listed")


@case
def no_key_leaves_its_bucket(bench: StoreBench) -> None:
    """`../other-bucket/key` never reads or writes outside the bucket."""
    store, bucket, at = bench.area()
    other = bench.own_bucket(store, "other")
    put(store, other, "secret", b"secret")
    climb = f"{'../' * (at.count('/') + 1)}{other}"
    for key in (f"{at}{climb}/secret", f"../{other}/secret", f"/{other}/secret"):
        try:
            got = store.read(bucket, key)
        except (NotFound, Invalid):
            got = b""
        expect(got != b"secret", f"reading {key!r} from {bucket} gave the other bucket's object")
    for key in (f"{at}{climb}/planted", f"../{other}/planted"):
        try:
            put(store, bucket, key, b"planted")
        except CrossloadError:
            continue
    expect_equal(keys(store, other, ""), ["secret"], "keys of the other bucket")


@case
def nul_in_a_key_is_refused_or_kept(bench: StoreBench) -> None:
    """A key with NUL is kept exactly or refused with an error of ours."""
    store, bucket, at = bench.area()
    try:
        _keep(store, bucket, at + "a\0b")
    except CrossloadError:
        expect_equal(keys(store, bucket, at), [], "keys listed after the refusal")
