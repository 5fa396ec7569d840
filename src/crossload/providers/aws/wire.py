"""The few S3 requests that a copy makes per object, signed and sent here: a fifth of the SDK's CPU time.

Only plain success is understood. Whatever else the server says (another region, a refusal, a full server), the caller
asks again through the SDK, which knows redirects, retries and the words for errors.

Signature: AWS Signature Version 4, as documented for Amazon S3 (one header chunk)."""

from __future__ import annotations

import hashlib
import hmac
import re
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlsplit

from crossload.providers.keepalive import Answer, send

_UNSIGNED = "UNSIGNED-PAYLOAD"
_NO_BYTES = hashlib.sha256(b"").hexdigest()
_SPACES = re.compile(" +")


class Wire:
    """Safe to share between threads. `credentials` is botocore's object, which renews itself."""

    def __init__(self, endpoint: str, region: str, credentials: Any) -> None:
        parts = urlsplit(endpoint)
        self._endpoint = endpoint.rstrip("/")
        self._host = parts.netloc
        self._base = parts.path.rstrip("/")
        # Over TLS nobody can change the body, and the server checks the CRC we send; without it the body is signed.
        self._signs_body = parts.scheme != "https"
        self._region = region
        self._credentials = credentials
        self._mutex = threading.Lock()
        self._key: tuple[str, str, bytes] = ("", "", b"")

    def ask(
        self,
        method: str,
        bucket: str,
        key: str,
        headers: Mapping[str, str],
        query: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> Answer | None:
        """The answer of a request that went well (200, 204, 206), else None. Raises Unavailable when nobody answers.

        Header names are lower-case. None too for values that are no ASCII: the SDK knows what to say about them."""
        if not all(value.isascii() for value in headers.values()):
            return None
        keys = self._credentials.get_frozen_credentials()
        path = f"/{bucket}/{quote(key, safe='/~')}"
        line = "&".join(f"{quote(n, safe='~')}={quote(v, safe='~')}" for n, v in sorted((query or {}).items()))
        signed = self._sign(method, self._base + path, line, headers, content, keys)
        answer = send(method, f"{self._endpoint}{path}{'?' + line if line else ''}", signed, content=content)
        return answer if answer.status_code in (200, 204, 206) else None

    def _sign(
        self, method: str, path: str, line: str, headers: Mapping[str, str], content: bytes | None, keys: Any
    ) -> dict[str, str]:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        digest = _NO_BYTES if not content else hashlib.sha256(content).hexdigest() if self._signs_body else _UNSIGNED
        sent = {**headers, "x-amz-date": stamp, "x-amz-content-sha256": digest}
        if keys.token:
            sent["x-amz-security-token"] = keys.token
        covered = {name: _SPACES.sub(" ", value.strip()) for name, value in sent.items() if name.startswith("x-amz-")}
        covered["host"] = self._host
        names = ";".join(sorted(covered))
        lines = "".join(f"{name}:{covered[name]}\n" for name in sorted(covered))
        request = "\n".join((method, path, line, lines, names, digest))
        scope = f"{stamp[:8]}/{self._region}/s3/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        signature = hmac.digest(self._signing_key(keys.secret_key, stamp[:8]), text.encode(), "sha256").hex()
        sent["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={keys.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
        )
        return sent

    def _signing_key(self, secret: str, day: str) -> bytes:
        with self._mutex:
            if self._key[:2] != (secret, day):
                step = hmac.digest(f"AWS4{secret}".encode(), day.encode(), "sha256")
                for part in (self._region, "s3", "aws4_request"):
                    step = hmac.digest(step, part.encode(), "sha256")
                self._key = (secret, day, step)
            return self._key[2]
