"""Running the application's own tests in a copy of it, in a stated environment."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossload.engines.convert.index import SKIPPED_FOLDERS
from crossload.ports.errors import Invalid

COPY_LIMIT_BYTES = 500_000_000
_TAIL_LINES = 25
_COUNT = re.compile(r"(\d+) (passed|failed|errors?|skipped|xfailed|xpassed|deselected)\b")


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of the tests. `code` is the exit code, None when the time was up. `counts` are the runner's own words
    (passed, failed, skipped ...), empty when it does not say. `tail` is the end of its output, without secrets."""

    code: int | None
    seconds: float
    counts: Mapping[str, int]
    tail: str

    @property
    def green(self) -> bool:
        return self.code == 0

    @property
    def passed(self) -> int | None:
        return self.counts.get("passed", 0) if self.counts else None

    def to_json(self) -> dict[str, Any]:
        return {"exit_code": self.code, "seconds": round(self.seconds, 2), **self.counts}

    def __str__(self) -> str:
        if self.code is None:
            return f"not finished after {self.seconds:.0f} s"
        said = ", ".join(f"{count} {word}" for word, count in self.counts.items())
        return f"{said or f'exit code {self.code}'} in {self.seconds:.1f} s"


def copy_application(source: Path, target: Path) -> None:
    """A fresh copy for trying things out; caches, environments and version control stay behind. The copy is private:
    an application's folder may hold settings that are nobody else's business. Raises Invalid when it is too large."""
    size_bytes = sum(path.stat().st_size for path in _files(source))
    if size_bytes > COPY_LIMIT_BYTES:
        raise Invalid(f"{source.name} holds {size_bytes:,} bytes", hint="name the folder of the code, without its data")
    if target.exists():
        shutil.rmtree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns(*SKIPPED_FOLDERS))
    target.chmod(0o700)


def _files(folder: Path) -> list[Path]:
    found: list[Path] = []
    for entry in sorted(folder.iterdir()):
        if entry.is_symlink():
            continue
        if entry.is_dir():
            found += [] if entry.name in SKIPPED_FOLDERS else _files(entry)
        else:
            found.append(entry)
    return found


def run_tests(
    folder: Path,
    command: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    redact: Callable[[str], str] = lambda text: text,
    timeout_seconds: float = 600,
) -> Trial:
    """Run the command in the folder. Its whole output goes to `log`, readable by the owner, without secrets.

    A command that starts with `python` runs under this very interpreter. Raises Invalid when it cannot be started."""
    words = [sys.executable, *command[1:]] if command and command[0] in ("python", "python3") else list(command)
    began = time.monotonic()
    try:
        process = subprocess.Popen(
            words, cwd=folder, env=dict(environment), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise Invalid(f"cannot run `{' '.join(command)}`: {error}", hint="correct `app.test`") from error
    code: int | None = None
    try:
        output, _ = process.communicate(timeout=timeout_seconds)
        code = process.returncode
    except subprocess.TimeoutExpired:
        _end(process)
        output, _ = process.communicate()
    except BaseException:  # Ctrl-C: the tests must not go on without us
        _end(process)
        process.wait()
        raise
    text = redact(output.decode("utf-8", "replace"))
    log.parent.mkdir(parents=True, exist_ok=True)
    log.touch(mode=0o600)
    log.write_text(text, encoding="utf-8")
    return Trial(code, time.monotonic() - began, counts_in(text), "\n".join(text.rstrip().splitlines()[-_TAIL_LINES:]))


def _end(process: subprocess.Popen[bytes]) -> None:
    """The whole group: a test runner may have started servers of its own."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def counts_in(output: str) -> dict[str, int]:
    """What the last line that counts tests says; empty when no line does."""
    for line in reversed(output.splitlines()):
        found = _COUNT.findall(line)
        if found:
            return {word: int(count) for count, word in found}
    return {}


def same_tests(before: Trial, after: Trial) -> str:
    """Why the second run proves less than the first; "" when it proves as much. A test that is skipped at the target
    has not shown anything."""
    if not after.green:
        return f"the tests fail: {after}"
    if before.passed is not None and (after.passed or 0) < before.passed:
        return f"{before.passed} tests passed before, {after.passed or 0} after"
    return ""
