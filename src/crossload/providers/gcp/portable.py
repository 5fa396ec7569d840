"""The back of a generated adapter that keeps objects in Cloud Storage.

The convert engine cuts what an application uses out of this file and writes it into that application's package."""

from __future__ import annotations

import base64
import io
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from crossload.ports.portable import Headers, Page, Stored, Trouble

STORAGE_ERRORS: Mapping[int, str] = {
    400: "invalid",
    401: "unsigned",
    403: "denied",
    404: "absent",
    409: "changed",
    412: "changed",
    416: "range",
    429: "throttled",
}


def reference(name: str) -> str:
    """The setting `name`, which may be `file:PATH` or `env:NAME`: secrets are read when used and never copied."""
    text = os.environ.get(name, "")
    if text.startswith("file:"):
        return Path(text[5:]).expanduser().read_text(encoding="utf-8").strip()
    if text.startswith("env:"):
        return os.environ[text[4:]]
    return text


def web_address(name: str) -> str:
    """The setting `name` as an http address: urllib would open files as well."""
    text = os.environ.get(name, "").rstrip("/")
    if not text.startswith(("http://", "https://")):
        raise ValueError(f"{name} must be an http or https address")
    return text


def workload_token(request: Any, scopes: Any) -> tuple[str, datetime]:
    """A bearer token from the workload's own OIDC issuer (client credentials, RFC 6749 section 4.4), and its end."""
    from google.auth import exceptions as auth_errors

    issuer = web_address("CROSSLOAD_OIDC_ISSUER")
    form = {
        "grant_type": "client_credentials",
        "client_id": os.environ.get("CROSSLOAD_OIDC_CLIENT_ID", ""),
        "client_secret": reference("CROSSLOAD_OIDC_CLIENT_SECRET"),
        "audience": os.environ.get("CROSSLOAD_OIDC_AUDIENCE", ""),
    }
    body = urllib.parse.urlencode({name: value for name, value in form.items() if value}).encode()
    try:
        with urllib.request.urlopen(f"{issuer}/token", body, timeout=10) as answer:  # noqa: S310
            token: dict[str, Any] = json.load(answer)
    except urllib.error.HTTPError as error:
        error.close()
        raise auth_errors.RefreshError(f"{issuer} refused the client: HTTP {error.code}") from None
    except OSError as error:
        raise auth_errors.TransportError(f"{issuer}: {error}") from error
    # google-auth compares with naive UTC times.
    lifetime = timedelta(seconds=int(token.get("expires_in", 300)))
    return str(token["access_token"]), datetime.now(UTC).replace(tzinfo=None) + lifetime


def storage_client() -> Any:
    """Google's client. It is imported here, so that at the source nobody needs it."""
    from google.cloud import storage
    from google.oauth2.credentials import Credentials

    federated = bool(os.environ.get("CROSSLOAD_OIDC_ISSUER"))
    endpoint = os.environ.get("CROSSLOAD_OBJECTS_ENDPOINT", "")
    return storage.Client(
        project=os.environ.get("CROSSLOAD_OBJECTS_PROJECT") or None,
        # None: Application Default Credentials
        credentials=Credentials(token=None, refresh_handler=workload_token) if federated else None,
        client_options={"api_endpoint": endpoint} if endpoint else None,
    )


class RangeReader(io.RawIOBase):
    """A stream of one object's bytes, fetched in blocks of one and the same version: memory stays small, and an
    overwrite in the middle is an error instead of a mix of two objects."""

    def __init__(self, blob: Any, start: int, size_bytes: int, block_bytes: int = 8 << 20) -> None:
        self._blob = blob
        self._at = start
        self._end = start + size_bytes
        self._block_bytes = block_bytes
        self._held = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        wanted = self._end - self._at + len(self._held) if size is None or size < 0 else size
        pieces: list[bytes] = []
        while wanted > 0:
            if not self._held and not self._fetch():
                break
            piece, self._held = self._held[:wanted], self._held[wanted:]
            pieces.append(piece)
            wanted -= len(piece)
        return b"".join(pieces)

    def readinto(self, buffer: Any, /) -> int:
        block = self.read(len(buffer))
        buffer[: len(block)] = block
        return len(block)

    def _fetch(self) -> bool:
        if self._at >= self._end:
            return False
        last = min(self._at + self._block_bytes, self._end) - 1
        with storage_errors(self._blob.client):
            self._held = self._blob.download_as_bytes(
                start=self._at, end=last, if_generation_match=self._blob.generation, raw_download=True
            )
        self._at = last + 1
        return True


