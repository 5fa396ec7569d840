"""S3-compatible vendors are data: each file is sound, hosts are recognised, unknown is cautious, the docs agree."""

from __future__ import annotations

import re
from datetime import date
from importlib.resources import files
from pathlib import Path

import pytest

from crossload.ports.errors import Invalid
from crossload.ports.store import StoreFeatures
from crossload.providers.aws.vendors import (
    Quirks,
    Vendor,
    endpoint_url,
    features,
    quirks_of,
    read_vendor,
    vendor_named,
    vendor_of,
    vendors,
)

REPOSITORY = Path(__file__).parents[3]
PAGE = (REPOSITORY / "docs" / "vendors.md").read_text(encoding="utf-8")
ALL = sorted(vendors())
WANTED = {
    "aws", "r2", "b2", "wasabi", "minio", "seaweedfs", "ceph", "oci", "nebius", "coreweave", "lambda", "hetzner",
    "digitalocean", "scaleway", "ovh", "idrive", "tigris", "gcs-interop",
}  # fmt: skip
GOOD = """
title = "A store"
docs = "https://example.com/docs"
checked = "2026-11-24"
source = ["https://example.com/docs"]
endpoint = "https://s3.{region}.example.com"
recognise = { hosts = ["example.com"], server = "Example" }
[quirks]
tags = false
parts_max = 100
digests_verified = ["crc64nvme", "md5"]
"""


# -- the files -------------------------------------------------------------------------------------------------------


def test_the_vendors_that_people_ask_for_are_there() -> None:
    assert set(ALL) >= WANTED


@pytest.mark.parametrize("name", ALL)
def test_a_file_has_what_it_needs(name: str) -> None:
    vendor = vendors()[name]
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]*", name) and vendor.name == name
    assert vendor.title and vendor.docs.startswith("https://") and vendor.source
    assert date(2026, 1, 1) <= vendor.checked
    assert vendor.hosts or vendor.server, "nothing tells who answers"
    assert not vendor.endpoint or vendor.endpoint.startswith("https://")
    assert ("{region}" not in vendor.endpoint) or vendor.regions or name == "b2", "a region, and none is named"
    quirks = vendor.quirks
    assert quirks.part_size_bytes_min <= quirks.part_size_bytes_max
    assert quirks.user_metadata_bytes_max >= 2048 and quirks.parts_max >= 1000


@pytest.mark.parametrize("name", ALL)
def test_a_file_is_short_and_holds_no_tab(name: str) -> None:
    text = (files("crossload.providers") / "s3" / f"{name}.toml").read_text(encoding="utf-8")
    lines = text.splitlines()
    assert 5 <= len(lines) <= 50
    assert all(len(line) <= 160 and "\t" not in line for line in lines)


@pytest.mark.parametrize("name", ALL)
def test_the_own_endpoint_is_recognised(name: str) -> None:
    vendor = vendors()[name]
    if not vendor.endpoint:
        pytest.skip("every installation has its own")
    url = endpoint_url(vendor, region=(vendor.regions or ("region-1",))[0], account="team")
    assert vendor_of(url) is vendor
    assert vendor_of(url.replace("https://", "https://bucket."), "MinIO") is vendor, "the host beats the header"


def test_no_two_vendors_share_a_host() -> None:
    hosts = [host for vendor in vendors().values() for host in vendor.hosts]
    assert len(hosts) == len(set(hosts))
    for host in hosts:
        assert host == host.lower().strip(".") and "." in host


def test_the_files_land_in_the_wheel() -> None:
    wheel = pytest.importorskip("hatchling.builders.wheel")
    builder = wheel.WheelBuilder(str(REPOSITORY))
    packed = {item.distribution_path for item in builder.recurse_included_files()}
    assert {f"crossload/providers/s3/{name}.toml" for name in ALL} <= packed


# -- strictness ------------------------------------------------------------------------------------------------------


