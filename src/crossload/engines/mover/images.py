"""Container images from registry to registry: by digest, blobs before manifests, children before indexes, tags last.

No manifest is ever rewritten, so that one digest names the same image at both ends, and signatures stay good."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from crossload.engines.mover.image_blobs import BlobMover, Moved, Say, Stopped
from crossload.engines.mover.image_graph import COMPANION_SUFFIXES, Gatherer, Graph, Node
from crossload.engines.mover.image_notes import ImageNotes
from crossload.estate.digest import canonical_json, sha256_of
from crossload.ports.errors import DigestMismatch, Invalid, NotFound, Refused, Unavailable
from crossload.ports.registry import IMAGE_INDEX, INDEX_TYPES, Descriptor, Manifest, Registry, is_digest, referrers_tag
from crossload.ports.retrying import RetryPolicy, retry

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """`piece_bytes` is what one request carries of a large blob, and so what a crash sends again at most, per worker.
    `referrers`: signatures and whatever else names the image as its subject; `companions`: those found by tag.
    `replace_tags`: a tag that somebody else set at the target may be moved. `reread`: every blob is read back.
    `mount_from`: repositories of the target that may hold the blobs already."""

    workers: int = 4
    piece_bytes: int = 32 * 2**20
    referrers: bool = True
    companions: bool = True
    replace_tags: bool = False
    reread: bool = False
    mount_from: tuple[str, ...] = ()
    retry: RetryPolicy = field(default_factory=RetryPolicy)


@dataclass(slots=True)
class ImageReport:
    """What is at the target now. `digests` maps each reference that was asked for to its manifest digest, equal at both
    ends; `changed_meanwhile` are tags that name something else at the source by now: move again. `trust` is sent (the
    target checked each blob against its digest) or reread. `elsewhere` is content that lies outside both registries;
    `stale` are referrers that the source lists and does not have."""

    source: str
    target: str
    digests: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    referrers: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    manifests: int = 0
    manifests_found: int = 0
    blobs: int = 0
    blobs_sent: int = 0
    blobs_found: int = 0
    blobs_mounted: int = 0
    elsewhere: list[str] = field(default_factory=list)
    sent_bytes: int = 0
    changed_meanwhile: list[str] = field(default_factory=list)
    trust: str = "sent"
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "seconds": round(self.seconds, 3)}


def move_image(
    source: Registry, target: Registry, repository: str, reference: str, *, target_repository: str = "",
    target_tag: str = "", options: ImageOptions | None = None, notes: Path | None = None,
    moved: Moved = lambda blobs, size_bytes: None, say: Say = lambda text: None,
) -> ImageReport:  # fmt: skip
    """Bring one image, by tag or digest, with everything it is made of and everything that refers to it.

    The target's tag is `target_tag`, else the reference when that is a tag; an image named by a digest gets none.
    `notes` is a file that lets a killed move go on; `moved(blobs, bytes)` hears of progress, from many threads. Raises
    Refused when a tag at the target is somebody else's, DigestMismatch, NotFound, or a registry's error."""
    tag = target_tag or ("" if is_digest(reference) else reference)
    move = _Move(source, target, repository, target_repository or repository, options, notes, moved, say)
    return move.run({reference: tag})


def move_repository(
    source: Registry, target: Registry, repository: str, *, target_repository: str = "",
    options: ImageOptions | None = None, notes: Path | None = None,
    moved: Moved = lambda blobs, size_bytes: None, say: Say = lambda text: None,
) -> ImageReport:  # fmt: skip
    """Bring all tagged images of a repository; images without a tag that no index names stay behind. All tags are set
    at the end. Raises as `move_image`, and NotFound when the repository has no tags."""
    move = _Move(source, target, repository, target_repository or repository, options, notes, moved, say)
    names = [name for name in move.ask(lambda: list(source.tags(repository))) if not is_attached(name)]
    if not names:
        raise NotFound(f"{source.uri(repository)} has no tags")
    return move.run({name: name for name in names})


def is_attached(tag: str) -> bool:
    """Whether a tag only says what refers to another image: such tags come with that image."""
    algorithm, _, rest = tag.partition("-")
    suffix = next((suffix for suffix in COMPANION_SUFFIXES if rest.endswith(suffix)), "")
    return is_digest(f"{algorithm}:{rest.removesuffix(suffix)}")


class _Move:
    def __init__(
        self, source: Registry, target: Registry, repository: str, target_repository: str,
        options: ImageOptions | None, notes: Path | None, moved: Moved, say: Say,
    ) -> None:  # fmt: skip
        self.source, self.target = source, target
        self.repository, self.target_repository = repository, target_repository
        self.options = options or ImageOptions()
        self.notes = ImageNotes(notes, target.uri(target_repository))
        self.say = say
        self.moved = moved
        self.report = ImageReport(source.uri(repository), target.uri(target_repository))
        self._mutex = threading.Lock()

    def ask(self, call: Callable[[], Result]) -> Result:
        return retry(call, self.options.retry, self.say)

    def run(self, wanted: dict[str, str]) -> ImageReport:
        """`wanted` maps references at the source to tags at the target, "" for none."""
        began = time.monotonic()
        roots = {reference: self._read(reference) for reference in wanted}
        self.report.digests = {reference: root.digest for reference, root in roots.items()}
        tags = {tag: roots[reference].digest for reference, tag in wanted.items() if tag}
        gatherer = Gatherer(self.source, self.repository, self.ask, self.options.referrers, self.options.companions)
        graph = gatherer.gather(list(roots.values()))
        # Companions first: whoever sees a tag may check the signature at once.
        tags = {**graph.tags, **tags}
        self._check_tags(tags)
        self.report.referrers, self.report.stale = graph.referrers, graph.stale
        self._move_blobs(graph)
        self._write_manifests(graph)
        self._prove(graph)
        self._set_tags(graph, tags)
        self.report.changed_meanwhile = [
            reference for reference, root in roots.items()
            if not is_digest(reference) and self._source_names(reference) != root.digest
        ]  # fmt: skip
        self.report.seconds = time.monotonic() - began
        return self.report

    def _read(self, reference: str) -> Manifest:
        """What a reference names at the source now; from here on everything goes by digest."""
        found = self.ask(lambda: self.source.resolve(self.repository, reference))
        return self.ask(lambda: self.source.manifest(self.repository, found.digest))

    def _source_names(self, reference: str) -> str:
        try:
            return self.ask(lambda: self.source.resolve(self.repository, reference)).digest
        except NotFound:
            return ""

    # -- tags --------------------------------------------------------------------------------------------------------

    def _tag_there(self, tag: str) -> str:
        try:
            return self.ask(lambda: self.target.resolve(self.target_repository, tag)).digest
        except NotFound:
            return ""

    def _check_tags(self, tags: dict[str, str]) -> None:
        """Somebody else's tag is not moved unasked."""
        if self.options.replace_tags:
            return
        foreign: list[str] = []
        for tag, digest in tags.items():
            there = self._tag_there(tag)
            if there and there != digest and not self.notes.gave(tag, there):
                foreign.append(f"{tag} ({there})")
        if foreign:
            raise Refused(
                f"{self.target.uri(self.target_repository)} has other images under: {', '.join(foreign)}",
                hint="choose another tag for the target, or allow tags to be replaced",
            )

    def _set_tags(self, graph: Graph, tags: dict[str, str]) -> None:
        self._check_tags(tags)
        for tag, digest in tags.items():
            manifest = graph.nodes[digest].manifest
            # Noted before it is set: a tag that a killed move had set must be known as ours.
            self.notes.note_tag(tag, digest)
            if self._tag_there(tag) != digest:
                self._write(tag, manifest)
            if self._tag_there(tag) != digest:
                raise DigestMismatch(f"{self.target.uri(self.target_repository, tag)} does not name {digest}")
            self.report.tags[tag] = digest

    # -- blobs -------------------------------------------------------------------------------------------------------

    def _move_blobs(self, graph: Graph) -> None:
        def advanced(blobs: int, size_bytes: int) -> None:
            with self._mutex:
                self.report.sent_bytes += size_bytes
            self.moved(blobs, size_bytes)

        mover = BlobMover(
            self.source, self.repository, self.target, self.target_repository, self.notes, self.options.piece_bytes,
            self.options.mount_from, advanced, self.say, self.options.retry,
        )  # fmt: skip

        def one(blob: Descriptor) -> None:
            try:
                how = mover.move(blob)
                if self.options.reread and how != "elsewhere":
                    mover.reread(blob)
            except BaseException:
                mover.stop.set()
                raise
            self._count(how, blob)
            self.moved(1, 0)

        self.report.blobs = len(graph.blobs)
        self._all(one, graph.blobs.values(), mover.stop)
        self.report.trust = "reread" if self.options.reread else "sent"

    def _count(self, how: str, blob: Descriptor) -> None:
        with self._mutex:
            self.report.blobs_sent += how == "sent"
            self.report.blobs_found += how == "found"
            self.report.blobs_mounted += how == "mounted"
            if how == "elsewhere":
                self.report.elsewhere.append(blob.digest)

    def _all(self, one: Callable[[Descriptor], None], blobs: Iterable[Descriptor], stop: threading.Event) -> None:
        """Largest first, so that no worker ends alone with it. The first error is raised when all workers have left."""

        def order(blob: Descriptor) -> tuple[bool, int, str]:
            # Those that do not say how large they are go first: they may be the largest.
            return (False, 0, blob.digest) if blob.size_bytes is None else (True, -blob.size_bytes, blob.digest)

        ordered = sorted(blobs, key=order)
        with ThreadPoolExecutor(max(1, self.options.workers), "images") as pool:
            futures = [pool.submit(one, blob) for blob in ordered]
            try:
                failures = [future.exception() for future in futures]
            except BaseException:  # Ctrl-C: the workers stop at their next piece
                stop.set()
                for future in futures:
                    future.cancel()
                raise
        found = [error for error in failures if error is not None]
        found.sort(key=lambda error: isinstance(error, Stopped))
        if found:
            raise found[0]

    # -- manifests ---------------------------------------------------------------------------------------------------

    def _write_manifests(self, graph: Graph) -> None:
        unlisted: dict[str, list[Node]] = {}
        self.report.manifests = len(graph.nodes)
        for digest, node in graph.nodes.items():
            there = self._tag_there(digest) == digest
            listed = not node.subject or (there and digest in self._listed(node.subject))
            if there and listed:
                self.report.manifests_found += 1
                continue
            written = self._write(digest, node.manifest)
            if node.subject and not written:
                unlisted.setdefault(node.subject, []).append(node)
        for subject, nodes in unlisted.items():
            self._list_referrers(subject, nodes)

    def _write(self, reference: str, manifest: Manifest) -> bool:
        """True when the target lists it among its subject's referrers by itself."""
        written = self.ask(lambda: self.target.write_manifest(self.target_repository, reference, manifest))
        return written.subject_listed

    def _listed(self, subject: str) -> set[str]:
        listed = self.ask(lambda: self.target.referrers(self.target_repository, subject))
        return {descriptor.digest for descriptor in listed}

    def _list_referrers(self, subject: str, nodes: list[Node]) -> None:
        """Keep the list of referrers for a target that keeps none: the source's own bytes where they will do."""
        tag = referrers_tag(subject)
        held = self._index(self.target, self.target_repository, tag)
        theirs = self._index(self.source, self.repository, tag)
        if held is None and theirs is not None and self._complete(theirs):
            held = theirs
        document: dict[str, Any] = {"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": []}
        if held is not None:
            document = json.loads(held.data)
        known = {entry.get("digest") for entry in document["manifests"]}
        missing = [node for node in nodes if node.manifest.digest not in known]
        if missing or held is None:
            document["manifests"] = [*document["manifests"], *(_entry(node) for node in missing)]
            data = canonical_json(document)
            held = Manifest(str(sha256_of(data)), IMAGE_INDEX, data)
        self._write(tag, held)
        absent = {node.manifest.digest for node in nodes} - self._listed(subject)
        if absent:
            raise Unavailable(f"{self.target.uri(self.target_repository, tag)} was changed by somebody else meanwhile")

    def _index(self, registry: Registry, repository: str, tag: str) -> Manifest | None:
        try:
            found = self.ask(lambda: registry.manifest(repository, tag))
        except NotFound:
            return None
        if found.media_type not in INDEX_TYPES:
            raise Invalid(f"{registry.uri(repository, tag)} is no list of referrers, and stands where one belongs")
        return found

    def _complete(self, index: Manifest) -> bool:
        """Whether the target has all that this list names: a registry may refuse a list of what it does not have."""
        entries = json.loads(index.data).get("manifests") or ()
        return all(self._tag_there(str(entry["digest"])) == entry["digest"] for entry in entries)

    def _prove(self, graph: Graph) -> None:
        """Every manifest is read back from the target, and its digest recomputed: the same at both ends."""
        for digest, node in graph.nodes.items():
            there = self.ask(lambda digest=digest: self.target.manifest(self.target_repository, digest))
            if there.data != node.manifest.data:
                raise DigestMismatch(f"{self.target.uri(self.target_repository, digest)} is not what the source has")


def _entry(node: Node) -> dict[str, Any]:
    """A manifest as its subject's list of referrers names it (OCI Distribution 1.1, pushing manifests with subject)."""
    document = json.loads(node.manifest.data)
    kind = document.get("artifactType") or (document.get("config") or {}).get("mediaType", "")
    return {
        "mediaType": node.manifest.media_type,
        "digest": node.manifest.digest,
        "size": len(node.manifest.data),
        **({"artifactType": kind} if kind else {}),
        **({"annotations": document["annotations"]} if document.get("annotations") else {}),
    }
