"""Edges: who refers to whom, found by walking every string of what the SDK answered.

Formats: ARNs (AWS General Reference), `s3://bucket/key`, hosted model ids, bare names. Policy documents are read by
statement (IAM policy grammar), so that reading and writing are told apart."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from crossload.estate.asset import Asset, Edge, Kind

_ARN = re.compile(r"arn:aws[\w-]*:[\w-]+:[\w-]*:\d*:[^\s\"',;]+")
_URI = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/([^\s\"',;]*))?")
_WRITES = re.compile(r"(Put|Delete|Create|Update|Write|Send|Tag|Untag|Abort|Restore|Batch\w*Write|Purge)")
_CALLS = re.compile(r"(Invoke|Converse|Publish|Execute|Start|Encrypt|Decrypt|GenerateDataKey)")

_RELATION = {
    Kind.ENDPOINT: "calls", Kind.FUNCTION: "calls", Kind.QUEUE: "calls", Kind.AGENT: "calls", Kind.ROLE: "runs-as",
    Kind.KEY: "encrypts", Kind.DATASET: "reads", Kind.MODEL: "reads", Kind.TABLE: "reads", Kind.SECRET: "reads",
    Kind.INDEX: "reads",
}  # fmt: skip
_SHORTEST_NAME = 4  # a shorter bare name ("app", "dev") would match by accident
# Kinds that code and settings name by a bare word. Keys, roles and functions are named by ARN, and their bare names
# (`helpdesk`) are words that mean other things too.
_BARE = frozenset({Kind.DATASET, Kind.ENDPOINT, Kind.TABLE, Kind.QUEUE, Kind.SECRET})


_SEPARATORS = frozenset("-._/:0123456789")
_FIELD_WORDS = {
    Kind.DATASET: ("bucket",), Kind.TABLE: ("table",), Kind.QUEUE: ("queue",), Kind.SECRET: ("secret",),
    Kind.ENDPOINT: ("model", "endpoint"),
}  # fmt: skip


class References:
    """An index of the assets by everything that can name them."""

    def __init__(self, assets: Iterable[Asset]) -> None:
        self._exact: dict[str, list[Asset]] = {}
        self._arns: list[tuple[Asset, list[str]]] = []
        for asset in assets:
            aliases = list(_aliases(asset))
            for alias in aliases:
                self._exact.setdefault(alias, []).append(asset)
            self._arns.append((asset, [alias for alias in aliases if alias.startswith("arn:")]))

    def edges_of(self, source: Asset, raw: Any) -> Iterator[Edge]:
        """Edges from `source` to what its description names; `raw` is the SDK's answer."""
        for where, text in strings(raw):
            policy = _policy_in(text)
            if policy is not None:
                yield from self._resource_policy(source, policy)
                continue
            for target in self._named(text, where):
                if target.id != source.id and target.native != source.native:
                    yield _edge(source, target, where)

    def grants(self, source: Asset, document: Mapping[str, Any], policy: str) -> Iterator[Edge]:
        """Edges of an identity's policy: what its holder may read, write or call."""
        for statement in statements(document):
            if statement.get("Effect") != "Allow":
                continue
            actions = many(statement.get("Action"))
            for pattern in many(statement.get("Resource")):
                for target in self.matching(str(pattern)):
                    for relation, action in relations(actions, target):
                        yield Edge(source.id, relation, target.id, f"{policy}: {action} on {pattern}")

    def matching(self, pattern: str) -> list[Asset]:
        """Assets an ARN pattern covers. `*` alone says nothing about one asset, and matches none."""
        if pattern == "*":
            return []
        # `bucket/*` is how a policy says "the objects of this bucket".
        return [
            asset
            for asset, arns in self._arns
            if any(fnmatch.fnmatchcase(arn, pattern) or fnmatch.fnmatchcase(f"{arn}/x", pattern) for arn in arns)
        ]

    def _named(self, text: str, where: str) -> list[Asset]:
        found = list(self._exact.get(text, ())) if len(text) >= _SHORTEST_NAME else []
        if found and not _SEPARATORS & set(text):
            # A plain word (`orders`) names a table only where the field says so; elsewhere it is just a word.
            field = where.lower()
            found = [asset for asset in found if any(word in field for word in _FIELD_WORDS[asset.kind])]
        if found:
            return found
        for arn in _ARN.findall(text):
            found += self._exact.get(arn, ()) or self.matching(arn)
        for bucket, key in _URI.findall(text):
            arn = f"arn:aws:s3:::{bucket}"
            found += self._exact.get(f"{arn}/{key}", ()) or self._exact.get(arn, ())
        return found

    def _resource_policy(self, target: Asset, document: Mapping[str, Any]) -> Iterator[Edge]:
        for statement in statements(document):
            if statement.get("Effect") != "Allow":
                continue
            principal = statement.get("Principal")
            names = [text for _, text in strings(principal)]
            for source in (asset for name in names for asset in self._exact.get(name, ())):
                for relation, action in relations(many(statement.get("Action")), target):
                    yield Edge(source.id, relation, target.id, f"resource policy: {action}")


def _aliases(asset: Asset) -> Iterator[str]:
    """Every string that means this asset and nothing else."""
    yield asset.native
    if asset.kind in _BARE:
        yield asset.name
    if asset.kind is Kind.KEY:
        yield f"alias/{asset.name}"
        yield f"{asset.native.split(':key/')[0]}:alias/{asset.name}"
    if asset.kind is Kind.ENDPOINT and asset.fact("model"):
        yield str(asset.fact("model"))
        # Policies may name a hosted model without a region; the account field is always empty.
        yield asset.native.split(":foundation-model/")[0].rsplit(":", 2)[0] + f":*::foundation-model/{asset.name}"


def _edge(source: Asset, target: Asset, where: str) -> Edge:
    relation = _RELATION.get(target.kind, "reads")
    if relation == "encrypts":
        return Edge(target.id, relation, source.id, where)
    return Edge(source.id, relation, target.id, where)


def relations(actions: Iterable[str], target: Asset) -> Iterator[tuple[str, str]]:
    """(relation, action) for what the actions let one do to `target`, each relation once, with its first action."""
    service = target.native.split(":")[2] if target.native.startswith("arn:") else ""
    seen: set[str] = set()
    for action in sorted(actions):
        prefix, _, verb = action.partition(":")
        if action != "*" and prefix != service:
            continue
        if verb in ("", "*"):
            found = ["calls"] if _RELATION.get(target.kind) == "calls" else ["reads", "writes"]
        elif _WRITES.match(verb):
            found = ["writes"]
        elif _CALLS.match(verb):
            found = ["calls"]
        else:
            found = ["reads"]
        for relation in found:
            if relation not in seen:
                seen.add(relation)
                yield relation, action


def strings(raw: Any, at: str = "") -> Iterator[tuple[str, str]]:
    """(path, text) of every string in a JSON-shaped answer."""
    if isinstance(raw, str):
        yield at, raw
    elif isinstance(raw, Mapping):
        for name, value in raw.items():
            yield from strings(value, f"{at}.{name}" if at else str(name))
    elif isinstance(raw, list | tuple):
        for value in raw:
            yield from strings(value, f"{at}[]")


def statements(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    return many(document.get("Statement"))


def many(value: Any) -> list[Any]:
    """IAM lets one value stand for a list of one."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _policy_in(text: str) -> dict[str, Any] | None:
    """The policy document that this text is, if it is one."""
    if not text.lstrip().startswith("{") or '"Statement"' not in text:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return None