def test_a_good_file_is_read() -> None:
    vendor = read_vendor("store.toml", GOOD)
    assert (vendor.name, vendor.hosts, vendor.server) == ("store", ("example.com",), "Example")
    assert vendor.known == {"tags", "parts_max", "digests_verified"}
    assert (vendor.quirks.tags, vendor.quirks.parts_max, vendor.quirks.versions) == (False, 100, True)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("tags = false", "tagz = false", r"store\.toml: unknown key `quirks\.tagz`"),
        ("title =", "titel =", r"store\.toml: unknown key `titel`"),
        ('server = "Example"', 'header = "x"', r"unknown key `recognise\.header`"),
        ('checked = "2026-11-24"', "", "`checked` is missing"),
        ('source = ["https://example.com/docs"]', "source = []", "`source` is missing"),
        ("2026-11-24", "24 November", "`checked` is not a day"),
        ("tags = false", "tags = 0", r"`quirks\.tags` must be true or false"),
        ("parts_max = 100", "parts_max = true", r"`quirks\.parts_max` must be a number"),
        ("parts_max = 100", "parts_max = 0", "must be a number above 0"),
        ("parts_max = 100", 'parts_max = "100"', "must be a number"),
        ('"md5"', '"md6"', "names no digest: md6"),
        ('["crc64nvme", "md5"]', '"md5"', "must be a list of texts"),
        ("{region}", "{zone}", "has {zone}"),
        ("endpoint =", 'addressing = "dns"\nendpoint =', "`addressing` must be path or virtual"),
        ("[quirks]", "[quirks", "is not TOML"),
        ('title = "A store"', "title = 1", "`title` must be text"),
    ],
)
def test_a_bad_file_is_told_with_its_key(before: str, after: str, said: str) -> None:
    assert before in GOOD
    with pytest.raises(Invalid, match=said):
        read_vendor("store.toml", GOOD.replace(before, after, 1))


def test_a_misspelt_key_gets_the_one_that_was_meant() -> None:
    with pytest.raises(Invalid) as caught:
        read_vendor("store.toml", GOOD.replace("tags =", "tagss ="))
    assert caught.value.hint == "did you mean `tags`?"


# -- asking ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "server", "name"),
    [
        ("https://0123.r2.cloudflarestorage.com", "", "r2"),
        ("https://0123.eu.r2.cloudflarestorage.com/", "cloudflare", "r2"),
        ("https://S3.EU-CENTRAL-1.amazonaws.com:443/x", "", "aws"),
        ("https://s3.cn-north-1.amazonaws.com.cn", "", "aws"),
        ("s3.eu-central-2.wasabisys.com", "", "wasabi"),
        ("https://ns.compat.objectstorage.eu-frankfurt-1.oraclecloud.com", "", "oci"),
        ("https://storage.googleapis.com", "", "gcs-interop"),
        ("http://127.0.0.1:8333", "SeaweedFS 30GB 4.48", "seaweedfs"),
        ("http://10.0.0.1:9000", "minio", "minio"),
        ("https://s3.example.com", "Ceph Object Gateway (tentacle)", "ceph"),
    ],
)
def test_who_answers(endpoint: str, server: str, name: str) -> None:
    found = vendor_of(endpoint, server)
    assert found is not None and found.name == name


@pytest.mark.parametrize(
    ("endpoint", "server"),
    [
        ("https://amazonaws.com.example.org", ""),  # a suffix of letters is no suffix of a host
        ("https://notamazonaws.com", ""),
        ("http://127.0.0.1:8333", ""),
        ("http://127.0.0.1:8333", "AmazonS3"),  # anybody may say that, and many do
        ("http://[broken", ""),
        ("", ""),
    ],
)
def test_nobody_is_taken_for_somebody_else(endpoint: str, server: str) -> None:
    assert vendor_of(endpoint, server) is None


def test_a_misspelt_vendor_gets_the_one_that_was_meant() -> None:
    assert vendor_named("r2").title == "Cloudflare R2"
    with pytest.raises(Invalid) as caught:
        vendor_named("wassabi")
    assert caught.value.hint == "did you mean `wasabi`?"
    with pytest.raises(Invalid) as caught:
        vendor_named("zzz")
    assert "seaweedfs" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "region", "account", "url"),
    [
        ("aws", "eu-central-1", "", "https://s3.eu-central-1.amazonaws.com"),
        ("r2", "", "0123abcd", "https://0123abcd.r2.cloudflarestorage.com"),
        ("oci", "eu-frankfurt-1", "ns", "https://ns.compat.objectstorage.eu-frankfurt-1.oraclecloud.com"),
        ("tigris", "", "", "https://t3.storage.dev"),
    ],
)
def test_endpoints_are_filled_in(name: str, region: str, account: str, url: str) -> None:
    assert endpoint_url(vendor_named(name), region, account) == url