@contextmanager
def storage_errors(client: Any) -> Iterator[None]:
    """Cloud Storage's errors as neutral trouble."""
    import requests
    from google.api_core import exceptions as api_errors
    from google.auth import exceptions as auth_errors

    endpoint = str(getattr(client, "api_endpoint", "") or "the storage endpoint")
    try:
        yield
    except api_errors.GoogleAPICallError as error:
        status = int(error.code or 500)
        kind = STORAGE_ERRORS.get(status) or ("unavailable" if status >= 500 else "invalid")
        if kind == "absent" and "bucket" in str(error.message).lower():
            kind = "no-place"
        raise Trouble(kind, str(error.message), status) from error
    except auth_errors.RefreshError as error:
        raise Trouble("unsigned", str(error), 401) from error
    except (requests.ConnectionError, requests.Timeout, auth_errors.TransportError, api_errors.RetryError) as error:
        raise Trouble("unreachable", str(error), endpoint=endpoint) from error


class Objects:
    """Objects in Cloud Storage, through Google's own client."""

    def __init__(self) -> None:
        from google.cloud.storage.retry import DEFAULT_RETRY

        self._client = storage_client()
        self._retry: Any = DEFAULT_RETRY.with_timeout(30)

    def read_object(self, bucket: str, key: str, start: int, length: int | None) -> tuple[Stored, BinaryIO, int]:
        blob = self._described(bucket, key)
        size_bytes = int(blob.size)
        first = max(size_bytes + start, 0) if start < 0 else start
        if first >= size_bytes and first > 0:
            raise Trouble("range", f"the object has {size_bytes} bytes", 416)
        count = size_bytes - first if length is None else max(min(length, size_bytes - first), 0)
        stream: Any = RangeReader(blob, first, count)
        return stored_of(blob), stream, count

    def write_object(self, bucket: str, key: str, data: bytes | BinaryIO, headers: Headers) -> Stored:
        blob = self._client.bucket(bucket).blob(key)
        blob.content_encoding = headers.content_encoding or None
        blob.content_language = headers.content_language or None
        blob.content_disposition = headers.content_disposition or None
        blob.cache_control = headers.cache_control or None
        if headers.metadata:
            blob.metadata = dict(headers.metadata)
        content_type = headers.content_type or "binary/octet-stream"
        with storage_errors(self._client):
            if isinstance(data, bytes | bytearray):
                # checksum: the server refuses bytes that changed on their way.
                blob.upload_from_string(bytes(data), content_type, checksum="crc32c", retry=self._retry)
            else:
                blob.upload_from_file(data, content_type=content_type, checksum="crc32c", retry=self._retry)
        return stored_of(blob)

    def describe_object(self, bucket: str, key: str) -> Stored:
        return stored_of(self._described(bucket, key))

    def _described(self, bucket: str, key: str) -> Any:
        blob = self._client.bucket(bucket).blob(key)
        with storage_errors(self._client):
            blob.reload(retry=self._retry)
        return blob

    def remove_object(self, bucket: str, key: str) -> None:
        try:
            with storage_errors(self._client):
                self._client.bucket(bucket).blob(key).delete(retry=self._retry)
        except Trouble as trouble:
            if trouble.kind != "absent":
                raise

    def duplicate_object(self, bucket: str, key: str, to_bucket: str, to_key: str) -> Stored:
        copy = self._client.bucket(to_bucket).blob(to_key)
        with storage_errors(self._client):
            token, _, _ = copy.rewrite(self._client.bucket(bucket).blob(key), retry=self._retry)
            while token is not None:
                token, _, _ = copy.rewrite(self._client.bucket(bucket).blob(key), token=token, retry=self._retry)
            copy.reload(retry=self._retry)
        return stored_of(copy)

    def list_page(self, bucket: str, prefix: str, delimiter: str, after: str, token: str, count: int) -> Page:
        with storage_errors(self._client):
            found = self._client.list_blobs(
                bucket,
                prefix=prefix or None,
                delimiter=delimiter or None,
                # The first key that may come; a listing starts after `after`, and no key lies between the two.
                start_offset=after + "\0" if after else None,
                page_token=token or None,
                page_size=count,
                retry=self._retry,
            )
            blobs = list(next(found.pages, ()))
            prefixes = sorted(found.prefixes)
        return Page([stored_of(blob) for blob in blobs], prefixes, str(found.next_page_token or ""))


def stored_of(blob: Any) -> Stored:
    return Stored(
        key=blob.name,
        size_bytes=int(blob.size or 0),
        md5_hex=base64.b64decode(blob.md5_hash).hex() if blob.md5_hash else "",
        version=str(blob.generation or ""),
        modified_at=blob.updated.timestamp() if blob.updated else 0.0,
        content_type=blob.content_type or "",
        content_encoding=blob.content_encoding or "",
        content_language=blob.content_language or "",
        content_disposition=blob.content_disposition or "",
        cache_control=blob.cache_control or "",
        metadata=dict(blob.metadata or {}),
    )
