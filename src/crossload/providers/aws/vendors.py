"""Vendors that speak S3, as data: `providers/s3/<vendor>.toml` says where one is found and how it differs.

A fact that a file does not state is unknown, and means the cautious choice: no digest is trusted, no condition relied
on, parts stay equal and few. Nothing here does I/O beyond reading those files, and nothing loads an SDK."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from importlib.resources import files
from typing import Any, cast
from urllib.parse import urlsplit

from crossload.ports.errors import Invalid
from crossload.ports.store import StoreFeatures

ALGORITHMS = frozenset({"crc32", "crc32c", "crc64nvme", "md5", "sha1", "sha256"})
ADDRESSING = ("path", "virtual")
# What the store of this provider sends and reads back: a digest that nobody sends is not checked by anybody.
SPOKEN = frozenset({"crc64nvme"})

# The port's words for storage classes, and what is written for each.
CLASS_NAMES = {
    "infrequent": "STANDARD_IA", "cold": "GLACIER_IR", "archive": "GLACIER", "automatic": "INTELLIGENT_TIERING",
}  # fmt: skip
# What is read: all that is not here is standard.
CLASS_WORDS = {name: word for word, name in CLASS_NAMES.items()} | {
    "ONEZONE_IA": "infrequent",
    "DEEP_ARCHIVE": "archive",
}

_TEXTS = ("title", "docs", "endpoint", "addressing", "checked")
_LISTS = ("regions", "source", "notes")
_REQUIRED = ("title", "docs", "checked", "source")
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Quirks:
    """How a server behaves. Each default is the cautious choice; `Vendor.known` tells which were stated.

    Digests: `digests_verified` are checked on write, `digests_returned` computed by the server and told on HEAD also
    for uploads in parts; `etag_is_md5` holds for every whole-object PUT; `trailers` is a digest behind an
    `aws-chunked` body; `unsigned_payload_http` is UNSIGNED-PAYLOAD without TLS.
    Conditions: `..._if_absent` is If-None-Match: *, `..._if_match` an ETag; `etag_conditions_bare` wants that ETag
    without quotes. `tells_tag_count`: no `x-amz-tagging-count` on GET and HEAD means no tags (for who may read tags).
    Lists: `list_v2` is list-type=2; `list_sorted` is the order of UTF-8 bytes. `bucket_policy` can deny writes (the
    freeze). `versions` and `tags` default to True: asking in vain is an error, not asking loses them in silence.
    Keys: `hierarchical` keeps folders inside, so that `a//b` or `a/` is not kept as it is; `letters_refused` are
    refused or changed. Sizes are bytes; `write_size_bytes_max` is one PUT; `parts_equal`: all but the last must have
    one size."""

    digests_verified: frozenset[str] = frozenset()
    digests_returned: frozenset[str] = frozenset()
    etag_is_md5: bool = False
    trailers: bool = False
    unsigned_payload_http: bool = False
    write_if_absent: bool = False
    write_if_match: bool = False
    complete_if_absent: bool = False
    complete_if_match: bool = False
    delete_if_match: bool = False
    read_if_match: bool = False
    etag_conditions_bare: bool = False
    versions: bool = True
    tags: bool = True
    tells_tag_count: bool = False
    list_v2: bool = False
    list_sorted: bool = False
    bucket_policy: bool = False
    parts_equal: bool = True
    parts_max: int = 1_000
    part_size_bytes_min: int = 5 * 2**20
    part_size_bytes_max: int = 5 * 10**9
    write_size_bytes_max: int = 5 * 10**9
    user_metadata_bytes_max: int = 2048
    storage_classes: tuple[str, ...] = ()
    hierarchical: bool = False
    letters_refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Vendor:
    """One file. `endpoint` is a template with {region} and {account}, "" when every installation has its own;
    `regions` those that were known at `checked`; `hosts` suffixes of its host names; `server` how its `Server` header
    begins; `known` the quirks that the file states."""

    name: str
    title: str
    docs: str
    checked: date
    source: tuple[str, ...]
    endpoint: str = ""
    regions: tuple[str, ...] = ()
    addressing: str = "path"
    hosts: tuple[str, ...] = ()
    server: str = ""
    notes: tuple[str, ...] = ()
    quirks: Quirks = field(default_factory=Quirks)
    known: frozenset[str] = frozenset()


@functools.cache
def vendors() -> Mapping[str, Vendor]:
    """All vendors by name, sorted. Raises Invalid naming file and key when a file is not right."""
    folder = files("crossload.providers") / "s3"
    found = {
        item.name.removesuffix(".toml"): read_vendor(item.name, item.read_text(encoding="utf-8"))
        for item in folder.iterdir()
        if item.name.endswith(".toml")
    }
    return dict(sorted(found.items()))


def vendor_named(name: str) -> Vendor:
    """Raises Invalid with the name that was probably meant, or all of them."""
    known = vendors()
    if name not in known:
        raise Invalid(f"no S3-compatible vendor is called `{name}`", hint=_nearest(name, known, "there are: "))
    return known[name]


def vendor_of(endpoint: str, server_header: str = "") -> Vendor | None:
    """Who answers at an endpoint: by its host's longest known suffix, else by what the `Server` header begins with.
    None when nobody is recognised, which means the cautious choice."""
    try:
        host = urlsplit(endpoint if "//" in endpoint else f"//{endpoint}").hostname or ""
    except ValueError:
        host = ""  # no URL at all: whoever opens it says so
    by_host = [
        (len(suffix), vendor)
        for vendor in vendors().values()
        for suffix in vendor.hosts
        if host == suffix or host.endswith(f".{suffix}")
    ]
    if by_host:
        return max(by_host, key=lambda item: item[0])[1]
    header = server_header.lower()
    return next((v for v in vendors().values() if v.server and header.startswith(v.server.lower())), None)


def quirks_of(vendor: Vendor | None) -> Quirks:
    """A vendor's quirks; of an unknown one the cautious choices."""
    return vendor.quirks if vendor is not None else Quirks()


