"""The World a stage is handed: the only way to reach a cloud. Built in `wiring`, and wrapped there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from crossload.estate.asset import Inventory
    from crossload.estate.migration import Migration
    from crossload.ports.account import Account
    from crossload.ports.agents import Agents
    from crossload.ports.code import Code
    from crossload.ports.identity import Identity
    from crossload.ports.infra import Infra
    from crossload.ports.models import Models
    from crossload.ports.policy import Policy
    from crossload.ports.probe import Probe
    from crossload.ports.store import Store
    from crossload.ports.vectors import Vectors


class Progress(Protocol):
    """Live talk about long work. Safe to call from any thread."""

    def start(self, task: str, total: float | None, unit: str) -> None: ...
    def advance(self, task: str, amount: float) -> None: ...
    def finish(self, task: str) -> None: ...
    def say(self, text: str) -> None: ...


class World(Protocol):
    """At most twelve methods and four facts, so that it cannot rot into a god object (a house test counts them).

    A provider that does not offer a port raises `Unsupported` naming what it offers."""

    migration: Migration
    inventory: Inventory
    workspace: Path  # .crossload/ of this migration: journals, manifests, generated files
    progress: Progress

    def store(self, place: str, identity: str = "") -> Store: ...
    def vectors(self, place: str) -> Vectors: ...
    def models(self, place: str) -> Models: ...
    def identity(self, place: str, port: str = "") -> Identity: ...
    def account(self, place: str) -> Account: ...
    def policy(self, place: str, port: str = "") -> Policy: ...
    def probe(self, place: str, port: str = "") -> Probe: ...
    def agents(self, place: str) -> Agents: ...
    def code(self, place: str, port: str = "store") -> Code: ...
    def infra(self, place: str) -> Infra: ...
    def outcome(self, step: str) -> Mapping[str, Any] | None: ...
