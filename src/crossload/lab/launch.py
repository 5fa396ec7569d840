"""Fork one server so that it cannot outlive its supervisor, and read what its log says when it dies."""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from crossload.lab.site import UNPRIVILEGED, Site
from crossload.lab.spec import Server

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
# Looked up before any fork: a child that loads a library between fork and exec may wait for ever on a thread's lock.
_prctl = ctypes.CDLL(None, use_errno=True).prctl

# Our own programs are modules of this package, installed or not.
_SOURCES = Path(__file__).resolve().parents[2]

# What servers may see of the caller's environment. Cloud credentials of the person at the keyboard are not among it.
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "HOME", "LD_LIBRARY_PATH")


def adopt_orphans() -> None:
    """Children of servers that die become ours, so that they can be seen and ended."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent(parent: int) -> Callable[[], None]:
    """A hook for the new process: SIGKILL when the thread that forked it ends, however it ends."""

    def hook() -> None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        # The parent may have died before the line above; then no signal will ever come.
        if os.getppid() != parent:
            os._exit(1)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])

    return hook


def start_process(row: Server, site: Site) -> subprocess.Popen[bytes]:
    """Start a server in a session of its own, its output appended to its log. Call from the main thread only."""
    argv = [str(part) for part in row.argv(site)]
    site.log.parent.mkdir(parents=True, exist_ok=True)
    as_unprivileged = row.never_as_root and os.geteuid() == 0
    account = pwd.getpwnam(UNPRIVILEGED) if as_unprivileged else None
    with site.log.open("ab") as log:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log if row.log_output else subprocess.DEVNULL,
            stderr=log,
            cwd=site.make_folder(),
            env=environment(row.env(site), site),
            start_new_session=True,
            preexec_fn=die_with_parent(os.getpid()),
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
        )


def environment(own: Mapping[str, str], site: Site) -> dict[str, str]:
    """The environment of a server: a few harmless names of ours, a scratch folder of its own, and what its row says."""
    scratch = site.folder / "tmp"
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    ours = {
        "TMPDIR": str(scratch if scratch.is_dir() else site.folder),
        "NO_PROXY": "127.0.0.1,localhost",
        "PYTHONPATH": str(_SOURCES),
        "PYTHONUNBUFFERED": "1",
    }
    return {**kept, **ours, **own}


def callers_environment() -> dict[str, str]:
    """The caller's whole environment, for our own programs: they find the modules that the caller finds."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def last_lines(log: Path, count: int = 5) -> list[str]:
    """The last non-empty lines of a log, without reading all of it."""
    try:
        with log.open("rb") as text:
            text.seek(0, os.SEEK_END)
            text.seek(max(0, text.tell() - 64 * 1024))
            lines = text.read().decode(errors="replace").splitlines()
    except OSError:
        return []
    return [line for line in lines if line.strip()][-count:]


def run_quiet(
    argv: Sequence[str | Path],
    *,
    as_unprivileged: bool = False,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    text_in: str | None = None,
    timeout_seconds: float = 60.0,
) -> str:
    """Run a tool to its end. Raises RuntimeError with the tool's own words when it fails."""
    account = pwd.getpwnam(UNPRIVILEGED) if as_unprivileged and os.geteuid() == 0 else None
    done = subprocess.run(
        [str(part) for part in argv],
        input=text_in,
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=dict(env) if env is not None else None,
        timeout=timeout_seconds,
        user=account.pw_uid if account else None,
        group=account.pw_gid if account else None,
        extra_groups=[] if account else None,
    )
    if done.returncode != 0:
        raise RuntimeError(
            f"{Path(str(argv[0])).name} ended with {done.returncode}: {(done.stderr or done.stdout)[-600:].strip()}"
        )
    return done.stdout
