"""The registry suite is tested itself: a registry with one fault must break the case that stands for it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from oci_server import serve
from test_registry_oci import registry_at

from crossload.conformance.registry import CASES, RegistryBench, judge
from crossload.ports.errors import CrossloadError
from crossload.ports.registry import Descriptor, Manifest, Upload, Written

_BY_NAME = {case.name: case for case in CASES}


class Faulty:
    """Hands everything on, but for what a subclass says itself."""

    def __init__(self, url: str) -> None:
        self.inner = registry_at(url)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class EndIsInclusive(Faulty):
    def read_blob(self, repository: str, digest: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        return self.inner.read_blob(repository, digest, start, None if length is None else length + 1)


class EmptyBeyondTheEnd(Faulty):
    def read_blob(self, *args: Any) -> Iterator[bytes]:
        try:
            yield from self.inner.read_blob(*args)
        except CrossloadError:
            return


class OnePiece(Faulty):
    def read_blob(self, *args: Any) -> Iterator[bytes]:
        yield b"".join(self.inner.read_blob(*args))


class BelievesAnyDigest(Faulty):
    def finish_upload(self, repository: str, upload: Upload, digest: str) -> None:
        try:
            self.inner.finish_upload(repository, upload, digest)
        except CrossloadError:
            return


class StartsUploadsAnew(Faulty):
    def upload_state(self, upload: Upload) -> Upload:
        return Upload(self.inner.upload_state(upload).location, 0)


class ClaimsToMount(Faulty):
    def mount(self, repository: str, digest: str, from_repository: str) -> bool:
        return True


class RewritesManifests(Faulty):
    def manifest(self, repository: str, reference: str) -> Manifest:
        found = self.inner.manifest(repository, reference)
        return Manifest(found.digest, found.media_type, b"".join(found.data.split()))


class OnePage(Faulty):
    def tags(self, repository: str) -> Iterator[str]:
        for number, tag in enumerate(self.inner.tags(repository)):
            if number < 20:
                yield tag


class KnowsNoReferrers(Faulty):
    def referrers(self, repository: str, digest: str) -> list[Descriptor]:
        return []


class TagsStay(Faulty):
    def write_manifest(self, repository: str, reference: str, manifest: Manifest) -> Written:
        try:
            self.inner.resolve(repository, reference)
        except CrossloadError:
            return self.inner.write_manifest(repository, reference, manifest)
        return self.inner.write_manifest(repository, manifest.digest, manifest)


FAULTS = {
    EndIsInclusive: "ranges_are_half_open",
    EmptyBeyondTheEnd: "a_range_beyond_the_end_is_refused",
    OnePiece: "pieces_of_a_read_are_small",
    BelievesAnyDigest: "a_wrong_digest_makes_no_blob",
    StartsUploadsAnew: "an_upload_goes_on_in_another_process",
    ClaimsToMount: "a_mount_moves_no_bytes",
    RewritesManifests: "a_manifest_keeps_its_bytes",
    OnePage: "tags_come_page_by_page",
    KnowsNoReferrers: "referrers_are_found",
    TagsStay: "a_tag_moves",
}


@pytest.mark.parametrize("kind, name", FAULTS.items(), ids=lambda value: getattr(value, "__name__", value))
def test_the_case_breaks(kind: type[Faulty], name: str) -> None:
    with serve() as server:
        honest: RegistryBench = RegistryBench(open=lambda: registry_at(server.url))
        assert judge(_BY_NAME[name], honest, {}).result == "kept"
        faulty: RegistryBench = RegistryBench(open=lambda: kind(server.url))  # type: ignore[return-value,arg-type]
        assert judge(_BY_NAME[name], faulty, {}).result == "broken"
