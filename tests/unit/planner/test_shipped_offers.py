"""The price lists shipped with this version: every region has a country, every price a source and a date."""

from __future__ import annotations

import re
import tomllib
from importlib.resources import files

import pytest

from crossload.engines.planner.offers import countries, parse_facts, shipped
from crossload.estate.countries import SETS

PROVIDERS = ("aws", "azure", "gcp", "local")
ISO_DATE = re.compile(r"^\d{4}-\d{2}(-\d{2})?$")


def text_of(provider: str) -> str:
    return files("crossload").joinpath("providers", provider, "facts.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_region_has_a_country(provider: str) -> None:
    regions = tomllib.loads(text_of(provider))["region"]
    assert regions
    for region in regions:
        if provider != "local":  # only its owner knows where a machine stands
            assert re.fullmatch(r"[A-Z]{2}", region["country"]), region
        assert region["title"]
    assert len({region["id"] for region in regions}) == len(regions)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_price_names_its_source_and_date(provider: str) -> None:
    table = tomllib.loads(text_of(provider))
    for item in [*table.get("price", []), *table.get("machine", [])]:
        assert len(item["source"]) > 10
        assert ISO_DATE.match(item["as_of"]), item["as_of"]
        assert item["usd"]
    for price in table.get("price", []):
        assert price["item"] in ("storage", "disk", "egress") and price["per"] in ("GiB", "GB")


def test_prices_are_plausible() -> None:
    for offer in shipped():
        if offer.storage.value is not None:
            assert 0.005 < offer.storage.value * 2**30 < 0.1, offer
        if offer.egress.value is not None:
            assert 0.01 < offer.egress.value * 10**9 < 0.3, offer
        for machine in offer.machines:
            assert machine.usd_per_hour.value is not None and machine.usd_per_hour.value > 0.01
            assert machine.memory_gib >= 1 and machine.vcpus >= 1


def test_a_price_nobody_wrote_down_is_unknown_and_not_zero() -> None:
    silent = [offer for offer in shipped() if offer.provider == "azure"]
    assert silent and all(offer.storage.value is None for offer in silent)
    assert str(silent[0].storage) == "unknown"


def test_a_local_folder_has_no_price_at_all() -> None:
    (local,) = [offer for offer in shipped() if offer.provider == "local"]
    assert not local.storage.known and not local.egress.known and local.machines == ()
    assert local.country == ""


def test_two_regions_can_be_compared_where_the_example_goes() -> None:
    found = {offer.region: offer for offer in shipped() if offer.provider == "gcp"}
    assert found["europe-west4"].storage.value < found["europe-west3"].storage.value  # type: ignore[operator]
    assert found["europe-west3"].country == "DE" and found["europe-west4"].country == "NL"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[[price]]\nitem="storage"\nper="GiB"\nsource="s"\nas_of="2026"\nusd={x=0.1}', "not in the table"),
        (
            '[[region]]\nid="x"\n[[price]]\nitem="storage"\nper="GiB"\nsource="s"\nas_of="2026"\nusd={x=0}',
            "leave a price out",
        ),
    ],
)
def test_a_wrong_list_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_facts("p", text)


def test_country_sets() -> None:
    assert len(SETS["EU"]) == 27 and SETS["EEA"] - SETS["EU"] == {"IS", "LI", "NO"}
    assert countries(["EU", "CH"]) == SETS["EU"] | {"CH"}
    assert countries(["EEA"]) == SETS["EEA"] and "GB" not in countries(["EEA"])
    with pytest.raises(KeyError):
        countries(["EUROPE"])
