"""The conformance suite of the Registry port: what every registry of images must keep."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from crossload.conformance.case import (
    Case,
    Collection,
    NotOffered,
    expect,
    expect_equal,
    expect_error,
    judge,
)
from crossload.ports.errors import (
    AccessDenied,
    CrossloadError,
    DigestMismatch,
    Invalid,
    NotFound,
    NotSignedIn,
    PreconditionFailed,
    Unavailable,
    Unsupported,
)
from crossload.ports.registry import (
    IMAGE_INDEX,
    IMAGE_MANIFEST,
    SCHEMA2_MANIFEST,
    Descriptor,
    Manifest,
    Registry,
    Upload,
    referrers_tag,
)

__all__ = ["CASES", "Case", "RegistryBench", "judge"]

_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


@dataclass(slots=True)
class RegistryBench:
    """`open` gives a new Registry. Optional doors: `reader` may read and not write, `unsigned` has a wrong password,
    `absent` has no server. What is pushed stays: most registries remove nothing that a name still leads to."""

    open: Callable[[], Registry]
    reader: Callable[[], Registry] | None = None
    unsigned: Callable[[], Registry] | None = None
    absent: Callable[[], Registry] | None = None
    namespace: str = "conformance"
    repository: str = ""

    def __post_init__(self) -> None:
        self.repository = self.repository or self.fresh()

    def fresh(self) -> str:
        """A repository nobody else uses."""
        return f"{self.namespace}/r{secrets.token_hex(5)}"


REGISTRY = Collection[RegistryBench]()
case = REGISTRY.case


def _bytes(size_bytes: int) -> bytes:
    """Not compressible, and new in every run: a blob that the server has already proves nothing."""
    return secrets.token_bytes(size_bytes)


def _digest(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def _pieces(data: bytes, step: int = 50_000) -> Iterator[bytes]:
    for start in range(0, len(data), step):
        yield data[start : start + step]


def push(registry: Registry, repository: str, data: bytes) -> str:
    """One blob in one piece."""
    digest = _digest(data)
    upload = registry.open_upload(repository)
    if data:
        upload = registry.append(upload, _pieces(data), len(data), whole=True)
    registry.finish_upload(repository, upload, digest)
    return digest


def image(registry: Registry, repository: str, note: str, *, media_type: str = IMAGE_MANIFEST, **more: Any) -> Manifest:
    """A small image whose blobs are there; the manifest itself is not written. `note` makes it another image."""
    config = json.dumps({"architecture": "amd64", "os": "linux", "note": note, "at": secrets.token_hex(4)}).encode()
    layer = _bytes(2000)
    document = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": {"mediaType": _CONFIG, "digest": push(registry, repository, config), "size": len(config)},
        "layers": [{"mediaType": _LAYER, "digest": push(registry, repository, layer), "size": len(layer)}],
        **more,
    }
    data = json.dumps(document, indent=3).encode()  # as somebody else wrote it: never our own canonical form
    return Manifest(_digest(data), media_type, data)


def _read(registry: Registry, repository: str, digest: str, start: int = 0, length: int | None = None) -> bytes:
    return b"".join(registry.read_blob(repository, digest, start, length))


# -- blobs -------------------------------------------------------------------------------------------------------------


@case
def a_blob_comes_back_as_it_was(bench: RegistryBench) -> None:
    """What was pushed is read back byte by byte, and head tells its size."""
    registry, data = bench.open(), _bytes(300_000)
    digest = push(registry, bench.repository, data)
    expect_equal(registry.head_blob(bench.repository, digest), len(data), "size")
    expect_equal(_read(registry, bench.repository, digest), data, "bytes")


@case
def pieces_of_a_read_are_small(bench: RegistryBench) -> None:
    """read_blob gives pieces of at most 1 MiB, so that memory stays bounded."""
    registry, data = bench.open(), _bytes(3 * 2**20 + 17)
    digest = push(registry, bench.repository, data)
    pieces = list(registry.read_blob(bench.repository, digest))
    expect(max(map(len, pieces)) <= 2**20, f"a piece has {max(map(len, pieces))} bytes")
    expect_equal(b"".join(pieces), data, "bytes")


@case
def ranges_are_half_open(bench: RegistryBench) -> None:
    """read_blob(start, length) gives exactly those bytes, at the begin, in the middle and at the end."""
    registry, data = bench.open(), _bytes(10_000)
    digest = push(registry, bench.repository, data)
    for start, length in ((0, 1), (0, 10_000), (1, 1), (4_000, 3_000), (9_999, 1), (9_000, None), (0, 0), (5, 0)):
        wanted = data[start:] if length is None else data[start : start + length]
        expect_equal(_read(registry, bench.repository, digest, start, length), wanted, f"[{start}, +{length})")


@case
def a_range_beyond_the_end_is_refused(bench: RegistryBench) -> None:
    """A range that begins beyond the end raises Invalid, and is no empty answer."""
    registry = bench.open()
    digest = push(registry, bench.repository, _bytes(100))
    with expect_error(Invalid, during="a read beyond the end"):
        _read(registry, bench.repository, digest, 200, 10)


@case
def a_blob_that_is_not_there_is_not_found(bench: RegistryBench) -> None:
    """head_blob and read_blob of a digest nobody pushed raise NotFound."""
    registry = bench.open()
    push(registry, bench.repository, _bytes(10))
    absent = _digest(_bytes(10))
    with expect_error(NotFound, during="head_blob"):
        registry.head_blob(bench.repository, absent)
    with expect_error(NotFound, during="read_blob"):
        _read(registry, bench.repository, absent)


@case
def a_wrong_digest_makes_no_blob(bench: RegistryBench) -> None:
    """finish_upload with another digest than the bytes have raises DigestMismatch, and nothing is there after it."""
    registry, data, wrong = bench.open(), _bytes(500), _digest(_bytes(10))
    upload = registry.append(registry.open_upload(bench.repository), _pieces(data), len(data), whole=True)
    with expect_error(DigestMismatch, during="finish_upload"):
        registry.finish_upload(bench.repository, upload, wrong)
    for digest in (wrong, _digest(data)):
        with expect_error(NotFound, during="head_blob after it"):
            registry.head_blob(bench.repository, digest)


@case
def a_blob_may_be_sent_twice(bench: RegistryBench) -> None:
    """Pushing the same bytes again changes nothing."""
    registry, data = bench.open(), _bytes(500)
    expect_equal(push(registry, bench.repository, data), push(registry, bench.repository, data), "digest")
    expect_equal(_read(registry, bench.repository, _digest(data)), data, "bytes")


@case
def chunks_make_one_blob(bench: RegistryBench) -> None:
    """A blob sent in several requests is the same blob."""
    registry, data = bench.open(), _bytes(250_000)
    if not registry.features.chunked_uploads:
        raise NotOffered("it takes no chunks")
    upload = registry.open_upload(bench.repository)
    step = max(100_000, upload.chunk_bytes_min)
    for start in range(0, len(data), step):
        chunk = data[start : start + step]
        expect_equal(upload.offset_bytes, start, "offset")
        upload = registry.append(upload, _pieces(chunk), len(chunk))
    registry.finish_upload(bench.repository, upload, _digest(data))
    expect_equal(_read(registry, bench.repository, _digest(data)), data, "bytes")


@case
def an_upload_goes_on_in_another_process(bench: RegistryBench) -> None:
    """An upload's location alone, in a new Registry, tells how much the server has, and the rest can be sent."""
    registry, data = bench.open(), _bytes(180_000)
    if not registry.features.chunked_uploads:
        raise NotOffered("it takes no chunks")
    begun = registry.open_upload(bench.repository)
    step = max(100_000, begun.chunk_bytes_min)
    noted = registry.append(begun, _pieces(data[:step]), min(step, len(data))).location
    other = bench.open()
    state = other.upload_state(Upload(noted))
    expect_equal(state.offset_bytes, min(step, len(data)), "offset")
    rest = data[state.offset_bytes :]
    upload = other.append(state, _pieces(rest), len(rest)) if rest else state
    other.finish_upload(bench.repository, upload, _digest(data))
    expect_equal(_read(other, bench.repository, _digest(data)), data, "bytes")


