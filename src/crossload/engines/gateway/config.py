"""The gateway's configuration: one TOML or JSON file, checked whole, every problem named at once."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from crossload.engines.gateway import wire as wires
from crossload.engines.gateway.route import ARMS, SOURCE, RouteInvalid, checked_weights
from crossload.estate.secret import ReferenceUnresolved, is_reference, read_env_file, resolve

FALLBACKS = ("none", "source", "target", "both")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class ConfigInvalid(ValueError):
    """`problems` holds every problem found, one line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Limits:
    body_bytes_max: int = 16 * 2**20
    header_bytes_max: int = 32 * 2**10
    response_bytes_max: int = 64 * 2**20
    client_connections_max: int = 2048
    upstream_connections_max: int = 128
    waiting_max: int = 1024
    write_buffer_bytes: int = 256 * 2**10


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Four numbers, because one could not tell a dead host from a slow answer."""

    connect_seconds: float = 5.0
    first_byte_seconds: float = 120.0
    between_bytes_seconds: float = 60.0
    total_seconds: float = 600.0
    request_seconds: float = 30.0  # a client may take this long to send its request
    idle_seconds: float = 75.0  # and may keep a quiet connection open this long


@dataclass(frozen=True, slots=True)
class Backend:
    """One arm. `parameters` are fields added to requests on the chat wire unless the client set them. `credentials`
    holds references: `key` for a bearer host, or the access key pair (and `region`, `service`) for a signing one, or
    `source` (`module:function`) that is called with all the others and returns SigningCredentials-shaped values."""

    arm: str
    wire: str
    base_url: str
    model: str
    credentials: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    ca_file: str = ""


@dataclass(frozen=True, slots=True)
class ClientKey:
    name: str
    key: str
    may_choose_arm: bool = False


@dataclass(frozen=True, slots=True)
class Config:
    """`home` is the folder that relative paths are taken from. `weights` only count until the state file exists."""

    home: Path
    backends: tuple[Backend, ...]
    weights: Mapping[str, float]
    admin_token: str
    host: str = "127.0.0.1"
    port: int = 0
    clients: tuple[ClientKey, ...] = ()
    open: bool = False
    models: tuple[str, ...] = ()
    on_loss: str = "refuse"
    fallback: str = SOURCE
    state_file: str = "gateway-state.json"
    port_file: str = "gateway-port"
    request_log: str = "requests.jsonl"
    environment_file: str = ""
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()

    def path(self, name: str) -> Path:
        return self.home / name

    def environment(self) -> dict[str, str]:
        """What `env:` references see: the file, and this process on top of it."""
        found = read_env_file(self.path(self.environment_file)) if self.environment_file else {}
        return {**found, **os.environ}

    def resolve(self, reference: str, environment: Mapping[str, str]) -> str:
        """The value behind a reference; `file:` paths are taken relative to `home`. Raises ReferenceUnresolved."""
        for _ in range(3):
            if reference.startswith("env:") and is_reference(environment.get(reference[4:], "")):
                reference = environment[reference[4:]]
            elif reference.startswith("file:") and not Path(reference[5:]).expanduser().is_absolute():
                reference = f"file:{self.home / reference[5:]}"
        return resolve(reference, environment)


def read_config(path: Path) -> Config:
    """Raises ConfigInvalid, OSError."""
    text = path.read_text(encoding="utf-8")
    try:
        value = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except ValueError as error:
        raise ConfigInvalid([f"{path}: {error}"]) from error
    return parse_config(value, path.resolve().parent)


def parse_config(value: Mapping[str, Any], home: Path) -> Config:
    """Raises ConfigInvalid with all problems; unknown names are problems too."""
    problems: list[str] = []
    known = {item.name for item in fields(Config)} - {"home"}
    problems += [f"unknown setting {name}" for name in value if name not in known]
    backends = _list(value, "backends", Backend, problems, _check_backend)
    for arm in ARMS:
        count = sum(backend.arm == arm for backend in backends)
        if count != 1:
            problems.append(f"backends must name the arm {arm} exactly once, not {count} times")
    clients = _list(value, "clients", ClientKey, problems, _check_client)
    weights: Mapping[str, float] = value.get("weights", {"source": 100, "target": 0})
    try:
        weights = checked_weights(weights)
    except RouteInvalid as error:
        problems.append(str(error))
    plain = {name: value[name] for name in known if name in value and name not in _BUILT}
    host = plain.get("host", "127.0.0.1")
    if value.get("open") and host not in _LOOPBACK:
        problems.append(f"open = true lets anybody in and is only allowed on loopback, not on {host}")
    if not clients and not value.get("open"):
        problems.append("name at least one client key, or say open = true on a loopback address")
    if not is_reference(str(value.get("admin_token", ""))):
        problems.append("admin_token must be a reference (env:NAME or file:PATH)")
    if plain.get("fallback", SOURCE) not in FALLBACKS:
        problems.append(f"fallback must be one of {', '.join(FALLBACKS)}")
    if plain.get("on_loss", "refuse") not in ("refuse", "warn"):
        problems.append("on_loss must be refuse or warn")
    limits = _section(value.get("limits", {}), Limits, "limits", problems)
    timeouts = _section(value.get("timeouts", {}), Timeouts, "timeouts", problems)
    if problems:
        raise ConfigInvalid(problems)
    plain["models"] = tuple(plain.get("models", ()))
    return Config(
        home=home, backends=tuple(backends), clients=tuple(clients), weights=weights, limits=limits,
        timeouts=timeouts, **plain,
    )  # fmt: skip


_BUILT = ("backends", "clients", "weights", "limits", "timeouts")


def _list(
    value: Mapping[str, Any], name: str, kind: Any, problems: list[str], check: Callable[[Any], list[str]]
) -> list[Any]:
    found: list[Any] = []
    for position, item in enumerate(value.get(name, ())):
        try:
            made = kind(**item)
        except TypeError as error:
            problems.append(f"{name}[{position}]: {str(error).split('() ')[-1]}")
            continue
        problems += [f"{name}[{position}]: {problem}" for problem in check(made)]
        found.append(made)
    return found


def _section(value: Mapping[str, Any], kind: Any, name: str, problems: list[str]) -> Any:
    known = {item.name for item in fields(kind)}
    problems += [f"unknown setting {name}.{key}" for key in value if key not in known]
    for key, item in value.items():
        if isinstance(item, bool) or not isinstance(item, int | float) or item <= 0:
            problems.append(f"{name}.{key} must be a number above 0")
    return kind(**{key: item for key, item in value.items() if key in known})


def _check_backend(backend: Backend) -> list[str]:
    problems: list[str] = []
    if backend.arm not in ARMS:
        problems.append(f"arm must be one of {', '.join(ARMS)}")
    if backend.wire not in wires.NAMES:
        problems.append(f"wire must be one of {', '.join(wires.NAMES)}")
    parts = urlsplit(backend.base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        problems.append("base_url must be an http or https address")
    for name, text in backend.credentials.items():
        # A token or a secret written out would end up in plans, logs and backups of this file.
        if name in ("key", "secret_access_key", "session_token") and text and not is_reference(text):
            problems.append(f"credentials.{name} must be a reference (env:NAME or file:PATH), never a value")
    return problems


def _check_client(client: ClientKey) -> list[str]:
    return [] if is_reference(client.key) else ["key must be a reference (env:NAME or file:PATH), never a value"]


__all__ = ["Backend", "ClientKey", "Config", "ConfigInvalid", "Limits", "ReferenceUnresolved", "Timeouts",
           "parse_config", "read_config"]  # fmt: skip
