"""A branch written by plumbing: the working tree, the index and HEAD stay as they were."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from crossload.engines.convert.branch import Repository
from crossload.ports.errors import Invalid, Refused


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, check=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with an application in a folder, a staged change and an unstaged one."""
    top = tmp_path / "checkout"
    (top / "svc/app").mkdir(parents=True)
    git(top, "init", "-q", "-b", "trunk")
    (top / "README").write_text("one\n")
    (top / "svc/app/a.py").write_text("a = 1\n")
    (top / "svc/app/run.sh").write_text("#!/bin/sh\n")
    (top / "svc/app/run.sh").chmod(0o755)
    git(top, "add", "-A")
    git(top, "commit", "-qm", "one")
    (top / "README").write_text("staged\n")
    git(top, "add", "README")
    (top / "svc/app/a.py").write_text("a = 2\n")
    (top / "svc/app/scratch.txt").write_text("mine\n")
    return top


def state(top: Path) -> tuple[str, str, str, str]:
    return (
        git(top, "status", "--porcelain"),
        git(top, "rev-parse", "HEAD"),
        git(top, "write-tree"),
        git(top, "symbolic-ref", "HEAD"),
    )


@pytest.fixture
def converted(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "new.py").write_text("b = 1\n")
    (tmp_path / "a.py").write_text("a = 3\n")
    return {"deep/new.py": tmp_path / "new.py", "a.py": tmp_path / "a.py"}


def around(top: Path) -> Repository:
    found = Repository.around(top / "svc/app")
    assert found is not None
    return found


def test_the_branch_has_the_files_and_nothing_else_moved(
    checkout: Path, converted: dict[str, Path], tmp_path: Path
) -> None:
    before, repository = state(checkout), around(checkout)
    assert repository.tracks() and repository.changed() == ["a.py"]
    done = repository.commit("crossload/portable", converted, "Portable form", tmp_path / "index")
    assert done.created and repository.holds("crossload/portable", done.tree)
    assert state(checkout) == before
    assert not (tmp_path / "index").exists()
    assert git(checkout, "show", "crossload/portable:svc/app/deep/new.py") == "b = 1"
    assert git(checkout, "show", "crossload/portable:svc/app/a.py") == "a = 3"
    # On top of HEAD, not of the index or the working tree: others' unfinished work stays theirs.
    assert git(checkout, "show", "crossload/portable:README") == "one"
    assert git(checkout, "rev-parse", "crossload/portable^") == before[1]
    changed = git(checkout, "diff", "--name-only", "trunk", "crossload/portable").splitlines()
    assert changed == ["svc/app/a.py", "svc/app/deep/new.py"]
    assert "100755" in git(checkout, "ls-tree", "crossload/portable", "svc/app/run.sh")


def test_a_second_time_changes_nothing(checkout: Path, converted: dict[str, Path], tmp_path: Path) -> None:
    repository = around(checkout)
    first = repository.commit("b", converted, "x", tmp_path / "index")
    again = repository.commit("b", converted, "x", tmp_path / "index")
    assert (again.commit, again.created) == (first.commit, False)
    (tmp_path / "a.py").write_text("a = 4\n")
    third = repository.commit("b", converted, "x", tmp_path / "index")
    assert third.created and git(checkout, "rev-parse", "b^") == git(checkout, "rev-parse", "HEAD")


def test_a_branch_of_somebody_else_is_not_touched(checkout: Path, converted: dict[str, Path], tmp_path: Path) -> None:
    git(checkout, "branch", "b")
    with pytest.raises(Refused, match="not Crossload's"):
        around(checkout).commit("b", converted, "x", tmp_path / "index")
    assert git(checkout, "rev-parse", "b") == git(checkout, "rev-parse", "HEAD")


def test_a_branch_that_is_checked_out_is_not_moved(checkout: Path, converted: dict[str, Path], tmp_path: Path) -> None:
    repository = around(checkout)
    done = repository.commit("b", converted, "x", tmp_path / "index")
    git(checkout, "worktree", "add", "-q", str(tmp_path / "other"), "b")
    (tmp_path / "a.py").write_text("a = 5\n")
    with pytest.raises(Refused, match="checked out"):
        repository.commit("b", converted, "x", tmp_path / "index")
    assert "checked out" in repository.delete("b", done.commit)
    assert repository.tip("b") == done.commit


def test_delete_only_what_is_still_ours(checkout: Path, converted: dict[str, Path], tmp_path: Path) -> None:
    repository = around(checkout)
    done = repository.commit("b", converted, "x", tmp_path / "index")
    moved = git(checkout, "commit-tree", done.tree, "-p", done.commit, "-m", "built on it")
    git(checkout, "update-ref", "refs/heads/b", moved)
    assert "moved on" in repository.delete("b", done.commit)
    assert repository.tip("b") == moved
    git(checkout, "update-ref", "refs/heads/b", done.commit)
    assert repository.delete("b", done.commit) == "" and repository.tip("b") == ""
    assert repository.delete("b", done.commit) == ""


def test_outside_a_repository_and_before_the_first_commit(tmp_path: Path, converted: dict[str, Path]) -> None:
    (tmp_path / "plain").mkdir()
    assert Repository.around(tmp_path / "plain") is None
    (tmp_path / "fresh").mkdir()
    git(tmp_path / "fresh", "init", "-q")
    fresh = Repository.around(tmp_path / "fresh")
    assert fresh is not None and not fresh.tracks()
    done = fresh.commit("b", converted, "x", tmp_path / "index")
    assert git(tmp_path / "fresh", "show", "b:deep/new.py") == "b = 1" and done.created


def test_an_inherited_index_is_not_used(
    checkout: Path, converted: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a hook, where git names its own index for us."""
    before = state(checkout)
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "hooks-index"))
    around(checkout).commit("b", converted, "x", tmp_path / "index")
    monkeypatch.delenv("GIT_INDEX_FILE")
    assert state(checkout) == before and not (tmp_path / "hooks-index").exists()


def test_a_bad_branch_name(checkout: Path, converted: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(Invalid):
        around(checkout).commit("no..good", converted, "x", tmp_path / "index")