@pytest.mark.parametrize(
    ("name", "region", "account", "said"),
    [
        ("r2", "auto", "", "the account of Cloudflare R2's endpoint"),
        ("aws", "", "", "it is missing"),
        ("aws", "x.example.com/", "", "cannot be part of a host name"),  # keys would go to a stranger
        ("aws", "x@example.com#", "", "cannot be part of a host name"),
        ("minio", "us-east-1", "", "has no endpoint of its own"),
    ],
)
def test_an_endpoint_that_cannot_be_is_refused(name: str, region: str, account: str, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        endpoint_url(vendor_named(name), region, account)


# -- what it means ---------------------------------------------------------------------------------------------------


def test_unknown_is_cautious() -> None:
    nobody = features(None)
    assert not nobody.digests_returned and not nobody.digests_verified
    assert not nobody.conditional_create and not nobody.conditional_read
    assert nobody.versions and nobody.tags, "asked for, since not asking loses them in silence"
    quirks = quirks_of(None)
    assert quirks == Quirks()
    assert quirks.parts_equal and not quirks.tells_tag_count and not quirks.list_sorted and not quirks.trailers
    assert quirks.parts_max == min(vendor.quirks.parts_max for vendor in vendors().values())
    assert quirks.part_size_bytes_max <= min(vendor.quirks.part_size_bytes_max for vendor in vendors().values())


def test_features_speak_of_what_is_sent() -> None:
    """A digest that our store does not send proves nothing, whoever could check it."""
    assert features(vendor_named("aws")).digests_verified == {"crc64nvme"}
    assert features(vendor_named("minio")).digests_verified == frozenset()
    assert features(vendor_named("minio"), frozenset({"sha256"})).digests_verified == {"sha256"}
    assert not features(vendor_named("r2")).tags
    assert features(vendor_named("scaleway")).parts_max == 1000
    assert not features(vendor_named("scaleway")).conditional_create, "only one of both ways to write is known"
    assert isinstance(features(vendor_named("oci")), StoreFeatures)


def test_seaweedfs_is_as_the_store_of_the_lab_was_measured() -> None:
    from crossload.providers.aws.store import UNRECOGNISED

    told = features(vendor_named("seaweedfs"))
    assert told.digests_verified == UNRECOGNISED.digests_verified
    assert told.tags and told.versions and told.conditional_create and told.conditional_read


# -- docs ------------------------------------------------------------------------------------------------------------


def _said(vendor: Vendor, quirk: str) -> str:
    if quirk not in vendor.known:
        return "?"
    value = getattr(vendor.quirks, quirk)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(sorted(value)) if isinstance(value, frozenset) else f"{value:,}"


def row(vendor: Vendor) -> str:
    """One line of the table in docs/vendors.md."""
    whole = [_said(vendor, quirk) for quirk in ("write_if_absent", "complete_if_absent")]
    cells = [
        f"[`{vendor.name}`]({vendor.docs})", vendor.title, vendor.addressing, _said(vendor, "digests_verified"),
        _said(vendor, "digests_returned"), " / ".join(whole), _said(vendor, "read_if_match"), _said(vendor, "versions"),
        _said(vendor, "tags"), _said(vendor, "list_sorted"), _said(vendor, "bucket_policy"), _said(vendor, "parts_max"),
        f"{vendor.checked}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def test_the_docs_have_the_table() -> None:
    rows = [row(vendor) for vendor in vendors().values()]
    told = [line for line in PAGE.splitlines() if line.startswith("| [`")]
    if told != rows:
        pytest.fail("the table of docs/vendors.md must be:\n" + "\n".join(rows), pytrace=False)


def test_the_docs_tell_every_note() -> None:
    missing = [note for vendor in vendors().values() for note in vendor.notes if note not in PAGE]
    assert missing == []


def test_the_docs_explain_every_quirk() -> None:
    missing = [name for name in Quirks.__slots__ if f"`{name}`" not in PAGE]
    assert missing == []
