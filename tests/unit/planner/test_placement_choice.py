"""Placement: each filter can decide, the cheapest wins, and the reasons add up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from crossload.engines.planner.offers import Offer
from crossload.engines.planner.placement import choose
from crossload.estate.asset import Asset, Edge, Inventory, Kind
from crossload.estate.migration import Migration

Make = Callable[..., Migration]
GIB = 2**30


def dataset(name: str = "docs", size_bytes: int | None = 100 * GIB, **overlay: str) -> Asset:
    facts: dict[str, Any] = {"bucket": name, "size_bytes": size_bytes, "object_count": 10}
    return Asset(f"dataset:{name}", Kind.DATASET, name, "old", name, facts, {}, overlay)


def place(name: str, region: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "provider": "cheap", "region": region, **more}


def test_the_cheapest_place_wins_and_the_runner_up_has_its_price(make_migration: Make, offers: list[Offer]) -> None:
    choice = choose(make_migration(), Inventory((dataset(),)), offers)["dataset:docs"]
    assert (choice.place, choice.runner_up) == ("w", "n")
    assert choice.costs is not None
    assert choice.costs.components["storage"].value == pytest.approx(1.0)  # 100 GiB x 0.01
    assert choice.costs.components["egress"].value == pytest.approx(10.0)  # 100 GiB x 0.1, once
    assert choice.delta["storage"].value == pytest.approx(1.0)
    assert choice.delta["egress"].value == pytest.approx(0.0)
    assert "would cost 12 more" in choice.reasons[0]
    assert choice.costs.components["storage"].source == "test list"
    assert [(sieve.name, sieve.left) for sieve in choice.funnel] == [
        ("offered", 4),
        ("allowed", 3),
        ("residency", 3),
        ("features", 3),
        ("two regions", 3),
        ("price known", 3),
    ]


def test_a_tie_goes_to_the_place_listed_first(make_migration: Make, offers: list[Offer]) -> None:
    allow = [place("b", "north"), place("a", "north"), place("c", "south")]
    choice = choose(make_migration(targets={"allow": allow}), Inventory((dataset(),)), offers)["dataset:docs"]
    assert (choice.place, choice.runner_up) == ("b", "a")
    assert "a is no cheaper" in choice.reasons[0]


def test_residency_keeps_data_in(make_migration: Make, offers: list[Offer]) -> None:
    targets = {"allow": [place("w", "west"), place("n", "north"), place("s", "south")], "residency": {"pii": ["EU"]}}
    choice = choose(make_migration(targets=targets), Inventory((dataset(sensitivity="pii"),)), offers)["dataset:docs"]
    assert choice.place == "n"
    assert choice.funnel[2].lost == {"w": "US is not in EU"}


def test_an_unknown_country_fails_residency(make_migration: Make, offers: list[Offer]) -> None:
    targets = {
        "allow": [place("u", "unlisted"), place("n", "north")],
        "residency": {"pii": ["EU"]},
        "regions": {"min": 1},
    }
    choice = choose(make_migration(targets=targets), Inventory((dataset(sensitivity="pii"),)), offers)["dataset:docs"]
    assert choice.place == "n" and "country is unknown" in choice.funnel[2].lost["u"]


def test_the_files_country_beats_the_list(make_migration: Make, offers: list[Offer]) -> None:
    targets = {
        "allow": [place("w", "west", country="FR"), place("n", "north")],
        "residency": {"pii": ["FR"]},
    }
    choice = choose(make_migration(targets=targets), Inventory((dataset(sensitivity="pii"),)), offers)["dataset:docs"]
    assert choice.place == "w" and choice.funnel[2].lost == {"n": "SE is not in FR"}


def test_a_set_nobody_knows_lets_nothing_through(make_migration: Make, offers: list[Offer]) -> None:
    targets = {"allow": [place("w", "west"), place("n", "north")], "residency": {"pii": ["EUROPE"]}}
    choice = choose(make_migration(targets=targets), Inventory((dataset(sensitivity="pii"),)), offers)["dataset:docs"]
    assert choice.blocked and choice.place == "" and "residency" in choice.reasons[0]


def test_features_are_asked_by_kind(make_migration: Make, offers: list[Offer]) -> None:
    allow = [place("w", "west"), place("n", "north", services={"vectors": {"provider": "pg"}})]
    index = Asset("index:c", Kind.INDEX, "c", "old", "c", {"rows": 10, "dimension": 4})
    choices = choose(make_migration(targets={"allow": allow}), Inventory((dataset(), index)), offers)
    assert choices["dataset:docs"].place == "w"
    assert choices["index:c"].place == "n"
    assert choices["index:c"].funnel[3].lost == {"w": "offers no vectors"}


def test_forbidden_places_and_regions_fall_out_first(make_migration: Make, offers: list[Offer]) -> None:
    allow = [place("w", "west"), place("n", "north"), place("s", "south")]
    targets = {"allow": allow, "forbid": ["west", "n"], "regions": {"min": 1}}
    choice = choose(make_migration(targets=targets), Inventory((dataset(),)), offers)["dataset:docs"]
    assert choice.place == "s" and set(choice.funnel[1].lost) == {"w", "n"}


def test_tier1_gets_a_standby_in_another_region(make_migration: Make, offers: list[Offer]) -> None:
    allow = [place("w", "west"), place("w2", "west"), place("n", "north")]
    choices = choose(
        make_migration(targets={"allow": allow}), Inventory((dataset("a", uptime="tier1"), dataset("b"))), offers
    )
    assert (choices["dataset:a"].place, choices["dataset:a"].standby) == ("w", "n")
    assert choices["dataset:b"].standby == ""


def test_tier1_without_a_second_region_has_no_place(make_migration: Make, offers: list[Offer]) -> None:
    allow = [place("w", "west"), place("n", "north")]
    targets = {"allow": allow, "residency": {"pii": ["US"]}}
    asset = dataset(uptime="tier1", sensitivity="pii")
    choice = choose(make_migration(targets=targets), Inventory((asset,)), offers)["dataset:docs"]
    assert choice.blocked and choice.funnel[-2].name == "two regions"
    assert "tier1 needs 2 regions, 1 left" in choice.funnel[-2].lost["w"]


def test_an_unknown_price_loses_to_a_known_one(make_migration: Make, offers: list[Offer]) -> None:
    allow = [place("d", "dark"), place("s", "south")]
    choice = choose(make_migration(targets={"allow": allow}), Inventory((dataset(),)), offers)["dataset:docs"]
    assert (choice.place, choice.runner_up) == ("s", "d")
    assert choice.funnel[-1].lost == {"d": "unknown: storage"}
    assert not choice.delta["storage"].known, "a difference to an unknown price is unknown"


def test_without_any_known_price_the_first_place_is_taken_and_told(make_migration: Make, offers: list[Offer]) -> None:
    allow = [place("d", "dark"), place("u", "unlisted")]
    choice = choose(make_migration(targets={"allow": allow}), Inventory((dataset(),)), offers)["dataset:docs"]
    assert choice.place == "d" and not choice.blocked
    assert choice.costs is not None and not choice.costs.first_year.known
    assert "no price is known" in choice.reasons[0]
    assert choice.to_json()["costs"]["storage"]["value"] == "unknown"


def test_an_unknown_size_makes_the_cost_unknown(make_migration: Make, offers: list[Offer]) -> None:
    choice = choose(make_migration(), Inventory((dataset(size_bytes=None),)), offers)["dataset:docs"]
    assert choice.costs is not None and choice.costs.unknown == ["egress", "storage"]


def test_what_serves_together_goes_together(
    make_migration: Make, offers: list[Offer], helpdesk_inventory: Inventory
) -> None:
    """Alone the model would go west (cheap storage); its endpoint is far cheaper in the south, so both go there."""
    together = replace(
        helpdesk_inventory,
        edges=tuple(sorted((*helpdesk_inventory.edges, Edge("endpoint:chat", "built-from", "model:llm", "")))),
    )
    apart = choose(make_migration(), helpdesk_inventory, offers)
    joined = choose(make_migration(), together, offers)
    assert apart["model:llm"].place == "w"
    assert {joined[name].place for name in ("model:llm", "endpoint:chat", "agent:desk")} == {"s"}
    assert "it serves with" in joined["model:llm"].reasons[0]
    assert joined["endpoint:chat"].costs is not None and joined["endpoint:chat"].costs.machine == "small"
    assert joined["endpoint:chat"].costs.components["compute"].value == pytest.approx(0.05 * 730)


def test_an_endpoint_whose_model_has_no_known_size_has_an_unknown_price(
    make_migration: Make, offers: list[Offer]
) -> None:
    endpoint = Asset("endpoint:chat", Kind.ENDPOINT, "m", "old", "m", {"model": "m"})
    choice = choose(make_migration(), Inventory((endpoint,)), offers)["endpoint:chat"]
    assert choice.place == "n" and choice.costs is not None and choice.costs.unknown == ["compute"]


def test_a_model_no_listed_machine_holds_has_an_unknown_price(make_migration: Make, offers: list[Offer]) -> None:
    model = Asset("model:big", Kind.MODEL, "big", "old", "big", {"size_bytes": 500 * GIB, "format": "gguf"})
    endpoint = Asset("endpoint:chat", Kind.ENDPOINT, "m", "old", "m", {"model": "m"})
    choice = choose(make_migration(), Inventory((endpoint, model)), offers)["endpoint:chat"]
    assert choice.costs is not None and "no priced machine" in choice.costs.components["compute"].source


def test_unpriced_kinds_follow_what_they_are_used_with(make_migration: Make, offers: list[Offer]) -> None:
    near = Asset("secret:near", Kind.SECRET, "near", "old", "near")
    far = Asset("secret:far", Kind.SECRET, "far", "old", "far")
    heavy = dataset("heavy", 1000 * GIB)
    light = dataset("light", 1 * GIB, sensitivity="pii")
    targets = {"allow": [place("w", "west"), place("n", "north")], "residency": {"pii": ["EU"]}}
    inventory = Inventory((heavy, light, far, near), (Edge("secret:near", "reads", "dataset:light", ""),))
    choices = choose(make_migration(targets=targets), inventory, offers)
    assert choices["secret:near"].place == choices["dataset:light"].place == "n"
    assert choices["secret:far"].place == choices["dataset:heavy"].place == "w"
    assert choices["secret:near"].costs is None


@pytest.mark.parametrize("word", ["no", "stay", "False"])
def test_what_must_not_move_stays(make_migration: Make, offers: list[Offer], word: str) -> None:
    choice = choose(make_migration(), Inventory((dataset(move=word),)), offers)["dataset:docs"]
    assert choice.place == "" and not choice.blocked and "stays at old" in choice.reasons[0]


def test_losses_of_the_chosen_place_are_named(make_migration: Make, offers: list[Offer]) -> None:
    versioned = replace(dataset(), facts={"size_bytes": 1, "older_versions": 3})
    choice = choose(make_migration(), Inventory((versioned,)), offers)["dataset:docs"]
    assert choice.losses == ("3 older versions stay at the source",)


def test_shipped_prices_choose_between_two_real_regions(make_migration: Make) -> None:
    """No price list of the test's own: what a user gets."""
    targets = {
        "allow": [
            {"id": "fra", "provider": "gcp", "region": "europe-west3"},
            {"id": "ams", "provider": "gcp", "region": "europe-west4"},
        ]
    }
    sources = [{"id": "old", "provider": "aws", "region": "eu-central-1"}]
    choice = choose(make_migration(targets=targets, sources=sources), Inventory((dataset(),)))["dataset:docs"]
    assert (choice.place, choice.runner_up) == ("ams", "fra")
    assert choice.delta["storage"].value == pytest.approx(0.3)


def test_a_thousand_assets_take_less_than_a_second(make_migration: Make, offers: list[Offer]) -> None:
    import time

    many = tuple(dataset(f"d{i:04}", i * GIB) for i in range(1000))
    started = time.process_time()
    assert len(choose(make_migration(), Inventory(many), offers)) == 1000
    assert time.process_time() - started < 1.0