def features(vendor: Vendor | None, spoken: frozenset[str] = SPOKEN) -> StoreFeatures:
    """What the Store port may promise there. `spoken` are the digests that the caller sends and asks for."""
    quirks = quirks_of(vendor)
    classes = tuple(word for word, name in CLASS_NAMES.items() if name in quirks.storage_classes)
    return StoreFeatures(
        digests_returned=quirks.digests_returned & spoken,
        digests_verified=quirks.digests_verified & spoken,
        conditional_create=quirks.write_if_absent and quirks.complete_if_absent,
        conditional_read=quirks.read_if_match,
        versions=quirks.versions,
        tags=quirks.tags,
        sorted_list=quirks.list_sorted,
        part_size_bytes_min=quirks.part_size_bytes_min,
        parts_max=quirks.parts_max,
        user_metadata_bytes_max=quirks.user_metadata_bytes_max,
        storage_classes=classes,
        classes_offline=("archive",) if "archive" in classes else (),
        expires=True,
        hierarchical=quirks.hierarchical,
        letters_refused="".join(quirks.letters_refused),
    )


def endpoint_url(vendor: Vendor, region: str = "", account: str = "") -> str:
    """The vendor's endpoint. Raises Invalid when it has none of its own, or when a part is missing or no host label."""
    if not vendor.endpoint:
        raise Invalid(
            f"{vendor.title} has no endpoint of its own",
            hint="name the one of your installation or account: `endpoint: https://..`",
        )
    given = {"region": region, "account": account}
    for name in _PLACEHOLDER.findall(vendor.endpoint):
        if not _LABEL.fullmatch(given[name]):
            shown = f"`{given[name]}` cannot be part of a host name" if given[name] else "it is missing"
            hint = f"known regions: {', '.join(vendor.regions)}" if name == "region" and vendor.regions else ""
            raise Invalid(f"the {name} of {vendor.title}'s endpoint {vendor.endpoint}: {shown}", hint=hint)
    return vendor.endpoint.format(**given)