@case
def a_cancelled_upload_is_gone(bench: RegistryBench) -> None:
    """After abort_upload its state is NotFound; a second abort is silent."""
    registry = bench.open()
    upload = registry.append(registry.open_upload(bench.repository), _pieces(b"x" * 10), 10, whole=True)
    registry.abort_upload(upload)
    registry.abort_upload(upload)
    with expect_error(NotFound, during="upload_state"):
        registry.upload_state(upload)


@case
def a_mount_moves_no_bytes(bench: RegistryBench) -> None:
    """mount takes a blob of another repository over, or says that it cannot; it never claims what is not there."""
    registry, data, other = bench.open(), _bytes(500), bench.fresh()
    digest = push(registry, bench.repository, data)
    if registry.mount(other, digest, bench.repository):
        expect_equal(_read(registry, other, digest), data, "bytes")
    else:
        with expect_error(NotFound, during="head_blob"):
            registry.head_blob(other, digest)
    expect(not registry.mount(other, _digest(_bytes(9)), bench.repository), "it mounted what is not there")


# -- manifests ---------------------------------------------------------------------------------------------------------


@case
def a_manifest_keeps_its_bytes(bench: RegistryBench) -> None:
    """A manifest comes back byte by byte, white space and all, by digest and by tag."""
    registry = bench.open()
    made = image(registry, bench.repository, "kept")
    registry.write_manifest(bench.repository, made.digest, made)
    registry.write_manifest(bench.repository, "kept", made)
    for reference in (made.digest, "kept"):
        expect_equal(registry.manifest(bench.repository, reference), made, "manifest")
        expect_equal(registry.resolve(bench.repository, reference), made.descriptor, "descriptor")


