"""Container images over OCI Distribution 1.1: `open_registry(settings)` gives the Registry port."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast
from urllib.parse import parse_qsl, quote, urlencode, urljoin, urlsplit, urlunsplit

from crossload.ports import errors
from crossload.ports.provider import Settings
from crossload.ports.registry import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    Descriptor,
    Manifest,
    RegistryFeatures,
    Upload,
    Written,
    descriptor_of,
    is_digest,
    is_tag,
    referrers_tag,
)
from crossload.providers.registry.auth import Credentials
from crossload.providers.registry.errors import translate
from crossload.providers.registry.wire import Body, Reply, Wire, origin_of

# By what other clients were seen to send and registries to keep; the specification asks for 4 MiB at least.
_MANIFEST_BYTES_MAX = 16 * 2**20
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_ACCEPT = ", ".join((*MANIFEST_TYPES, "*/*;q=0.1"))
_BYTES = {"content-type": "application/octet-stream"}
_TAGS_PER_PAGE = 1000
_NO_REFERRERS_API = frozenset({400, 404, 405, 501})


def open_registry(settings: Settings) -> OciRegistry:
    """Raises Invalid when the endpoint is no address of a web server."""
    endpoint = settings.require("endpoint").rstrip("/")
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.netloc or "@" in parts.netloc:
        raise errors.Invalid(
            f"place {settings.place.id}: `{parts.scheme or '?'}://...` is no endpoint of a registry",
            hint="write `https://HOST[:PORT]`; user and password have settings of their own",
        )
    wire = Wire(settings.get("ca_file"))
    features = RegistryFeatures(chunked_uploads=settings.get("chunked") != "off")
    return OciRegistry(settings.place.id, endpoint, wire, Credentials(settings, endpoint, wire), features)


class OciRegistry:
    """The Registry port over HTTP. Safe to share between threads."""

    def __init__(
        self, place: str, endpoint: str, wire: Wire, credentials: Credentials, features: RegistryFeatures
    ) -> None:  # fmt: skip
        self.place, self.features = place, features
        self._endpoint, self._wire, self._credentials = endpoint, wire, credentials

    def uri(self, repository: str, reference: str = "") -> str:
        mark = "@" if is_digest(reference) else ":" if reference else ""
        return f"{urlsplit(self._endpoint).netloc}/{repository}{mark}{reference}"

    # -- reading -----------------------------------------------------------------------------------------------------

    def resolve(self, repository: str, reference: str) -> Descriptor:
        reply = self._ask("HEAD", repository, f"manifests/{_reference(reference)}", {"accept": _ACCEPT})
        reply.close()
        digest = reply.headers.get("docker-content-digest", "")
        size = reply.headers.get("content-length", "")
        if not is_digest(digest) or (is_digest(reference) and digest != reference):
            # Older registries leave the header out, and some name another algorithm: the bytes know.
            return self.manifest(repository, reference).descriptor
        return Descriptor(digest, _media_type(reply), int(size) if size.isdigit() else None)

    def manifest(self, repository: str, reference: str) -> Manifest:
        reply = self._ask("GET", repository, f"manifests/{_reference(reference)}", {"accept": _ACCEPT})
        data = reply.read(_MANIFEST_BYTES_MAX)
        stated = reply.headers.get("docker-content-digest", "")
        wanted = reference if is_digest(reference) else stated if is_digest(stated) else ""
        algorithm = wanted.partition(":")[0] or "sha256"
        digest = f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
        if wanted and digest != wanted:
            raise errors.DigestMismatch(f"{self.uri(repository, reference)}: its bytes are {digest}, not {wanted}")
        declared, stated_type = _declared_type(data), _media_type(reply)
        if declared and stated_type in MANIFEST_TYPES and declared != stated_type:
            # The same bytes read in two ways are two images under one digest.
            text = f"{self.uri(repository, reference)}: it says {declared}, the registry says {stated_type}"
            raise errors.Invalid(text)
        return Manifest(digest, declared or stated_type, data)

    def head_blob(self, repository: str, digest: str) -> int:
        reply = self._ask("HEAD", repository, f"blobs/{_digest(digest)}", {}, follow=True)
        reply.close()
        size = reply.headers.get("content-length", "")
        if not size.isdigit():
            raise errors.Invalid(f"{self.uri(repository, digest)}: the registry does not say how large it is")
        return int(size)

    def read_blob(self, repository: str, digest: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        if length == 0:
            return
        ranged = start > 0 or length is not None
        headers = {"range": f"bytes={start}-{'' if length is None else start + length - 1}"} if ranged else {}
        reply = self._ask("GET", repository, f"blobs/{_digest(digest)}", headers, follow=True)
        skip = start if ranged and reply.status_code == 200 else 0  # a server may give the whole: we leave out the rest
        left = length
        for piece in reply.pieces():
            if skip >= len(piece):
                skip -= len(piece)
                continue
            piece, skip = piece[skip:], 0
            piece = piece if left is None else piece[:left]
            left = None if left is None else left - len(piece)
            yield piece
            if left == 0:
                return
        if left:
            raise errors.Invalid(f"{self.uri(repository, digest)}: it ends {left} bytes before the range asked for")
        if skip:
            raise errors.Invalid(f"{self.uri(repository, digest)}: it ends before byte {start}")

    def tags(self, repository: str) -> Iterator[str]:
        path: str | None = f"tags/list?n={_TAGS_PER_PAGE}"
        last = ""
        while path is not None:
            reply = self._ask("GET", repository, path, {})
            page = _object(reply)
            names = [str(name) for name in page.get("tags") or ()]
            yield from names
            path = _next_page(reply)
            if path is None and len(names) >= _TAGS_PER_PAGE and names[-1] != last:
                last = names[-1]  # registries before Link headers
                path = f"tags/list?{urlencode({'n': _TAGS_PER_PAGE, 'last': last})}"

    def referrers(self, repository: str, digest: str) -> list[Descriptor]:
        found: list[Descriptor] = []
        path: str | None = f"referrers/{_digest(digest)}"
        while path is not None:
            reply = self._ask("GET", repository, path, {}, accept=_NO_REFERRERS_API | {200})
            if reply.status_code != 200:
                reply.close()
                return self._tagged_referrers(repository, digest)
            found += descriptors_of(_object(reply))
            path = _next_page(reply)
        return found

    def _tagged_referrers(self, repository: str, digest: str) -> list[Descriptor]:
        try:
            index = self.manifest(repository, referrers_tag(digest))
        except errors.NotFound:
            return []
        # The specification: a tag that is no index lists nobody.
        return descriptors_of(json.loads(index.data)) if index.media_type in INDEX_TYPES else []

    # -- writing -----------------------------------------------------------------------------------------------------

    def mount(self, repository: str, digest: str, from_repository: str) -> bool:
        query = urlencode({"mount": _digest(digest), "from": from_repository})
        reply = self._ask("POST", repository, f"blobs/uploads/?{query}", {}, push=True, accept=frozenset({201, 202}))
        reply.close()
        if reply.status_code == 201:
            return True
        self.abort_upload(self._upload(repository, reply, 0))  # it opened an upload instead
        return False

    def open_upload(self, repository: str) -> Upload:
        reply = self._ask("POST", repository, "blobs/uploads/", {}, push=True, accept=frozenset({202}))
        reply.close()
        return self._upload(repository, reply, 0)

    def upload_state(self, upload: Upload) -> Upload:
        repository, url = _repository_and_url(upload)
        reply = self._call("GET", url, repository, push=True, accept=frozenset({200, 204}))
        reply.close()
        return self._upload(repository, reply, _offset(reply))

    def append(self, upload: Upload, data: Iterable[bytes], length: int, *, whole: bool = False) -> Upload:
        repository, url = _repository_and_url(upload)
        start = upload.offset_bytes
        ranged = {} if whole and start == 0 else {"content-range": f"{start}-{start + length - 1}"}
        accept = frozenset({201, 202, 204})
        reply = self._call("PATCH", url, repository, {**_BYTES, **ranged}, Body(data, length), push=True, accept=accept)
        reply.close()
        after = self._upload(repository, reply, start + length)
        got = _offset(reply)
        if "range" in reply.headers and got != start + length and start + length > 1:
            raise errors.PreconditionFailed(f"{reply.what}: it has {got} bytes where {start + length} were sent")
        return after

    def finish_upload(self, repository: str, upload: Upload, digest: str) -> None:
        _, url = _repository_and_url(upload)
        parts = urlsplit(url)
        query = urlencode([*parse_qsl(parts.query, keep_blank_values=True), ("digest", _digest(digest))])
        aim = urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))
        reply = self._call("PUT", aim, repository, _BYTES, b"", push=True, accept=frozenset({201, 204}))
        reply.close()
        stated = reply.headers.get("docker-content-digest", digest)
        if stated != digest and stated.partition(":")[0] == digest.partition(":")[0]:
            raise errors.DigestMismatch(f"{self.uri(repository, digest)}: the registry made {stated} of it")

    def abort_upload(self, upload: Upload) -> None:
        repository, url = _repository_and_url(upload)
        gone = frozenset({200, 202, 204, 400, 404, 405, 416, 501})
        self._call("DELETE", url, repository, push=True, accept=gone).close()

    def write_manifest(self, repository: str, reference: str, manifest: Manifest) -> Written:
        headers = {"content-type": manifest.media_type}
        path = f"manifests/{_reference(reference)}"
        accept = frozenset({200, 201, 202})
        reply = self._ask("PUT", repository, path, headers, manifest.data, push=True, accept=accept)
        reply.close()
        stated = reply.headers.get("docker-content-digest", "")
        same_kind = stated.partition(":")[0] == manifest.digest.partition(":")[0]
        if same_kind and stated != manifest.digest:
            raise errors.DigestMismatch(f"{self.uri(repository, reference)}: the registry made {stated} of it")
        return Written(manifest.digest, "oci-subject" in reply.headers)

    def delete(self, repository: str, reference: str) -> bool:
        accept = frozenset({200, 202, 204, 400, 404, 405, 501})
        reply = self._ask("DELETE", repository, f"manifests/{_reference(reference)}", {}, push=True, accept=accept)
        text = reply.read()
        if reply.status_code in (400, 405, 501):
            raise errors.Unsupported(f"{self.uri(repository, reference)}: the registry does not delete: {text[:200]!r}")
        return reply.status_code != 404

    # -- one request -------------------------------------------------------------------------------------------------

    def _ask(
        self, method: str, repository: str, path: str, headers: Mapping[str, str], body: bytes | None = None,
        *, push: bool = False, follow: bool = False, accept: frozenset[int] = frozenset({200, 206}),
    ) -> Reply:  # fmt: skip
        if not _REPOSITORY.fullmatch(repository):
            raise errors.Invalid(f"{repository!r} is no name of a repository", hint="lower case, with / between parts")
        # A page's address may be absolute: it is followed on our own registry only.
        base = f"{self._endpoint}/v2/{quote(repository)}/"
        url = urljoin(base, path)
        if origin_of(url) != origin_of(base):
            raise errors.Refused(f"{self.place}: the next page is at {origin_of(url)}, another server")
        return self._call(method, url, repository, headers, body, push=push, follow=follow, accept=accept)

    def _call(
        self, method: str, url: str, repository: str, headers: Mapping[str, str] | None = None,
        body: bytes | Body | None = None, *, push: bool = False, follow: bool = False,
        accept: frozenset[int] = frozenset({200}),
    ) -> Reply:  # fmt: skip
        """One request, signed as the registry asks. Statuses outside `accept` become our errors."""
        scope = f"repository:{repository}:{'pull,push' if push else 'pull'}"
        # An upload's address may be on another server, with a signature of its own: our credentials stay here.
        ours = origin_of(url) == origin_of(self._endpoint)
        known = self._credentials.header(scope) if ours else ""
        if isinstance(body, Body) and ours and not known:
            known = self._signed_before(scope, repository)
        signed = {**(headers or {}), **({"authorization": known} if known else {})}
        reply = self._wire.request(method, url, signed, body, follow=follow)
        if reply.status_code == 401 and ours and origin_of(reply.url) == origin_of(url):
            reply.close()
            self._credentials.forget(scope)
            if isinstance(body, Body):
                raise errors.Unavailable(f"{reply.what}: the sign-in ended while a blob was sent")
            signed["authorization"] = self._credentials.answer(reply, scope)
            reply = self._wire.request(method, url, signed, body, follow=follow)
            if reply.status_code == 401:
                self._credentials.forget(scope)
        if reply.status_code in accept:
            return reply
        raise translate(reply)

    def _signed_before(self, scope: str, repository: str) -> str:
        """A body is read once: the sign-in that it needs is asked for by a request without one."""
        reply = self._wire.request("POST", f"{self._endpoint}/v2/{quote(repository)}/blobs/uploads/", {}, b"")
        reply.close()
        if reply.status_code != 401:
            if reply.status_code == 202:
                self.abort_upload(self._upload(repository, reply, 0))
            return ""
        return self._credentials.answer(reply, scope)

    def _upload(self, repository: str, reply: Reply, offset: int) -> Upload:
        """The address an answer gives, with the repository in front: our own note of which scope it belongs to."""
        where = reply.headers.get("location", "")
        url = urljoin(reply.url, where) if where else reply.url
        if urlsplit(url).scheme not in ("https", urlsplit(self._endpoint).scheme):
            raise errors.Refused(f"{reply.what}: the upload goes on without TLS")
        least = reply.headers.get("oci-chunk-min-length", "")
        return Upload(f"{repository} {url}", offset, int(least) if least.isdigit() else 0)


def descriptors_of(index: Mapping[str, Any]) -> list[Descriptor]:
    """The entries of an index. Invalid when one has no digest that can be recomputed."""
    return [descriptor_of(entry) for entry in index.get("manifests") or ()]


def _repository_and_url(upload: Upload) -> tuple[str, str]:
    repository, _, url = upload.location.partition(" ")
    return repository, url


def _offset(reply: Reply) -> int:
    """`Range: 0-LAST`, both ends included; registries say `0-0` for nothing and for one byte alike: nothing is safe."""
    last = reply.headers.get("range", "").removeprefix("bytes=").partition("-")[2]
    return int(last) + 1 if last.isdigit() and last != "0" else 0


def _next_page(reply: Reply) -> str | None:
    """The address of the next page (RFC 8288)."""
    found = re.search(r'<([^>]*)>\s*;[^,]*\brel="?next"?', reply.headers.get("link", ""))
    return urljoin(reply.url, found[1]) if found else None


def _object(reply: Reply) -> dict[str, Any]:
    try:
        found = json.loads(reply.read(_MANIFEST_BYTES_MAX))
    except ValueError as error:
        raise errors.Invalid(f"{reply.what}: the answer is no JSON") from error
    if not isinstance(found, dict):
        raise errors.Invalid(f"{reply.what}: the answer is no JSON object")
    return cast(dict[str, Any], found)


def _media_type(reply: Reply) -> str:
    return reply.headers.get("content-type", "").partition(";")[0].strip()


def _declared_type(data: bytes) -> str:
    """What a manifest says of itself, which is what must be said when it is written."""
    try:
        found = json.loads(data)
    except ValueError:
        return ""
    return str(found.get("mediaType", "")) if isinstance(found, dict) else ""


def _digest(text: str) -> str:
    if not is_digest(text):
        raise errors.Invalid(f"{text[:100]!r} is no digest that can be recomputed", hint="sha256:... or sha512:...")
    return text


def _reference(text: str) -> str:
    if not is_digest(text) and not is_tag(text):
        raise errors.Invalid(f"{text[:150]!r} is neither a tag nor a digest")
    return text
