"""The Account port over boto3: the table of kinds, run in parallel, turned into neutral assets, edges and reports."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import jmespath
from botocore.exceptions import BotoCoreError, ClientError

from crossload.estate.asset import Asset, Edge, Kind, KindReport
from crossload.estate.digest import canonical_json
from crossload.ports.account import FOUND, UNSUPPORTED, Contents, Discovery, bucket_assets, distinct
from crossload.ports.errors import AccessDenied
from crossload.ports.provider import Settings
from crossload.providers.aws.errors import translated
from crossload.providers.aws.inventory import (
    BUCKETS,
    ROWS,
    Raw,
    Row,
    Trouble,
    add_details,
    list_resources,
    status_of,
    tags_of,
    words,
)
from crossload.providers.aws.references import References, many, statements
from crossload.providers.aws.session import client

_THREADS = 8
_COUNTS = ("rows", "depth", "in_flight", "object_count", "size_bytes", "older_versions", "delete_markers")
_VERSIONED = ("Enabled", "Suspended")


def open_account(settings: Settings) -> AwsAccount:
    return AwsAccount(settings)


@dataclass(slots=True)
class _Found:
    """One resource on its way to becoming assets. `contents` is a bucket's tally, None when it was refused."""

    row: Row
    raw: Raw
    contents: Contents | None = None
    troubles: list[Trouble] = field(default_factory=list)
    assets: list[Asset] = field(default_factory=list)


class AwsAccount:
    def __init__(self, settings: Settings) -> None:
        self.place = settings.place.id
        self._settings = settings

    def permissions(self) -> list[str]:
        actions = {action for row in (BUCKETS, *ROWS) for action in row.actions}
        return sorted(actions | {"sts:GetCallerIdentity"})

    def discover(self) -> Discovery:
        caller = self._caller()
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="discover") as pool:
            listed = list(pool.map(self._list, (BUCKETS, *ROWS)))
            found = [item for items, _ in listed for item in items]
            list(pool.map(self._complete, found))
        failures = [trouble for _, trouble in listed]
        for item in found:
            # The role we ourselves look with is no part of the workload; drafts say so.
            item.raw["ours"] = item.row.kind == Kind.ROLE and item.raw.get("RoleName") == caller
        return self._assemble(found, list(zip((BUCKETS, *ROWS), failures, strict=True)))

    def _caller(self) -> str:
        """Name of the user or role we act as. Raises NotSignedIn or Unavailable; "" when we may not even ask that."""
        try:
            with translated():
                arn = str(self._client("sts").get_caller_identity()["Arn"])
        except AccessDenied:
            return ""  # known, but not allowed to ask its own name: the kinds will say what else it may not
        resource = arn.split(":", 5)[-1].split("/")  # user/path/NAME, assumed-role/NAME/session
        return resource[1] if resource[0] == "assumed-role" and len(resource) > 1 else resource[-1]

    def _client(self, service: str) -> Any:
        return client(self._settings, service)

    def _list(self, row: Row) -> tuple[list[_Found], Trouble | None]:
        try:
            if self._elsewhere(row.service):
                text = f"this place has endpoints of its own and names none for {row.service}"
                return [], Trouble(row.operation, UNSUPPORTED, text)
            return [_Found(row, raw) for raw in list_resources(row, self._client)], None
        except (ClientError, BotoCoreError) as error:
            return [], Trouble(row.operation, status_of(error), words(error))

    def _elsewhere(self, service: str) -> bool:
        """True when the profile points at a private cloud that does not have this service: asking the public one with
        the private one's keys would tell a stranger about us, and answer nothing."""
        return not _is_public(self._client("sts")) and _is_public(self._client(service))

    def _complete(self, found: _Found) -> None:
        # Only the public cloud means its oldest region when it answers no region at all.
        found.raw["public"] = _is_public(self._client(found.row.service))
        found.troubles += add_details(found.row, found.raw, self._client)
        keep = found.row.keep
        if keep and not jmespath.search(keep, found.raw):
            found.raw["ignored"] = True
        elif found.row is BUCKETS:
            self._count(found)

    def _count(self, found: _Found) -> None:
        """Tally a bucket's objects by listing it; bounded memory, one pass, versions included when there are any."""
        name = found.raw["Name"]
        if found.raw.get("versioning") in _VERSIONED and self._count_versions(found, name):
            return
        contents = Contents()
        try:
            for page in self._client("s3").get_paginator("list_objects_v2").paginate(Bucket=name):
                for item in page.get("Contents", ()):
                    contents.add(item["Key"], item["Size"])
        except (ClientError, BotoCoreError) as error:
            found.troubles.append(Trouble("ListObjectsV2", status_of(error), words(error)))
            return  # a half listing is not a count
        found.contents = contents

    def _count_versions(self, found: _Found, name: str) -> bool:
        contents, noncurrent, markers = Contents(), 0, 0
        try:
            for page in self._client("s3").get_paginator("list_object_versions").paginate(Bucket=name):
                for item in page.get("Versions", ()):
                    if item["IsLatest"]:
                        contents.add(item["Key"], item["Size"])
                    else:
                        noncurrent += 1
                markers += len(page.get("DeleteMarkers", ()))
        except (ClientError, BotoCoreError) as error:
            found.troubles.append(Trouble("ListObjectVersions", status_of(error), words(error)))
            return False
        found.contents = contents
        found.raw |= {"older_versions": noncurrent, "delete_markers": markers}
        return True

    def _assemble(self, found: list[_Found], listed: list[tuple[Row, Trouble | None]]) -> Discovery:
        for item in found:
            if not item.raw.get("ignored"):
                item.assets = list(_assets(self.place, item))
        named = _rename(found)
        offered = [asset for item in found if item.row.offers for asset in item.assets]
        index = References([*named, *offered])
        edges = {edge for item in found if not item.row.offers for edge in _edges(item, index)}
        offered_ids = {asset.id for asset in offered}
        # "May call any model" names none: a wildcard grant must not turn the provider's whole catalog into the team's.
        used_ids = {edge.target for edge in edges if not edge.evidence.endswith("*")} & offered_ids
        edges = {edge for edge in edges if edge.target not in offered_ids or edge.target in used_ids}
        used = [asset for asset in offered if asset.id in used_ids]
        assets = sorted([*named, *used], key=lambda asset: asset.id)
        return Discovery(
            self.place,
            tuple(assets),
            tuple(sorted(_first_evidence(edges))),
            tuple(_reports(self.place, found, listed, {asset.id for asset in used})),
            tuple(sorted((asset for asset in offered if asset.id not in used_ids), key=lambda asset: asset.id)),
        )


