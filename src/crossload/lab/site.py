"""One lab's place on disk: folders, secrets, ports. A server's row sees the lab only through its `Site`."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import secrets
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

UNPRIVILEGED = "nobody"


@dataclass(frozen=True, slots=True)
class Site:
    """The view of one server (`name`) on the lab in `home`. `ports` holds every server's ports."""

    home: Path
    name: str
    ports: Mapping[str, Mapping[str, int]]
    folders: Mapping[str, str]

    def seen_by(self, name: str) -> Site:
        return replace(self, name=name)

    def port(self, port_name: str, server: str | None = None) -> int:
        return self.ports[server or self.name][port_name]

    def url(self, port_name: str, server: str | None = None) -> str:
        return f"http://127.0.0.1:{self.port(port_name, server)}"

    @property
    def folder(self) -> Path:
        return Path(self.folders.get(self.name) or self.home / self.name)

    def make_folder(self) -> Path:
        folder = self.folder
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def log(self) -> Path:
        return self.home / "logs" / f"{self.name}.log"

    def secret_path(self, secret_name: str) -> Path:
        return self.home / "secrets" / secret_name

    def secret(self, secret_name: str, make: Callable[[], str] = lambda: secrets.token_hex(24)) -> str:
        """The value of a secret of this lab; made at first use and kept in a file only its owner can read."""
        path = self.secret_path(secret_name)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            write_private(draft, make() + "\n")
            # A hard link is made whole or not at all: two processes asking at once end with one value.
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(draft)
            draft.unlink()
        return path.read_text().strip()


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    _write(path, text, 0o600)


def write_public(path: Path, text: str) -> None:
    """Write a file without secrets, whole or not at all."""
    _write(path, text, 0o644)


def _write(path: Path, text: str, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as out:
            out.write(text)
        Path(scratch).chmod(mode)
        Path(scratch).replace(path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise


def reachable_by_others(path: Path) -> bool:
    """True when a user without rights can walk down to `path`: each existing folder on the way lets others pass."""
    resolved = path.resolve()
    return all(not step.exists() or step.stat().st_mode & 0o001 for step in (resolved, *resolved.parents))


def unprivileged_folder(home: Path, name: str) -> Path:
    """The data folder of a server that must not run as root.

    Inside the home when a user without rights can reach it; else under the system's temporary folder, under a name
    made from the home, so that the same home finds its data again.
    """
    home.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0 or reachable_by_others(home):
        return home / name
    mark = hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"crossload-lab-{mark}" / name


def give_to_unprivileged(folder: Path) -> None:
    """Hand a folder to the user that servers which refuse root run as. Does nothing for a plain user."""
    if os.geteuid() == 0:
        account = pwd.getpwnam(UNPRIVILEGED)
        folder.parent.mkdir(parents=True, exist_ok=True)
        os.chown(folder, account.pw_uid, account.pw_gid)


def remove_tree(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
