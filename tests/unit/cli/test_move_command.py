"""`crossload move` between folders, as a person and as a script call it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `a` with three files, and nothing else, to work in."""
    monkeypatch.chdir(tmp_path)
    for key, data in {"one": b"1", "sub/two": b"22" * 100, "sub/größe 日本": b"333"}.items():
        path = tmp_path / "a" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in found
        if path.relative_to(folder).parts[0] != ".crossload"
    }


def lines(out: str) -> list[Any]:
    return [json.loads(line) for line in out.splitlines()]


def test_a_folder_arrives_and_a_second_run_sends_nothing(folders: Path, say: Any) -> None:
    code, out, _ = say("move", "a", "b")
    assert code == 0
    assert out.startswith("3 objects, 204 B at the target; 3 sent now")
    assert files(folders / "b") == files(folders / "a")
    code, out, _ = say("move", "./a/", "b")  # the same addresses, written otherwise
    assert "0 sent now (0 B in" in out
    assert "3 were there already" in out
    assert len(list((folders / ".crossload" / "moves").iterdir())) == 1


def test_a_dry_run_moves_nothing(folders: Path, say: Any) -> None:
    code, out, err = say("move", "a", "b", "--dry-run")
    assert (code, out) == (0, "3 of 3 objects to carry, 204 B; nothing was moved\n")
    assert "does not exist: it will be made" in err
    assert not (folders / "b").exists()


def test_a_probe_that_cannot_be_made_spoils_no_dry_run(folders: Path, say: Any) -> None:
    code, out, err = say("move", "a", "b", "--dry-run", "--probe", "1")
    assert (code, "time: unknown (the target bucket is not there yet)" in err) == (0, True)
    (folders / "b").mkdir()
    code, out, err = say("move", "a", "b", "--dry-run", "--probe", "1")
    assert (code, out.partition(" objects")[0]) == (0, "3 of 3")
    assert "time: unknown (the target cannot be probed" in err
    assert files(folders / "b") == {}


def test_every_line_of_json_is_json_and_the_last_is_the_result(folders: Path, say: Any) -> None:
    code, out, _ = say("move", "a", "b", "--json")
    events = lines(out)
    assert code == 0
    assert [event["event"] for event in events] == ["move", "result"]
    result = events[-1]
    assert (result["objects"], result["failures"]) == (3, [])
    assert result["egress"]["cost"]["value"] == "unknown"
    assert "cost" not in say("move", "a", "b")[1]  # nobody asked


def test_quiet_json_is_the_result_alone(folders: Path, say: Any) -> None:
    _, out, err = say("move", "a", "b", "--json", "-q")
    assert [event["event"] for event in lines(out)] == ["result"]
    assert err == ""


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("a", "b", "--probe", "3"), 2, "usage"),
        (("a", "b", "--workers", "0"), 2, "usage"),
        (("a", "b", "--source-set", "nonsense"), 2, "usage"),
        (("a", "b", "--dry-run", "--undo"), 2, "usage"),
        (("a",), 2, "usage"),
        (("nowhere", "b"), 1, "not-found"),
        (("a", "a"), 3, "refused"),
        (("a", "a/sub"), 3, "refused"),
        (("a/sub", "a"), 3, "refused"),
        (("a", "b", "--verify"), 3, "refused"),
        (("a", "b", "--state", "a/state"), 3, "refused"),
        (("place:bucket", "b"), 2, "invalid"),
        (("q://bucket", "b"), 2, "invalid"),
        (("az://box/x", "b"), 2, "invalid"),
        (("s3://", "b"), 2, "invalid"),
        (("a", "b", "--key", "env:CROSSLOAD_NO_SUCH_KEY"), 2, "invalid"),
    ],
)
def test_an_error_is_one_line_of_json(
    folders: Path, say: Any, arguments: tuple[str, ...], code: int, word: str
) -> None:
    found, out, err = say("move", *arguments, "--json")
    last = lines(out)[-1]
    assert (found, last["event"], last["code"], last["exit_code"]) == (code, "error", word, code)
    assert last["message"]
    assert last["message"].splitlines()[0] in err
    assert not (folders / "b").exists()
    assert say("move", *arguments)[0] == code  # and the same without --json


def test_a_state_folder_in_the_source_is_refused_before_it_is_made(folders: Path, say: Any) -> None:
    say("move", "a", "b", "--state", "a/state")
    assert not (folders / "a" / "state").exists()


def test_an_account_that_is_missing_says_how_to_give_it(folders: Path, say: Any) -> None:
    _, _, err = say("move", "az://box/x", "b")
    assert "`account` is missing" in err
    assert "--source-set or --target-set NAME=VALUE; there are: account, endpoint, key" in err


def test_a_secret_on_the_command_line_is_refused(folders: Path, say: Any) -> None:
    code, _, err = say("move", "az://box/x", "b", "--source-set", "account=x", "--source-set", "key=opensesame")
    assert code == 2
    assert "opensesame" not in err
    assert "key=env:NAME" in err


@pytest.mark.parametrize("target", ["b", "b/", "b/one"])
def test_one_object_keeps_its_name(folders: Path, say: Any, target: str) -> None:
    (folders / "b").mkdir()
    for _ in range(2):
        assert say("move", "a/one", target)[0] == 0
        assert files(folders / "b") == {"one": b"1"}
    assert say("move", "a/one", target, "--undo")[0] == 0
    assert files(folders / "b") == {}


def test_a_file_is_no_folder_to_move_into(folders: Path, say: Any) -> None:
    (folders / "c").write_bytes(b"mine")
    assert say("move", "a", "c")[0] == 3
    assert say("move", "a/one", "c")[0] == 2
    assert (folders / "c").read_bytes() == b"mine"


