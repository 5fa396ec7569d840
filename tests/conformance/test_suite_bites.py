"""The suite itself is tested: a store with one fault must break the case that stands for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crossload.conformance.store import CASES, StoreBench, judge
from crossload.estate.digest import Digest
from crossload.estate.place import Place
from crossload.ports.errors import CrossloadError, Invalid, NotFound
from crossload.ports.provider import Settings
from crossload.ports.store import ObjectInfo, ObjectMeta, Part
from crossload.providers.local.store import LocalStore

_BY_NAME = {case.name: case for case in CASES}


class IgnoresIfAbsent(LocalStore):
    def write(self, *args: Any, if_absent: bool = False, **more: Any) -> ObjectInfo:
        return super().write(*args, **more)


class ChecksThenWrites(LocalStore):
    """The classic race: the check and the write are two steps."""

    gate = threading.Barrier(16)

    def write(self, bucket: str, key: str, *args: Any, if_absent: bool = False, **more: Any) -> ObjectInfo:
        if if_absent and key.endswith("race"):
            self.head_or_none(bucket, key)
            self.gate.wait(5)
        return super().write(bucket, key, *args, if_absent=if_absent and not key.endswith("race"), **more)

    def head_or_none(self, bucket: str, key: str) -> None:
        try:
            self.head(bucket, key)
        except NotFound:
            return


class IgnoresIfMatchOnRead(LocalStore):
    def read(self, bucket: str, key: str, start: int = 0, length: int | None = None, if_match: str = "") -> bytes:
        return super().read(bucket, key, start, length)


class IgnoresIfMatchOnDelete(LocalStore):
    def delete(self, bucket: str, key: str, if_match: str = "") -> None:
        super().delete(bucket, key)


class EndIsInclusive(LocalStore):
    def read(self, bucket: str, key: str, start: int = 0, length: int | None = None, if_match: str = "") -> bytes:
        return super().read(bucket, key, start, None if length is None else length + 1, if_match)


class ForgetsMetadata(LocalStore):
    def write(self, bucket: str, key: str, data: bytes, meta: ObjectMeta, **more: Any) -> ObjectInfo:
        return super().write(bucket, key, data, replace(meta, user={}), **more)


class OnePageOnly(LocalStore):
    def list(self, bucket: str, prefix: str = "") -> Iterator[ObjectInfo]:
        for number, info in enumerate(super().list(bucket, prefix)):
            if number == 100:
                return
            yield info


class TrimsKeys(LocalStore):
    def write(self, bucket: str, key: str, *args: Any, **more: Any) -> ObjectInfo:
        return super().write(bucket, key.replace("//", "/"), *args, **more)

    def read(self, bucket: str, key: str, *args: Any, **more: Any) -> bytes:
        return super().read(bucket, key.replace("//", "/"), *args, **more)


class ClaimsADigest(LocalStore):
    def head(self, bucket: str, key: str) -> tuple[ObjectInfo, ObjectMeta]:
        info, meta = super().head(bucket, key)
        return replace(info, digests=(Digest("md5", "0" * 32),)), meta


class KeepsAbortedParts(LocalStore):
    def abort(self, bucket: str, key: str, upload: str) -> None:
        return


class ShowsPartsEarly(LocalStore):
    def write_part(self, bucket: str, key: str, upload: str, part: Part, data: bytes, *, last: bool) -> Part:
        super().write(bucket, key, data, ObjectMeta())
        return super().write_part(bucket, key, upload, part, data, last=last)


class MissingIsInvalid(LocalStore):
    def head(self, bucket: str, key: str) -> tuple[ObjectInfo, ObjectMeta]:
        try:
            return super().head(bucket, key)
        except NotFound as error:
            raise Invalid(str(error)) from error


class LetsForeignErrorsOut(LocalStore):
    def head(self, bucket: str, key: str) -> tuple[ObjectInfo, ObjectMeta]:
        try:
            return super().head(bucket, key)
        except CrossloadError as error:
            raise KeyError(key) from error


class RemovesFullBuckets(LocalStore):
    def remove_bucket(self, bucket: str) -> bool:
        for info in list(self.list(bucket)):
            self.delete(bucket, info.key)
        return super().remove_bucket(bucket)


FAULTS: dict[type[LocalStore], str] = {
    IgnoresIfAbsent: "if_absent_creates_once",
    ChecksThenWrites: "one_of_sixteen_writers_wins",
    IgnoresIfMatchOnRead: "if_match_range_needs_the_current_etag",
    IgnoresIfMatchOnDelete: "if_match_delete_needs_the_current_etag",
    EndIsInclusive: "ranges_are_slices",
    ForgetsMetadata: "user_metadata_makes_the_round_trip",
    OnePageOnly: "list_is_complete",
    TrimsKeys: "key_double_slash",
    ClaimsADigest: "returned_digests_are_true",
    KeepsAbortedParts: "abort_may_happen_twice",
    ShowsPartsEarly: "nothing_shows_before_complete",
    MissingIsInvalid: "missing_object_is_not_found",
    LetsForeignErrorsOut: "missing_object_is_not_found",
    RemovesFullBuckets: "full_bucket_is_not_removed",
}


def _bench(root: Path) -> Callable[[type[LocalStore]], StoreBench]:
    connection = {"root": str(root)}
    settings = Settings(Place("disk", "local", "here", "DE", connection), connection, {})
    return lambda kind: StoreBench(open=lambda: kind(settings), many_keys=120)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_the_suite_finds(fault: type[LocalStore], tmp_path: Path) -> None:
    case = _BY_NAME[FAULTS[fault]]
    assert judge(case, _bench(tmp_path)(LocalStore), {}).result == "kept"
    broken = judge(case, _bench(tmp_path)(fault), {})
    assert broken.result == "broken", broken


def test_known_deviations_are_marked_and_must_be_true(tmp_path: Path) -> None:
    case = _BY_NAME["key_double_slash"]
    assert judge(case, _bench(tmp_path)(TrimsKeys), {case.name: "merges slashes"}).result == "known"
    assert judge(case, _bench(tmp_path)(LocalStore), {case.name: "merges slashes"}).result == "broken"


def test_every_case_says_what_it_promises() -> None:
    assert len(CASES) >= 35
    assert all(case.promise.endswith(".") for case in CASES), [case.name for case in CASES if not case.promise]
