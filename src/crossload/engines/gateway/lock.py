"""`models.lock`: what is served on each arm, pinned. TOML, written the same byte for byte for the same content.

A pin holds what identifies a model where it runs: artifact digest and what its header says for open weights, the id for
models of a catalogue, which show no digest. What is not known is left out, never filled in."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossload.engines.gateway.gguf import GgufInfo
from crossload.estate.whole import write_whole
from crossload.ports.errors import Invalid

VERSION = 1
_BARE = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Pin:
    """One arm of one model. `model` is the id its wire is called with; `server` names engine and version that answer;
    `parameters` are fields the gateway adds to every request of this arm."""

    arm: str
    wire: str
    model: str
    place: str = ""
    artifact: str = ""  # where the weights are, as bucket/key
    sha256: str = ""
    size_bytes: int | None = None
    architecture: str = ""
    weights_name: str = ""
    quantisation: str = ""
    context: int | None = None
    template_sha256: str = ""
    tokenizer_sha256: str = ""
    server: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Only what is known."""
        value = {name: getattr(self, name) for name in self.__slots__ if name not in ("arm", "parameters")}
        found = {name: item for name, item in value.items() if item not in ("", None)}
        return {**found, "parameters": dict(self.parameters)} if self.parameters else found


@dataclass(frozen=True, slots=True)
class ModelLock:
    """`name` is what the app calls the model."""

    name: str
    pins: tuple[Pin, ...]

    def pin(self, arm: str) -> Pin | None:
        return next((pin for pin in self.pins if pin.arm == arm), None)


def pin_of(
    arm: str, wire: str, model: str, *, info: GgufInfo | None = None, place: str = "", artifact: str = "",
    sha256: str = "", size_bytes: int | None = None, server: str = "", parameters: Mapping[str, Any] | None = None,
) -> Pin:  # fmt: skip
    """A pin, with what the artifact's header says where there is an artifact."""
    return Pin(
        arm=arm, wire=wire, model=model, place=place, artifact=artifact, sha256=sha256, size_bytes=size_bytes,
        architecture=info.architecture if info else "",
        weights_name=info.name if info else "",
        quantisation=info.quantisation if info else "",
        context=info.context if info else None,
        template_sha256=info.template_sha256 if info else "",
        tokenizer_sha256=info.tokenizer_sha256 if info else "",
        server=server, parameters=dict(parameters or {}),
    )  # fmt: skip


def render_lock(models: Sequence[ModelLock]) -> str:
    """Models by name, arms by name, keys in the order of Pin: the same content is the same text."""
    lines = ["# What is served on each arm. Written by Crossload; change it only by deploying.", f"version = {VERSION}"]
    for model in sorted(models, key=lambda one: one.name):
        lines += ["", "[[model]]", f"name = {_value(model.name)}"]
        for pin in sorted(model.pins, key=lambda one: one.arm):
            lines += ["", f"[model.arm.{_key(pin.arm)}]"]
            lines += [f"{_key(name)} = {_value(item)}" for name, item in pin.to_json().items()]
    return "\n".join(lines) + "\n"


def parse_lock(text: str) -> tuple[ModelLock, ...]:
    """Raises Invalid."""
    try:
        value = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Invalid(f"models.lock: {error}") from error
    if value.get("version") != VERSION:
        raise Invalid(f"models.lock has version {value.get('version')!r}, this Crossload reads version {VERSION}")
    try:
        return tuple(
            ModelLock(item["name"], tuple(Pin(arm=arm, **pin) for arm, pin in sorted(item.get("arm", {}).items())))
            for item in value.get("model", ())
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise Invalid(f"models.lock: {error}") from error


def write_lock(path: Path, models: Sequence[ModelLock]) -> None:
    text = render_lock(models)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)


def read_lock(path: Path) -> tuple[ModelLock, ...]:
    """Raises Invalid, OSError."""
    return parse_lock(path.read_text(encoding="utf-8"))


def check_pin(locked: Pin, found: Pin) -> list[str]:
    """How what is served now differs from what was locked; [] when it does not. A fact the lock holds and nobody can
    tell now is a difference too: a pin that cannot be checked pins nothing."""
    problems: list[str] = []
    now = found.to_json()
    for name, wanted in locked.to_json().items():
        if name not in now:
            problems.append(f"{locked.arm}: {name} is locked to {wanted} and not known now")
        elif now[name] != wanted:
            problems.append(f"{locked.arm}: {name} is {now[name]}, locked is {wanted}")
    return problems


def floating(pin: Pin) -> list[str]:
    """Why a pin does not hold still: no digest and no version in the id."""
    if pin.sha256:
        return []
    last = pin.model.rpartition("/")[2]
    if last.endswith(("latest", ":latest")) or not re.search(r"\d", last):
        return [f"{pin.arm}: {pin.model} names no version, and there is no digest: it can change under the app"]
    return []


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _value(name)


def _value(item: Any) -> str:
    if isinstance(item, bool):
        return "true" if item else "false"
    if isinstance(item, int | float):
        return repr(item)
    if isinstance(item, str):
        return f'"{"".join(_escaped(letter) for letter in item)}"'
    if isinstance(item, Mapping):
        pairs: list[tuple[str, Any]] = sorted(item.items())
        return "{ " + ", ".join(f"{_key(name)} = {_value(inner)}" for name, inner in pairs) + " }"
    if isinstance(item, list | tuple):
        listed: list[Any] = list(item)
        return "[" + ", ".join(_value(inner) for inner in listed) + "]"
    raise Invalid(f"models.lock cannot hold {type(item).__name__}")


def _escaped(letter: str) -> str:
    if letter in ('"', "\\"):
        return f"\\{letter}"
    return letter if letter >= " " and letter != "\x7f" else f"\\u{ord(letter):04x}"