# -- reading ---------------------------------------------------------------------------------------------------------


def read_vendor(file: str, text: str) -> Vendor:
    """One file, strictly: an unknown key, a missing one or a value of another kind raises Invalid naming both."""
    try:
        told: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Invalid(f"{file} is not TOML: {error}") from error
    _only(file, "", told, (*_TEXTS, *_LISTS, "recognise", "quirks"))
    for key in _REQUIRED:
        if not told.get(key):
            raise Invalid(f"{file}: `{key}` is missing")
    recognise = _table(file, "recognise", told.pop("recognise", {}))
    _only(file, "recognise.", recognise, ("hosts", "server"))
    quirks = _table(file, "quirks", told.pop("quirks", {}))
    values: dict[str, Any] = {key: _text(file, key, told[key]) for key in _TEXTS if key in told}
    values |= {key: _texts(file, key, told[key]) for key in _LISTS if key in told}
    if values.get("addressing", "path") not in ADDRESSING:
        raise Invalid(f"{file}: `addressing` must be {' or '.join(ADDRESSING)}")
    unknown = set(_PLACEHOLDER.findall(values.get("endpoint", ""))) - {"region", "account"}
    if unknown:
        raise Invalid(f"{file}: `endpoint` has {{{min(unknown)}}}; only {{region}} and {{account}} are filled in")
    try:
        values["checked"] = date.fromisoformat(values["checked"])
    except ValueError as error:
        raise Invalid(f"{file}: `checked` is not a day: {error}", hint="YYYY-MM-DD") from error
    return Vendor(
        name=file.removesuffix(".toml"),
        hosts=tuple(host.lower() for host in _texts(file, "recognise.hosts", recognise.get("hosts", []))),
        server=_text(file, "recognise.server", recognise.get("server", "")),
        quirks=_quirks(file, quirks),
        known=frozenset(quirks),
        **values,
    )


def _quirks(file: str, told: Mapping[str, Any]) -> Quirks:
    defaults = {item.name: getattr(Quirks(), item.name) for item in dataclasses.fields(Quirks)}
    _only(file, "quirks.", told, defaults)
    values: dict[str, Any] = {}
    for key, value in told.items():
        where, default = f"quirks.{key}", defaults[key]
        if isinstance(default, frozenset):
            values[key] = frozenset(_texts(file, where, value))
            strange = values[key] - ALGORITHMS
            if strange:
                raise Invalid(f"{file}: `{where}` names no digest: {min(strange)}", hint=", ".join(sorted(ALGORITHMS)))
        elif isinstance(default, tuple):
            values[key] = _texts(file, where, value)
        elif type(value) is not type(default) or (not isinstance(value, bool) and value < 1):
            kind = "true or false" if isinstance(default, bool) else "a number above 0"
            raise Invalid(f"{file}: `{where}` must be {kind}")
        else:
            values[key] = value
    return Quirks(**values)


def _only(file: str, at: str, told: Iterable[str], known: Iterable[str]) -> None:
    names = sorted(known)
    for key in told:
        if key not in names:
            raise Invalid(f"{file}: unknown key `{at}{key}`", hint=_nearest(key, names, "known keys here: "))


def _nearest(word: str, known: Iterable[str], otherwise: str) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1)
    return f"did you mean `{near[0]}`?" if near else f"{otherwise}{', '.join(names)}"


def _table(file: str, key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Invalid(f"{file}: `{key}` must be a table")
    return cast("dict[str, Any]", value)


def _text(file: str, key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise Invalid(f"{file}: `{key}` must be text")
    return value


def _texts(file: str, key: str, value: Any) -> tuple[str, ...]:
    items = cast("list[Any]", value) if isinstance(value, list) else [None]
    texts = tuple(item for item in items if isinstance(item, str) and item)
    if len(texts) != len(items):
        raise Invalid(f"{file}: `{key}` must be a list of texts")
    return texts
