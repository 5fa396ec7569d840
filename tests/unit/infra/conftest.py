"""Foundations of a small estate, and each provider's module made of them."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import pytest

from crossload.engines.infra.derive import derive
from crossload.engines.infra.module import compose
from crossload.estate.asset import Asset, Edge, Inventory, Kind
from crossload.estate.place import Place
from crossload.ports.infra import Foundations, Infra
from crossload.ports.provider import Settings

PROVIDERS = ("aws", "azure", "gcp")
CHOICES = {"dataset:helpdesk-docs": "target", "model:smol": "target"}


def infra_of(provider: str) -> Infra:
    place = Place("target", provider, "europe-west3", "DE")
    return importlib.import_module(f"crossload.providers.{provider}.infra").open_infra(Settings(place, {}, {}))


@pytest.fixture(scope="session")
def inventory() -> Inventory:
    overlay = {"sensitivity": "internal", "owner": "Team Näh & Co", "app": "helpdesk"}
    return Inventory(
        (
            Asset(
                "dataset:helpdesk-docs",
                Kind.DATASET,
                "helpdesk-docs",
                "source",
                "d",
                {"bucket": "helpdesk-docs"},
                {},
                overlay,
            ),
            Asset("dataset:staying", Kind.DATASET, "staying", "source", "s", {"bucket": "staying"}),
            Asset(
                "model:smol",
                Kind.MODEL,
                "smol",
                "source",
                "m",
                {"bucket": "helpdesk-models", "key": "m.gguf"},
                {},
                overlay,
            ),
            Asset("role:helpdesk-app", Kind.ROLE, "helpdesk-app", "source", "r1"),
            Asset("role:x", Kind.ROLE, "x", "source", "r2"),
            Asset("secret:helpdesk/api-key", Kind.SECRET, "helpdesk/api-key", "source", "s1"),
        ),
        (
            Edge("role:helpdesk-app", "reads", "dataset:helpdesk-docs"),
            Edge("role:helpdesk-app", "reads", "model:smol"),
            Edge("role:helpdesk-app", "reads", "secret:helpdesk/api-key"),
            Edge("role:helpdesk-app", "writes", "dataset:helpdesk-docs"),
            Edge("role:helpdesk-app", "writes", "dataset:staying"),
        ),
    )


@pytest.fixture(scope="session")
def foundations(inventory: Inventory) -> Foundations:
    return derive("helpdesk", Place("target", "any", "europe-west3", "DE"), inventory, CHOICES)[0]


@pytest.fixture(scope="session")
def module_of(foundations: Foundations) -> Callable[[str], dict[str, str]]:
    """provider -> the files of its landing module."""
    made = {provider: compose(foundations, infra_of(provider)) for provider in PROVIDERS}
    return lambda provider: dict(made[provider])