def test_an_empty_folder_is_moved_as_it_is(folders: Path, say: Any) -> None:
    (folders / "empty").mkdir()
    code, out, _ = say("move", "empty", "b")
    assert (code, out.partition(" at the target")[0]) == (0, "0 objects, 0 B")
    assert (folders / "b").is_dir()


def test_a_folder_of_state_belongs_to_one_move(folders: Path, say: Any) -> None:
    (folders / "other").mkdir()
    (folders / "other" / "x").write_bytes(b"x")
    assert say("move", "a", "b", "--state", "s")[0] == 0
    code, _, err = say("move", "other", "b", "--state", "s")
    assert code == 3
    assert "belongs to the move from" in err
    assert files(folders / "b") == files(folders / "a")


def test_verify_names_what_differs_and_back_brings_it_home(folders: Path, say: Any) -> None:
    say("move", "a", "b")
    assert say("move", "a", "b", "--prove")[1].startswith("3 objects equal, 0 by the store's digest, 3 read back")
    (folders / "b" / "one").write_bytes(b"changed")
    code, out, err = say("move", "a", "b", "--verify")
    assert (code, out) == (4, "1 object(s) differ\n")
    assert "one: 7 bytes at the target, 1 in the manifest" in err
    code, out, _ = say("move", "a", "b", "--back")
    assert (code, out) == (0, "1 object(s) brought back, 0 removed at the source\n")
    assert (folders / "a" / "one").read_bytes() == b"changed"
    assert say("move", "a", "b", "--verify")[0] == 0


def test_back_leaves_conflicts_alone(folders: Path, say: Any) -> None:
    say("move", "a", "b")
    (folders / "a" / "one").write_bytes(b"theirs")
    (folders / "b" / "one").write_bytes(b"ours!!!")
    code, _, err = say("move", "a", "b", "--back")
    assert code == 4
    assert "changed on both sides, left alone: one" in err
    assert (folders / "a" / "one").read_bytes() == b"theirs"


def test_undo_leaves_what_others_changed(folders: Path, say: Any) -> None:
    say("move", "a", "b")
    (folders / "b" / "one").write_bytes(b"mine now")
    code, out, _ = say("move", "a", "b", "--undo")
    assert (code, out) == (0, "removed 2 object(s), kept 1 that others wrote or changed\n")
    assert files(folders / "b") == {"one": b"mine now"}


def test_undo_takes_a_folder_that_it_made(folders: Path, say: Any) -> None:
    say("move", "a", "b")
    assert say("move", "a", "b", "--undo")[1].endswith("; the bucket too\n")
    assert not (folders / "b").exists()
    assert say("move", "a", "b", "--verify")[0] == 3  # as if nothing had been
    assert say("move", "a", "b")[0] == 0


def test_a_source_that_lost_much_needs_a_word(folders: Path, say: Any) -> None:
    say("move", "a", "b")
    (folders / "a" / "one").unlink()
    (folders / "a" / "sub" / "two").unlink()
    code, _, err = say("move", "a", "b")
    assert code == 3
    assert "--allow-mass-delete" in err
    assert "migration file" not in err
    code, out, _ = say("move", "a", "b", "--allow-mass-delete")
    assert code == 0
    assert "2 removed that the source has lost" in out


def test_two_at_once_are_refused(folders: Path, say: Any) -> None:
    from crossload.api import open_move
    from crossload.ledger.lock import WorkspaceLock

    with WorkspaceLock(open_move("a", "b").folder / "lock", "move"):
        code, _, err = say("move", "./a", "b/")
    assert code == 5
    assert "holds the lock" in err


def test_a_state_folder_that_cannot_be_written_is_told(folders: Path, say: Any) -> None:
    code, _, err = say("move", "a", "b", "--state", "/proc/nothing")
    assert code == 1
    assert "/proc/nothing" in err
    assert not (folders / "b").exists()


def test_follow_carries_deltas_until_interrupted(folders: Path, say: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from crossload.engines.mover import move

    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 2:
            raise KeyboardInterrupt
        (folders / "a" / "late").write_bytes(b"late")

    monkeypatch.setattr(move.time, "sleep", nap)
    code, out, _ = say("move", "a", "b", "--follow", "--every", "7", "--json")
    events = lines(out)
    assert code == 0
    assert [event["event"] for event in events] == ["move", "copied", "delta", "delta", "result"]
    assert [event["objects_copied"] for event in events[2:4]] == [0, 1]
    assert (events[-1]["deltas"], events[-1]["objects"]) == (2, 4)
    assert min(naps) >= 7
    assert files(folders / "b") == files(folders / "a")


def test_progress_of_later_passes_adds_up(folders: Path) -> None:
    from crossload.cli.moving import _Talk  # pyright: ignore[reportPrivateUsage]

    class Running:
        def __init__(self) -> None:
            self.left: list[tuple[int, int]] = []

        def start(self, *left: int) -> None:
            self.left.append((left[0], left[1]))

        def moved(self, objects: int, size_bytes: int) -> None: ...

    class Opened:
        estimate = Running()

        def running(self) -> Running:
            return self.estimate

    watch = _Talk(as_json=False, quiet=True).watching(Opened(), "looking")
    told = watch.watcher()
    told.start(10, 100)
    told.moved(10, 100)
    told.start(12, 130)  # a delta within the run: two more
    assert Opened.estimate.left == [(10, 100), (2, 30)]
    watch.pause()
    told.start(1, 5)  # a delta of --follow begins anew
    assert Opened.estimate.left[-1] == (1, 5)
