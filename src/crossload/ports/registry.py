"""The Registry port: container images and other OCI artifacts, by digest (OCI Distribution 1.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from crossload.ports.errors import Invalid

# Lengths of the hexadecimal part, by algorithm: others than these nobody can recompute here, so they are refused.
DIGEST_LENGTHS: Mapping[str, int] = {"sha256": 64, "sha512": 128}

IMAGE_INDEX = "application/vnd.oci.image.index.v1+json"
IMAGE_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MANIFEST_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
SCHEMA2_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
MANIFEST_TYPES = (IMAGE_INDEX, IMAGE_MANIFEST, MANIFEST_LIST, SCHEMA2_MANIFEST)
INDEX_TYPES = frozenset({IMAGE_INDEX, MANIFEST_LIST})

_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")


def is_digest(text: str) -> bool:
    """Whether `text` is `algorithm:hex` of an algorithm that we can recompute."""
    algorithm, _, digits = text.partition(":")
    return DIGEST_LENGTHS.get(algorithm) == len(digits) and not set(digits) - set("0123456789abcdef")


def is_tag(text: str) -> bool:
    return _TAG.fullmatch(text) is not None


def referrers_tag(digest: str) -> str:
    """The tag that lists referrers where there is no referrers API (OCI Distribution 1.1, referrers tag schema)."""
    algorithm, _, encoded = digest.partition(":")
    return re.sub(r"[^a-zA-Z0-9._-]", "-", f"{algorithm[:32]}-{encoded[:64]}")


@dataclass(frozen=True, slots=True)
class RegistryFeatures:
    """`chunked_uploads`: a blob may be sent in several requests, and goes on after a crash from what the server has."""

    chunked_uploads: bool = True


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Content named by its digest, `algorithm:hex`. `size_bytes` is None where the registry did not say it. `urls` are
    other places of content that the registry itself need not hold."""

    digest: str
    media_type: str
    size_bytes: int | None = None
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)
    urls: tuple[str, ...] = ()


def descriptor_of(entry: Any) -> Descriptor:
    """One entry of a manifest or index, as its JSON says it. Invalid when it is none, or names its content by a digest
    that we cannot recompute."""
    if not isinstance(entry, dict) or not is_digest(str(entry.get("digest", ""))):
        raise Invalid(
            f"{str(entry)[:150]!r} names nothing by a digest that can be recomputed", hint="sha256:... or sha512:..."
        )
    known = cast(dict[str, Any], entry)
    size = known.get("size")
    return Descriptor(
        str(known["digest"]), str(known.get("mediaType", "")), size if isinstance(size, int) else None,
        str(known.get("artifactType", "")), dict(known.get("annotations") or {}), tuple(known.get("urls") or ()),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest or index: the very bytes, whose digest was recomputed when they were read."""

    digest: str
    media_type: str
    data: bytes

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(self.digest, self.media_type, len(self.data))


@dataclass(frozen=True, slots=True)
class Upload:
    """An open upload. `location` survives our own death and changes with every request: the newest one counts.
    `offset_bytes` is what the server has; `chunk_bytes_min` the smallest piece it takes, 0 when it did not say."""

    location: str = field(repr=False)
    offset_bytes: int = 0
    chunk_bytes_min: int = 0


@dataclass(frozen=True, slots=True)
class Written:
    """`subject_listed`: the registry lists this manifest among its subject's referrers by itself. Without that, whoever
    writes a manifest with a subject keeps the list under `referrers_tag`."""

    digest: str
    subject_listed: bool = False


class Registry(Protocol):
    """All calls are blocking and safe to call from many threads. Errors are those of `ports.errors`. `reference` is a
    tag or a digest; every write may happen twice with the same bytes."""

    place: str
    features: RegistryFeatures

    def uri(self, repository: str, reference: str = "") -> str:
        """The image's address as other tools write it: `host/repository:tag` or `host/repository@digest`."""
        ...

    def resolve(self, repository: str, reference: str) -> Descriptor:
        """Digest, media type and size of what a tag or digest names now. NotFound when it names nothing."""
        ...

    def manifest(self, repository: str, reference: str) -> Manifest:
        """The bytes. DigestMismatch when they are not what was asked for or what the registry says they are."""
        ...

    def head_blob(self, repository: str, digest: str) -> int:
        """Size in bytes. NotFound when the repository has no such blob."""
        ...

    def read_blob(self, repository: str, digest: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Bytes [start, start+length) in pieces of at most 1 MiB. Nobody checks the digest of a piece: the caller
        does, over the whole. Raises Unavailable when the connection ends early, Invalid for a range beyond the end."""
        ...

    def mount(self, repository: str, digest: str, from_repository: str) -> bool:
        """Take a blob over from another repository of this registry, without moving it. False when it cannot."""
        ...

    def open_upload(self, repository: str) -> Upload: ...
    def upload_state(self, upload: Upload) -> Upload:
        """What the server has: the truth that beats any note. NotFound when the upload is gone."""
        ...

    def append(self, upload: Upload, data: Iterable[bytes], length: int, *, whole: bool = False) -> Upload:
        """Send `length` bytes that follow `upload.offset_bytes`, in one request, with bounded memory. `whole`: this is
        all of the blob. PreconditionFailed when the server goes on at another byte: ask `upload_state`."""
        ...

    def finish_upload(self, repository: str, upload: Upload, digest: str) -> None:
        """Make the blob. DigestMismatch when the server's bytes have another digest."""
        ...

    def abort_upload(self, upload: Upload) -> None:
        """Forget an open upload; silent when it is gone already or cannot be cancelled."""
        ...

    def write_manifest(self, repository: str, reference: str, manifest: Manifest) -> Written:
        """These bytes under a digest or tag. Invalid when something that it names is not there. DigestMismatch when the
        registry answers with another digest."""
        ...

    def tags(self, repository: str) -> Iterator[str]:
        """All tags, page by page. NotFound when there is no such repository."""
        ...

    def referrers(self, repository: str, digest: str) -> list[Descriptor]:
        """Signatures, attestations and whatever else names this digest as its subject: by the referrers API, or by the
        referrers tag where there is none. Empty when there are none."""
        ...

    def delete(self, repository: str, reference: str) -> bool:
        """Remove a tag, or a manifest with its tags. False when it was not there; Unsupported when the registry removes
        nothing."""
        ...