def _is_public(sdk_client: Any) -> bool:
    host = urlsplit(sdk_client.meta.endpoint_url).hostname or ""
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws"))


def _assets(place: str, found: _Found) -> Iterator[Asset]:
    row, raw = found.row, found.raw
    native = str(jmespath.search(row.id, raw) or "")
    name = _name(str(jmespath.search(row.name, raw) or native))
    if native.startswith(("http://", "https://")):
        native = urlsplit(native).path  # without host and port: they differ between sessions
    facts = _facts(row, raw)
    tags = tags_of(raw.get(row.tags)) if row.tags else {}
    if row is BUCKETS:
        for count in ("older_versions", "delete_markers"):
            if raw.get("versioning") in _VERSIONED:
                facts[count] = raw.get(count)
        yield from bucket_assets(place, name, native, found.contents, facts, tags)
    elif row.kind in set(Kind):
        if row.kind == Kind.QUEUE:
            facts["url_path"] = urlsplit(raw["value"]).path
        yield Asset(f"{row.kind}:{name}", Kind(row.kind), name, place, native, facts, tags)


def _name(text: str) -> str:
    """A queue's URL ends in its name; a key's alias begins with `alias/`."""
    return text.rsplit("/", 1)[-1] if text.startswith(("http://", "https://")) else text.removeprefix("alias/")


