"""`crossload verify --provider`: what it says, what it leaves alone, what it removes, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from crossload import api
from crossload.conformance.trial import Trial
from crossload.estate.place import Place
from crossload.ports.errors import AccessDenied, Invalid, Unsupported
from crossload.ports.provider import Settings
from crossload.ports.store import ObjectInfo, ObjectMeta
from crossload.providers.local.store import LocalStore

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    root = tmp_path / "disk"
    root.mkdir()
    return root


@pytest.fixture
def local(disk: Path) -> tuple[str, ...]:
    return ("verify", "--provider", "local", "--set", f"root={disk}", "--region", "here")


def opened(root: Path, kind: type[LocalStore] = LocalStore) -> LocalStore:
    connection = {"root": str(root)}
    return kind(Settings(Place("disk", "local", "here", "DE", connection), connection, {}))


def trial(root: Path, kind: type[LocalStore] = LocalStore, **more: Any) -> Trial:
    return Trial("disk", {"store": lambda _: opened(root, kind)}, **more)


def keys(root: Path, bucket: str) -> list[str]:
    return sorted(info.key for info in opened(root).list(bucket))


# -- a whole run -----------------------------------------------------------------------------------------------------


def test_every_case_passes_on_a_disk_and_nothing_stays(say: Say, local: tuple[str, ...], disk: Path) -> None:
    code, out, err = say(*local, "--yes", "--json", "-q")
    told = json.loads(out)
    results = {item["case"]: item["result"] for item in told["results"]}
    assert code == 0, err
    assert set(results.values()) == {"passed", "skipped"} and len(results) > 80
    assert results["if_absent_creates_once"] == "passed"
    assert all(item["detail"] for item in told["results"] if item["result"] == "skipped"), "a skip without its reason"
    assert told["left"] == [] and list(disk.iterdir()) == []
    assert "makes buckets called crossload-trial-" in err and "removes all of it at the end" in err


def test_a_bucket_that_was_there_keeps_what_it_had(say: Say, local: tuple[str, ...], disk: Path) -> None:
    store = opened(disk)
    store.ensure_bucket("mine")
    store.ensure_bucket("other")
    store.write("mine", "crossload-trial.txt", b"keep", ObjectMeta())
    code, out, _ = say(*local, "--bucket", "mine", "--yes", "--json", "-q")
    results = {item["case"]: item["result"] for item in json.loads(out)["results"]}
    assert code == 0
    assert results["bucket_is_made_once"] == results["no_key_leaves_its_bucket"] == "skipped"
    assert results["list_is_complete"] == "passed"
    assert keys(disk, "mine") == ["crossload-trial.txt"] and store.read("mine", "crossload-trial.txt") == b"keep"
    assert sorted(bucket.name for bucket in store.buckets()) == ["mine", "other"]


def test_a_bucket_that_was_not_there_goes_again(say: Say, local: tuple[str, ...], disk: Path) -> None:
    code, out, _ = say(*local, "--bucket", "fresh", "--only", "ranges_are_slices", "--yes", "-q")
    assert code == 0 and "1 passed, 0 failed, 0 skipped" in out
    assert list(disk.iterdir()) == []


def test_a_place_of_the_file_is_tried_too(say: Say, tmp_path: Path) -> None:
    from desk_project import FILE  # pyright: ignore[reportMissingImports]

    (tmp_path / "a").mkdir()
    file = tmp_path / "migration.yaml"
    file.write_text(FILE.replace("root: a}", f"root: {tmp_path / 'a'}}}"), encoding="utf-8")
    code, out, _ = say("verify", "-f", str(file), "--provider", "a", "--only", "ranges_are_slices", "--yes", "--json")
    assert code == 0 and json.loads(out)["place"] == "a"
    code, _, err = say("verify", "-f", str(file), "--provider", "c", "--yes")
    assert code == 1 and "no provider is called c, and no place of" in err and "places: a, b" in err
    code, _, err = say("verify", "-f", str(file), "--provider", "a", "--set", "root=x", "--yes")
    assert code == 2 and "has its settings in" in err


# -- saying and asking -----------------------------------------------------------------------------------------------


def test_a_dry_run_lists_the_cases_and_opens_nothing(say: Say) -> None:
    code, out, _ = say("verify", "--provider", "local", "--set", "root=/nowhere", "--dry-run", "--json")
    told = json.loads(out)
    assert code == 0 and len(told["results"]) > 80
    assert {item["result"] for item in told["results"]} == {""}
    code, out, _ = say("verify", "--provider", "postgres", "--dry-run")
    assert code == 0 and "load_and_export_are_bit_exact" in out and "not run" in out


def test_it_asks_first(local: tuple[str, ...], disk: Path) -> None:
    command = [sys.executable, "-m", "crossload", *local]
    for answer, code in (("n\n", 3), ("", 130)):
        done = subprocess.run(command, input=answer, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        assert "Go on?" in done.stderr and list(disk.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--bucket", "x"), 2, "go with --provider"),
        (("--yes",), 2, "go with --provider"),
        (("--provider", "local", "--set", "root"), 2, "is not SETTING=VALUE"),
        (("--provider", "local", "--set", "rot=x", "--yes"), 2, "did you mean `root`?"),
        (("--provider", "azure", "--set", "account_key=abc", "--yes"), 2, "holds a secret's value"),
        (("--provider", "loacl", "--yes"), 1, "there are: aws"),
        (("--provider", "openai", "--yes"), 1, "offers no port that has a suite"),
        (("--provider", "local", "--set", "root=/nowhere", "--only", "ranges_are_slice", "--yes"), 2,
         "did you mean `ranges_are_slices`?"),
        (("--provider", "local", "--set", "root=env:NOT_SET_ANYWHERE", "--yes"), 2, "NOT_SET_ANYWHERE"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_clear_line(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    got, out, err = say("verify", *arguments)
    assert (got, out) == (code, "")
    assert said in err


def test_the_api_touches_nothing_before_run(disk: Path) -> None:
    prepared = api.verify_provider("local", settings={"root": str(disk)})
    assert prepared.cases() and prepared.says() and list(disk.iterdir()) == []


# -- when it goes wrong ----------------------------------------------------------------------------------------------


class Slicing(LocalStore):
    """Ranges end one byte late."""

    def read(self, bucket: str, key: str, start: int = 0, length: int | None = None, if_match: str = "") -> bytes:
        return super().read(bucket, key, start, None if length is None else length + 1, if_match)


class Clinging(LocalStore):
    """Deletes nothing."""

    def delete(self, bucket: str, key: str, if_match: str = "") -> None:
        raise AccessDenied("no deletes here")


class Foreign(LocalStore):
    """Lists more than it was asked for."""

    def list(self, bucket: str, prefix: str = "", *more: Any) -> Iterator[ObjectInfo]:
        return super().list(bucket, "", *more)


class Closed(LocalStore):
    def buckets(self) -> list[Any]:
        raise AccessDenied("no way in")


def test_a_broken_promise_is_exit_code_4(
    say: Say, local: tuple[str, ...], disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crossload.providers.local.store.open_store", Slicing)
    code, out, _ = say(*local, "--only", "ranges_are_slices", "--yes", "-q")
    assert code == 4 and "0 passed, 1 failed, 0 skipped" in out
    assert list(disk.iterdir()) == []


def test_no_way_in_is_an_error_and_not_eighty_failures(
    say: Say, local: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crossload.providers.local.store.open_store", Closed)
    code, _, err = say(*local, "--yes", "-q")
    assert code == 6 and "no way in" in err


def test_what_cannot_be_removed_is_named(disk: Path) -> None:
    tried = trial(disk, Clinging, only="ranges_are_slices")
    assert [item.result for item in tried.run()] == ["passed"]
    assert tried.left and "no deletes here" in tried.left[0] and tried.mark in tried.left[0]


def test_foreign_objects_are_not_deleted_even_when_the_list_is_wrong(disk: Path) -> None:
    store = opened(disk)
    store.ensure_bucket("mine")
    store.write("mine", "a-first", b"keep", ObjectMeta())
    tried = trial(disk, Foreign, bucket="mine", only="ranges_are_slices")
    tried.run()
    assert store.read("mine", "a-first") == b"keep"
    assert tried.left and "a-first" in tried.left[0]


def test_an_interrupt_removes_everything_too(disk: Path) -> None:
    store = opened(disk)
    store.ensure_bucket("mine")
    for bucket in ("", "mine"):
        seen: list[str] = []

        def stop(item: Any, seen: list[str] = seen) -> None:
            seen.append(item.case)
            if len(seen) == 12:
                raise KeyboardInterrupt

        tried = trial(disk, bucket=bucket)
        with pytest.raises(KeyboardInterrupt):
            tried.run(stop)
        assert tried.left == [] and keys(disk, "mine") == []
        assert [item.name for item in store.buckets()] == ["mine"]


def test_an_upload_that_was_open_is_aborted(disk: Path) -> None:
    """Nothing lists it, and its owner would pay for its parts."""
    aborted: list[str] = []

    class Stopping(LocalStore):
        def complete(self, *args: Any, **named: Any) -> ObjectInfo:
            raise KeyboardInterrupt

        def abort(self, bucket: str, key: str, upload: str) -> None:
            aborted.append(key)
            super().abort(bucket, key, upload)

    tried = trial(disk, Stopping, only="complete_if_absent_is_refused_on_a_taken_key")
    with pytest.raises(KeyboardInterrupt):
        tried.run()
    assert len(aborted) == 1 and aborted[0].startswith(tried.mark)
    assert list(disk.iterdir()) == []


def test_a_write_that_lands_after_the_interrupt_is_removed_too(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some servers even make the bucket anew for it."""
    tried = trial(disk, only="ranges_are_slices")

    def late(_: float) -> None:
        store = opened(disk)
        store.ensure_bucket(f"{tried.mark}-shared")
        store.write(f"{tried.mark}-shared", "late", b"late", ObjectMeta())

    def stop(_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("crossload.conformance.trial.time.sleep", late)
    with pytest.raises(KeyboardInterrupt):
        tried.run(stop)
    assert tried.left == [] and list(disk.iterdir()) == []


def test_only_own_buckets_are_frozen(disk: Path) -> None:
    frozen: list[str] = []

    class Freezing(LocalStore):
        def freeze(self, bucket: str) -> str:
            frozen.append(bucket)
            return "token"

        def thaw(self, bucket: str, token: str) -> None:
            frozen.remove(bucket)

    opened(disk).ensure_bucket("mine")
    kept = trial(disk, Freezing, bucket="mine", only="freeze_and_thaw_may_happen_twice").run()
    assert [item.result for item in kept] == ["skipped"] and "settings are left alone" in kept[0].detail
    assert frozen == []


def test_a_freeze_that_was_interrupted_is_thawed(disk: Path) -> None:
    thawed: list[str] = []

    class Freezing(LocalStore):
        def freeze(self, bucket: str) -> str:
            raise KeyboardInterrupt

        def thaw(self, bucket: str, token: str) -> None:
            thawed.append(bucket)

    tried = trial(disk, Freezing, only="freeze_and_thaw_may_happen_twice")
    with pytest.raises(KeyboardInterrupt):
        tried.run()
    assert thawed == [f"{tried.mark}-shared"]


def test_ctrl_c_leaves_nothing(local: tuple[str, ...], disk: Path) -> None:
    running = subprocess.Popen(
        [sys.executable, "-m", "crossload", *local, "--yes"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not any(disk.iterdir()) and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert "interrupted" in err and "not removed" not in err
    assert list(disk.iterdir()) == []


def test_bad_names_are_refused_by_the_api(disk: Path) -> None:
    with pytest.raises(Invalid):
        api.verify_provider("local", settings={"root": str(disk)}, only="nothing_like_it").cases()
    with pytest.raises(Unsupported):
        api.verify_provider("nobody")
