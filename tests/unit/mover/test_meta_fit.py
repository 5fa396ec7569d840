"""Metadata on its way through a store that holds less."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossload.engines.mover.meta import TAG_PREFIX, fit
from crossload.ports.store import ObjectMeta, StoreFeatures

TAGGED, UNTAGGED = StoreFeatures(tags=True), StoreFeatures(tags=False, user_metadata_bytes_max=10**6)

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
keys = st.from_regex(r"[a-z][a-z0-9-]{0,10}", fullmatch=True).filter(lambda name: not name.startswith(TAG_PREFIX))


@given(st.dictionaries(names, names, max_size=5), st.dictionaries(keys, names, max_size=5))
def test_tags_come_home_through_a_store_without_tags(tags: dict[str, str], user: dict[str, str]) -> None:
    meta = ObjectMeta("text/plain", user=user, tags=tags)
    held, losses = fit(meta, UNTAGGED)
    assert dict(held.tags) == {}
    assert bool(losses) == bool(tags)
    lowered = {name.lower(): value for name, value in held.user.items()}  # what such stores do to names
    assert len(lowered) == len(user) + len(tags)
    assert all(name.isascii() for name in lowered)
    back, losses = fit(replace(held, user=lowered), TAGGED)
    assert (dict(back.tags), dict(back.user), losses) == (tags, user, [])


@given(st.dictionaries(keys, names, max_size=5), st.dictionaries(names, names, max_size=5))
def test_nothing_changes_between_equals(user: dict[str, str], tags: dict[str, str]) -> None:
    meta = ObjectMeta("a/b", "c", "d", "e", "f", user, tags)
    assert fit(meta, replace(TAGGED, user_metadata_bytes_max=10**6)) == (meta, [])


def test_user_metadata_that_does_not_fit_is_named() -> None:
    features = StoreFeatures(user_metadata_bytes_max=10)
    held, losses = fit(ObjectMeta("a/b", user={"key": "ü" * 4}), features)
    assert dict(held.user) == {}
    assert losses == ["user metadata of 11 bytes does not fit (10 at most)"]
    assert held.content_type == "a/b"
    assert fit(ObjectMeta(user={"key": "ü" * 3}), features)[1] == []


@pytest.mark.parametrize(
    ("wanted", "held", "offline", "chosen"),
    [
        ("", (), (), ""),
        ("infrequent", ("infrequent", "cold"), (), "infrequent"),
        ("cold", ("infrequent", "cold"), (), "cold"),
        ("cold", ("infrequent",), (), "infrequent"),
        ("cold", (), (), ""),
        ("archive", ("infrequent", "cold", "archive"), (), "archive"),
        ("archive", ("infrequent", "cold", "archive"), ("archive",), "cold"),
        ("archive", ("infrequent", "archive"), ("archive",), "infrequent"),
        ("archive", (), (), ""),
        ("automatic", ("automatic",), (), "automatic"),
        ("automatic", ("infrequent", "cold"), (), "infrequent"),
        ("nobody knows", ("cold",), (), ""),
    ],
)
def test_a_class_is_kept_or_the_next_warmer_one_is_named(
    wanted: str, held: tuple[str, ...], offline: tuple[str, ...], chosen: str
) -> None:
    """Never a colder one than asked for, never one that nobody can read, and every change is a loss in words."""
    features = StoreFeatures(storage_classes=held, classes_offline=offline)
    fitted, losses = fit(ObjectMeta("a/b", storage_class=wanted), features)
    assert fitted.storage_class == chosen
    if chosen == wanted:
        assert losses == []
    else:
        (loss,) = losses
        assert f"`{wanted}`" in loss and f"`{chosen or 'standard'}`" in loss
        assert ("could not be read back" in loss) == (wanted in held)


def test_an_expires_date_is_kept_or_named() -> None:
    meta = ObjectMeta("a/b", expires="Thu, 01 Dec 2033 16:00:00 GMT")
    assert fit(meta, StoreFeatures(expires=True)) == (meta, [])
    fitted, losses = fit(meta, StoreFeatures())
    assert (fitted.expires, losses) == ("", ["the Expires date for caches is not kept"])