def _facts(row: Row, raw: Raw) -> dict[str, Any]:
    if row.kind == Kind.ROLE:
        raw["grants"] = _grants(raw)
    facts: dict[str, Any] = {}
    for name, path in row.facts.items():
        value = jmespath.search(path, raw)
        if isinstance(value, list):
            value = sorted((item for item in value if item is not None), key=canonical_json)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if value in (None, "", []) and name not in _COUNTS:
            continue  # a count stays, as None: unknown must be seen
        facts[name] = value
    return facts


def _documents(raw: Raw) -> list[tuple[str, dict[str, Any]]]:
    """(policy name, document) of a role, attached and inline."""
    inline = zip(many(raw.get("inline_names")), many(raw.get("inline")), strict=False)
    attached = [item.get("PolicyName", "") for item in many(raw.get("attached"))]
    managed = zip(attached, many(raw.get("managed")), strict=False)
    return [(str(name), document) for name, document in (*inline, *managed) if isinstance(document, dict)]


def _grants(raw: Raw) -> list[str]:
    """`Allow action on resource`, one line per pair: what a reviewer asks first of a role."""
    lines: set[str] = set()
    for _, document in _documents(raw):
        for statement in statements(document):
            for action in many(statement.get("Action")):
                for resource in many(statement.get("Resource")):
                    lines.add(f"{statement.get('Effect')} {action} on {resource}")
    return sorted(lines)


def _rename(found: list[_Found]) -> list[Asset]:
    """Give assets that share an id their longer names, in place, and return them all but the catalog."""
    mine = [item for item in found if not item.row.offers]
    renamed = {(asset.kind, asset.native): asset for asset in distinct(a for item in mine for a in item.assets)}
    for item in mine:
        item.assets = [renamed[(asset.kind, asset.native)] for asset in item.assets]
    return list(renamed.values())


def _edges(found: _Found, index: References) -> Iterator[Edge]:
    for asset in found.assets:
        if asset.kind is Kind.ROLE:
            for policy, document in _documents(found.raw):
                yield from index.grants(asset, document, policy)
            continue
        # A bucket's own name would tie the models in it to the dataset beside them.
        named = ("policy", "encryption") if found.row is BUCKETS else tuple(found.raw)
        yield from index.edges_of(asset, {key: found.raw[key] for key in named if key in found.raw and key != "tags"})


def _first_evidence(edges: Iterable[Edge]) -> Iterator[Edge]:
    """One edge per (source, relation, target): the alphabetically first evidence, so that it is the same each time."""
    kept: dict[tuple[str, str, str], Edge] = {}
    for edge in sorted(edges):
        kept.setdefault((edge.source, edge.relation, edge.target), edge)
    yield from kept.values()


def _reports(
    place: str, found: list[_Found], listed: list[tuple[Row, Trouble | None]], used: set[str]
) -> Iterator[KindReport]:
    """One report per kind, one more per call that was refused, sorted."""
    out: list[KindReport] = []
    for row, trouble in listed:
        mine = [item for item in found if item.row is row and not item.raw.get("ignored")]
        if trouble is not None:
            out.append(KindReport(place, row.label, trouble.status, None, trouble.detail))
            continue
        if row.offers:
            count = sum(1 for item in mine for asset in item.assets if asset.id in used)
            out.append(KindReport(place, row.label, FOUND, count, f"{len(mine)} offered, {count} referred to"))
            continue
        out.append(KindReport(place, row.label, FOUND, len(mine), ""))
        refused: dict[str, list[Trouble]] = {}
        for item in mine:
            for told in item.troubles:
                refused.setdefault(told.what, []).append(told)
        for what, troubles in refused.items():
            first = min(troubles, key=lambda told: told.detail)
            out.append(KindReport(place, f"{row.label}.{what}", first.status, len(troubles), first.detail))
    buckets_answered = all(trouble is None for row, trouble in listed if row is BUCKETS)
    if buckets_answered:
        for kind in (Kind.DATASET, Kind.MODEL):
            count = sum(1 for item in found for asset in item.assets if asset.kind is kind)
            out.append(KindReport(place, str(kind), FOUND, count, "in the buckets listed"))
    return iter(sorted(out, key=lambda report: report.kind))