@case
def older_media_types_are_kept(bench: RegistryBench) -> None:
    """A schema 2 manifest keeps its media type, and so its digest."""
    registry = bench.open()
    made = image(registry, bench.repository, "older", media_type=SCHEMA2_MANIFEST)
    registry.write_manifest(bench.repository, "older", made)
    expect_equal(registry.manifest(bench.repository, "older"), made, "manifest")


@case
def a_tag_moves(bench: RegistryBench) -> None:
    """Writing another manifest under a tag moves the tag; the first one stays, by digest."""
    registry = bench.open()
    first, second = (image(registry, bench.repository, note) for note in ("first", "second"))
    for made in (first, second):
        registry.write_manifest(bench.repository, "moving", made)
    expect_equal(registry.resolve(bench.repository, "moving").digest, second.digest, "tag")
    expect_equal(registry.manifest(bench.repository, first.digest), first, "first one")


@case
def nothing_is_not_found(bench: RegistryBench) -> None:
    """A tag, a digest and a repository that are not there raise NotFound, in resolve as in manifest."""
    registry = bench.open()
    push(registry, bench.repository, _bytes(10))
    for repository, reference in (
        (bench.repository, "absent"),
        (bench.repository, _digest(b"x")),
        (bench.fresh(), "a"),
    ):
        for call in (registry.resolve, registry.manifest):
            with expect_error(NotFound, during=f"{call.__name__} of {reference}"):
                call(repository, reference)
    with expect_error(NotFound, during="tags of no repository"):
        list(registry.tags(bench.fresh()))


@case
def a_manifest_without_its_blobs_is_refused(bench: RegistryBench) -> None:
    """A manifest whose layer was never pushed raises Invalid: blobs go before manifests."""
    registry = bench.open()
    made = image(registry, bench.repository, "whole")
    document = json.loads(made.data)
    document["layers"][0]["digest"] = _digest(_bytes(10))
    data = json.dumps(document).encode()
    with expect_error(Invalid, NotFound, during="write_manifest"):
        registry.write_manifest(bench.repository, "torn", Manifest(_digest(data), made.media_type, data))


@case
def a_manifest_under_a_wrong_digest_is_refused(bench: RegistryBench) -> None:
    """Bytes written under another digest than they have are refused."""
    registry = bench.open()
    made = image(registry, bench.repository, "named wrongly")
    with expect_error(DigestMismatch, Invalid, during="write_manifest"):
        registry.write_manifest(bench.repository, _digest(b"other"), made)


@case
def an_index_names_its_children(bench: RegistryBench) -> None:
    """An index over two images comes back as it was, and so do they."""
    registry = bench.open()
    children = [image(registry, bench.repository, note) for note in ("amd64", "arm64")]
    for child in children:
        registry.write_manifest(bench.repository, child.digest, child)
    made = _index([child.descriptor for child in children])
    registry.write_manifest(bench.repository, "multi", made)
    expect_equal(registry.manifest(bench.repository, "multi"), made, "index")
    for child in children:
        expect_equal(registry.manifest(bench.repository, child.digest), child, "child")


def _index(children: list[Descriptor]) -> Manifest:
    entries = [{"mediaType": one.media_type, "digest": one.digest, "size": one.size_bytes} for one in children]
    data = json.dumps({"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": entries}, indent=1).encode()
    return Manifest(_digest(data), IMAGE_INDEX, data)


# -- what refers to what ----------------------------------------------------------------------------------------------


@case
def tags_come_page_by_page(bench: RegistryBench) -> None:
    """tags gives all of them, each once, however many a page holds."""
    registry, repository = bench.open(), bench.fresh()
    made = image(registry, repository, "tagged")
    names = [f"v{number}" for number in range(27)]
    for name in names:
        registry.write_manifest(repository, name, made)
    found = list(registry.tags(repository))
    expect_equal(sorted(found), sorted(names), "tags")


