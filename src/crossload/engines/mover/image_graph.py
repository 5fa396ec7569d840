"""What belongs to an image: manifests below an index, blobs below a manifest, and whatever refers to either."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from crossload.ports.errors import Invalid, NotFound, Unsupported
from crossload.ports.registry import INDEX_TYPES, Descriptor, Manifest, Registry, descriptor_of, is_tag

# Tags by which signing tools attach signatures, attestations and bills of materials without a subject field.
COMPANION_SUFFIXES = (".sig", ".att", ".sbom")
_DEPTH_MAX = 16
_SIGNED_INSIDE = "application/vnd.docker.distribution.manifest.v1"


@dataclass(frozen=True, slots=True)
class Node:
    """One manifest. `children` are manifests that must be there before it, `blobs` what it names besides."""

    manifest: Manifest
    children: tuple[Descriptor, ...] = ()
    blobs: tuple[Descriptor, ...] = ()
    subject: str = ""


@dataclass(slots=True)
class Graph:
    """`nodes` in an order in which they can be written. `tags` maps companion tags to digests; `referrers` are nodes
    that came in because they refer to another one, `stale` those that are listed and gone."""

    nodes: dict[str, Node] = field(default_factory=dict)
    blobs: dict[str, Descriptor] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    referrers: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)


def node_of(manifest: Manifest) -> Node:
    """Read one manifest. Raises Unsupported for the signed form of old registries, Invalid for what has no meaning."""
    if manifest.media_type.startswith(_SIGNED_INSIDE):
        raise Unsupported(
            f"{manifest.digest} is a schema 1 manifest, which registries no longer take",
            hint="pull and push it once with a current client; its digest changes by that",
        )
    try:
        found = json.loads(manifest.data)
    except ValueError as error:
        raise Invalid(f"{manifest.digest} is no JSON") from error
    if not isinstance(found, dict):
        raise Invalid(f"{manifest.digest} is no manifest")
    document = cast(dict[str, Any], found)
    lists = [name for name in ("manifests", "layers", "blobs") if name in document]
    if "manifests" in lists and (len(lists) > 1 or "config" in document):
        # One client would take it for an index, another for an image: two images under one digest.
        raise Invalid(f"{manifest.digest} is an index and an image at once")
    subject = str((document.get("subject") or {}).get("digest", ""))
    if manifest.media_type in INDEX_TYPES or "manifests" in lists:
        return Node(manifest, _descriptors(document.get("manifests")), subject=subject)
    if document.get("schemaVersion") == 1:
        raise Unsupported(f"{manifest.digest} is a schema 1 manifest, which registries no longer take")
    config = [document["config"]] if document.get("config") else []
    blobs = [*config, *(document.get("layers") or ()), *(document.get("blobs") or ())]
    return Node(manifest, (), _descriptors(blobs), subject)


@dataclass(slots=True)
class Gatherer:
    """Finds all that belongs to images of one repository. `ask` makes one call, and retries it."""

    source: Registry
    repository: str
    ask: Callable[[Callable[[], Any]], Any]
    referrers: bool = True
    companions: bool = True
    graph: Graph = field(default_factory=Graph)

    def gather(self, roots: list[Manifest]) -> Graph:
        """Everything that these manifests need, and everything that refers to any of it."""
        for root in roots:
            self._enter(root, 0)
        self.graph.referrers = list(dict.fromkeys(self.graph.referrers))
        return self.graph

    def _read(self, reference: str) -> Manifest:
        return self.ask(lambda: self.source.manifest(self.repository, reference))

    def _enter(self, manifest: Manifest, depth: int) -> None:
        if manifest.digest in self.graph.nodes:
            return
        if depth > _DEPTH_MAX:
            raise Invalid(f"{self.source.uri(self.repository, manifest.digest)} is nested more than {_DEPTH_MAX} deep")
        node = node_of(manifest)
        for child in node.children:
            self._enter_child(node, child, depth + 1)
        self.graph.nodes[manifest.digest] = node
        for blob in node.blobs:
            self.graph.blobs.setdefault(blob.digest, blob)
        if self.referrers:
            self._enter_referrers(manifest.digest, depth + 1)
        if self.companions:
            self._enter_companions(manifest.digest, depth + 1)

    def _enter_child(self, node: Node, child: Descriptor, depth: int) -> None:
        if child.digest in self.graph.nodes:
            return
        try:
            manifest = self._read(child.digest)
        except NotFound as error:
            if not self._is_blob(child):
                whole = self.source.uri(self.repository, node.manifest.digest)
                raise NotFound(
                    f"{whole} names {child.digest}, which the source does not have",
                    hint="move the platforms that are there by their own digests; an index is never rewritten",
                ) from error
            self.graph.blobs.setdefault(child.digest, child)
            return
        self._enter(manifest, depth)

    def _enter_referrers(self, digest: str, depth: int) -> None:
        for other in self.ask(lambda: self.source.referrers(self.repository, digest)):
            if other.digest in self.graph.nodes:
                continue
            try:
                manifest = self._read(other.digest)
            except NotFound:  # lists that clients keep name what was deleted long ago
                self.graph.stale.append(other.digest)
                continue
            self.graph.referrers.append(other.digest)
            self._enter(manifest, depth)

    def _enter_companions(self, digest: str, depth: int) -> None:
        for suffix in COMPANION_SUFFIXES:
            tag = digest.replace(":", "-") + suffix
            if not is_tag(tag):
                continue
            try:
                manifest = self._read(tag)
            except NotFound:
                continue
            self.graph.tags[tag] = manifest.digest
            if manifest.digest not in self.graph.nodes:
                self.graph.referrers.append(manifest.digest)
                self._enter(manifest, depth)

    def _is_blob(self, child: Descriptor) -> bool:
        """An index may name content that is no manifest."""
        try:
            self.ask(lambda: self.source.head_blob(self.repository, child.digest))
        except NotFound:
            return False
        return True


def _descriptors(listed: Any) -> tuple[Descriptor, ...]:
    return tuple(descriptor_of(entry) for entry in listed or ())
