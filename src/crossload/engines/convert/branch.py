"""Converted code on a git branch, by plumbing alone: the working tree, the index and HEAD are never touched."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from crossload.ports.errors import Invalid, Refused, Stale, Unsupported

_MARK = "Converted-by: Crossload"
_NOTHING = "0" * 40


@dataclass(frozen=True, slots=True)
class Committed:
    """`commit` and `tree` are object ids. `created` is False when the branch held exactly this already."""

    branch: str
    commit: str
    tree: str
    created: bool


class Repository:
    """The git repository around a folder. `prefix` is the folder's path in it, with a trailing slash or empty."""

    def __init__(self, top: Path, prefix: str, folder: Path) -> None:
        self.top = top
        self.prefix = prefix
        self.folder = folder

    @classmethod
    def around(cls, folder: Path) -> Repository | None:
        """None when the folder is in no repository. Raises Unsupported when git is missing or refuses."""
        try:
            answer = _run(["rev-parse", "--show-toplevel", "--show-prefix"], folder)
        except Invalid as error:
            if "not a git repository" in str(error):
                return None
            raise Unsupported(f"git cannot be asked about {folder.name}: {error}") from error
        lines = answer.split("\n")
        return cls(Path(lines[0]), lines[1] if len(lines) > 1 else "", folder)

    def tracks(self) -> bool:
        """Whether HEAD has any file of the folder."""
        if self._tip("HEAD") == "":
            return False
        return bool(_run(["ls-tree", "-r", "--name-only", "-z", "HEAD", "--", "."], self.folder))

    def changed(self) -> list[str]:
        """Tracked files of the folder whose content differs from HEAD, relative to the folder."""
        names = _run(["diff", "--name-only", "--relative", "-z", "HEAD", "--", "."], self.folder)
        return [name for name in names.split("\0") if name]

    def commit(self, branch: str, files: Mapping[str, Path], title: str, scratch: Path) -> Committed:
        """Put `files` (path in the folder -> where its content is now) on top of HEAD's tree, on the branch.

        Repeated with the same content it changes nothing. Raises Refused when the branch is not ours or checked out,
        Stale when it moved meanwhile."""
        ref = self._ref(branch)
        old = self._tip(ref)
        head = self._tip("HEAD")
        if old and _MARK not in self._git("log", "-1", "--format=%B", old):
            raise Refused(
                f"branch {branch} is there and its last commit is not Crossload's",
                hint="name another branch as `app.branch`, or remove this one",
            )
        tree = self._tree(files, head, scratch)
        if old and self._git("rev-parse", f"{old}^{{tree}}") == tree and self._parent(old) == head:
            return Committed(branch, old, tree, False)
        if old and ref in self._checked_out():
            raise Refused(f"branch {branch} is checked out", hint="check out another branch, then run again")
        parents = ["-p", head] if head else []
        commit = self._git("commit-tree", tree, *parents, "-m", f"{title}\n\n{_MARK}", identity=True)
        self._move(ref, commit, old or _NOTHING, branch)
        return Committed(branch, commit, tree, True)

    def holds(self, branch: str, tree: str) -> bool:
        tip = self._tip(self._ref(branch))
        return bool(tip) and self._git("rev-parse", f"{tip}^{{tree}}") == tree

    def tip(self, branch: str) -> str:
        """The commit that the branch points at, "" when there is no branch."""
        return self._tip(self._ref(branch))

    def delete(self, branch: str, commit: str) -> str:
        """Delete the branch if it still points at `commit`. Returns why not, or ""."""
        ref = self._ref(branch)
        tip = self._tip(ref)
        if not tip:
            return ""
        if tip != commit:
            return f"branch {branch} has moved on since: it stays"
        if ref in self._checked_out():
            return f"branch {branch} is checked out: it stays"
        try:
            self._git("update-ref", "-d", ref, commit)
        except Invalid as error:
            return f"branch {branch} could not be removed: {error}"
        return ""

    # Plumbing

    def _tree(self, files: Mapping[str, Path], head: str, scratch: Path) -> str:
        """A tree object made in an index of its own."""
        scratch.parent.mkdir(parents=True, exist_ok=True)
        scratch.unlink(missing_ok=True)
        index = {"GIT_INDEX_FILE": str(scratch.absolute())}
        try:
            if head:
                self._git("read-tree", head, more=index)
            lines: list[str] = []
            for name, path in sorted(files.items()):
                mode = "100755" if path.stat().st_mode & 0o111 else "100644"
                # --path: line ends and other filters are applied as `git add` would.
                blob = self._git(
                    "hash-object", "-w", "--stdin", f"--path={self.prefix}{name}", data=path.read_bytes()
                )  # fmt: skip
                lines.append(f"{mode} {blob}\t{self.prefix}{name}\0")
            self._git("update-index", "-z", "--index-info", more=index, data="".join(lines).encode())
            return self._git("write-tree", more=index)
        finally:
            scratch.unlink(missing_ok=True)

    def _move(self, ref: str, commit: str, old: str, branch: str) -> None:
        try:
            self._git("update-ref", "-m", "crossload: converted code", ref, commit, old)
        except Invalid as error:
            raise Stale(f"branch {branch} moved while it was written: {error}", hint="run again") from error

    def _ref(self, branch: str) -> str:
        self._git("check-ref-format", f"refs/heads/{branch}")
        return f"refs/heads/{branch}"

    def _tip(self, name: str) -> str:
        try:
            return self._git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
        except Invalid:
            return ""

    def _parent(self, commit: str) -> str:
        parents = self._git("rev-list", "--parents", "-n", "1", commit).split()[1:]
        return parents[0] if parents else ""

    def _checked_out(self) -> set[str]:
        lines = self._git("worktree", "list", "--porcelain").splitlines()
        return {line.removeprefix("branch ") for line in lines if line.startswith("branch ")}

    def _git(
        self, *words: str, data: bytes = b"", more: Mapping[str, str] | None = None, identity: bool = False
    ) -> str:
        who = {
            f"GIT_{role}_{part}": value
            for role in ("AUTHOR", "COMMITTER")
            for part, value in (("NAME", "Crossload"), ("EMAIL", "crossload@localhost"))
        }
        return _run(list(words), self.top, data, {**(more or {}), **(who if identity else {})})


def _run(words: list[str], folder: Path, data: bytes = b"", more: Mapping[str, str] | None = None) -> str:
    """One git command. Inherited GIT_ variables are dropped: inside a hook they would name another index or tree."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", **(more or {})}
    try:
        done = subprocess.run(
            ["git", *words], cwd=folder, env=environment, input=data, capture_output=True, check=False, timeout=120
        )
    except FileNotFoundError as error:
        raise Unsupported("git is not installed", hint="install git, or take the files from the workspace") from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise Invalid(f"git {words[0]}: {said or f'exit code {done.returncode}'}")
    return done.stdout.decode("utf-8", "surrogateescape").rstrip("\n")