@case
def referrers_are_found(bench: RegistryBench) -> None:
    """What names a manifest as its subject is among its referrers, by the registry's list or by the one at the tag."""
    registry, repository = bench.open(), bench.fresh()
    subject = image(registry, repository, "signed")
    registry.write_manifest(repository, "signed", subject)
    expect_equal(registry.referrers(repository, subject.digest), [], "referrers before")
    named = {"mediaType": subject.media_type, "digest": subject.digest, "size": len(subject.data)}
    signature = image(registry, repository, "signature", subject=named, artifactType="application/vnd.example.sig")
    written = registry.write_manifest(repository, signature.digest, signature)
    if not written.subject_listed:
        listed = _index([signature.descriptor])
        registry.write_manifest(repository, referrers_tag(subject.digest), listed)
    found = registry.referrers(repository, subject.digest)
    expect_equal([one.digest for one in found], [signature.digest], "referrers")


@case
def delete_says_what_it_did(bench: RegistryBench) -> None:
    """delete removes a manifest and says whether it was there, or raises Unsupported."""
    registry, repository = bench.open(), bench.fresh()
    made = image(registry, repository, "deleted")
    registry.write_manifest(repository, made.digest, made)
    try:
        expect(registry.delete(repository, made.digest), "it was there")
    except Unsupported as reason:
        raise NotOffered(f"it deletes nothing: {reason}") from reason
    with expect_error(NotFound, during="manifest after delete"):
        registry.manifest(repository, made.digest)
    expect(not registry.delete(repository, made.digest), "it was gone")


# -- doors -------------------------------------------------------------------------------------------------------------


@case
def names_that_are_none_never_leave(bench: RegistryBench) -> None:
    """A repository, tag or digest that is none raises Invalid before anything is asked."""
    registry = bench.open()
    for repository, reference in (
        ("Upper/Case", "a"),
        ("../up", "a"),
        (bench.repository, "a b"),
        (bench.repository, ""),
    ):
        with expect_error(Invalid, during=f"{repository}:{reference}"):
            registry.manifest(repository, reference)
    with expect_error(Invalid, during="a digest of no algorithm"):
        registry.head_blob(bench.repository, "md5:abc")


@case
def a_reader_may_not_write(bench: RegistryBench) -> None:
    """Somebody who may only read is told AccessDenied when writing, and reads."""
    if bench.reader is None:
        raise NotOffered("this bench has nobody who may only read")
    registry = bench.open()
    digest = push(registry, bench.repository, _bytes(10))
    reader = bench.reader()
    expect_equal(reader.head_blob(bench.repository, digest), 10, "size")
    with expect_error(AccessDenied, during="open_upload"):
        reader.open_upload(bench.repository)


@case
def a_wrong_password_is_not_signed_in(bench: RegistryBench) -> None:
    """Wrong credentials raise NotSignedIn, in reading and in writing."""
    if bench.unsigned is None:
        raise NotOffered("this bench has nobody with a wrong password")
    registry = bench.unsigned()
    calls: list[Callable[[], object]] = [
        lambda: registry.resolve(bench.repository, "kept"),
        lambda: registry.open_upload(bench.repository),
    ]
    for call in calls:
        with expect_error(NotSignedIn, during="a call with a wrong password"):
            call()


@case
def no_server_is_unavailable(bench: RegistryBench) -> None:
    """Nobody there raises Unavailable, which is worth another try."""
    if bench.absent is None:
        raise NotOffered("this bench has no address without a server")
    with expect_error(Unavailable, during="resolve"):
        bench.absent().resolve(bench.repository, "kept")


@case
def an_upload_out_of_order_is_refused(bench: RegistryBench) -> None:
    """A chunk that does not follow what the server has is refused, there or at the end: it never makes a blob."""
    registry, data = bench.open(), _bytes(30_000)
    if not registry.features.chunked_uploads:
        raise NotOffered("it takes no chunks")
    begun = registry.open_upload(bench.repository)
    if begun.chunk_bytes_min > 10_000:
        raise NotOffered("its smallest chunk is larger than this case's")
    after = registry.append(begun, _pieces(data[:10_000]), 10_000)
    ahead = Upload(after.location, 20_000)
    with expect_error(PreconditionFailed, DigestMismatch, NotFound, Invalid, during="a chunk ahead of its turn"):
        upload = registry.append(ahead, _pieces(data[20_000:]), 10_000)
        registry.finish_upload(bench.repository, upload, _digest(data))
    try:
        registry.head_blob(bench.repository, _digest(data))
    except CrossloadError:
        return
    expect(False, "a blob was made of two thirds of its bytes")


CASES = tuple(REGISTRY.cases)
