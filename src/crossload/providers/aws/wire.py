"""The few S3 requests that a copy makes per object, signed and sent here: a fifth of the SDK's CPU time.

Only plain success, a failed condition and "slow down" are understood. Whatever else the server says (another region, a
refusal), the caller asks again through the SDK, which knows redirects and the words for errors.

Signature: AWS Signature Version 4, as documented for Amazon S3 (one header chunk). Bodies are not signed themselves:
their CRC-64/NVME is among the headers that are, and the server compares it. Where a server insists, the SDK signs."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from crossload.ports.errors import PreconditionFailed, Throttled
from crossload.providers.keepalive import Answer, Body, send_to

_UNSIGNED = "UNSIGNED-PAYLOAD"
_NO_BYTES = hashlib.sha256(b"").hexdigest()
_SPACES = re.compile(" +")
_CODE = re.compile(rb"<Code>([A-Za-z]+)</Code>")
_GOOD = frozenset({200, 204, 206})


@dataclass(frozen=True, slots=True)
class _Moment:
    """What signing needs, and what stays the same for a second. `keys` are botocore's frozen credentials."""

    second: int
    keys: Any = field(repr=False)
    stamp: str
    scope: str
    day_key: bytes = field(repr=False)
    inner: Any
    outer: Any


class Wire:
    """Safe to share between threads. `credentials` is botocore's object, which renews itself. `server` is what the
    store calls itself in its answers, "" before the first."""

    def __init__(self, endpoint: str, region: str, credentials: Any) -> None:
        parts = urlsplit(endpoint)
        self.server = ""
        self._host = (parts.scheme, parts.netloc)
        self._base = parts.path.rstrip("/")
        self._region = region
        self._credentials = credentials
        self._moment = _Moment(0, None, "", "", b"", None, None)
        self._tags_seen: set[str] = set()
        self.tags: Callable[[], str] = lambda: "ask"  # `told`: no count means none; `none`: the store keeps none

    def may_see_tags(self, bucket: str) -> None:
        """The store has shown us an object's tags there: from now on its silence about them means none."""
        self._tags_seen.add(bucket)

    def tells_tag_count(self, bucket: str) -> bool:
        said = self.tags()
        return said == "none" or (said == "told" and bucket in self._tags_seen)

    def ask(
        self,
        method: str,
        bucket: str,
        key: str,
        headers: Mapping[str, str],
        query: Mapping[str, str] | None = None,
        content: Body | None = None,
        into: memoryview | None = None,
    ) -> Answer | None:
        """The answer of a request that went well (200, 204, 206), else None. `into` takes the body of the answer.

        Raises Unavailable when nobody answers, Throttled and PreconditionFailed when the answer says so. Header names
        are lower-case. None too for values that are no ASCII: the SDK knows what to say about them."""
        if not all(map(str.isascii, headers.values())):
            return None
        path = f"{self._base}/{bucket}/{quote(key, safe='/~')}" if key else f"{self._base}/{bucket}"
        line = "&".join(f"{quote(n, safe='~')}={quote(v, safe='~')}" for n, v in sorted(query.items())) if query else ""
        signed = self._sign(method, path, line, headers, _UNSIGNED if content else _NO_BYTES)
        target = f"{path}?{line}" if line else path
        answer = send_to(self._host, method, target, signed, content, into)
        status = answer.status_code
        if status in _GOOD:
            self.server = self.server or answer.headers.get("server", "")
            return answer
        if status in (429, 503):
            after = answer.headers.get("retry-after", "")
            wait = float(after) if after.isdigit() else None
            raise Throttled(f"{method} {path}: HTTP {status} {_code(answer)}", retry_after_seconds=wait)
        if status == 412:
            raise PreconditionFailed(f"{method} {path}: the condition does not hold")
        return None

    def _sign(self, method: str, path: str, line: str, headers: Mapping[str, str], digest: str) -> dict[str, str]:
        keys = self._credentials.get_frozen_credentials()
        now = self._moment
        if now.second != int(time.time()) or now.keys != keys:
            now = self._moment = self._new_moment(keys)
        sent = {**headers, "x-amz-content-sha256": digest, "x-amz-date": now.stamp}
        if keys.token:
            sent["x-amz-security-token"] = keys.token
        covered = sorted([name for name in sent if name.startswith("x-amz-")])
        names = ";".join(["host", *covered])  # h comes before x
        lines = "\n".join([f"{name}:{_squeezed(sent[name])}" for name in covered])
        request = f"{method}\n{path}\n{line}\nhost:{self._host[1]}\n{lines}\n\n{names}\n{digest}"
        text = f"AWS4-HMAC-SHA256\n{now.stamp}\n{now.scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        # HMAC (RFC 2104) from halves that are begun: one call that lets go of the interpreter costs more than all this.
        inner, outer = now.inner.copy(), now.outer.copy()
        inner.update(text.encode())
        outer.update(inner.digest())
        signature = outer.hexdigest()
        sent["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={keys.access_key}/{now.scope}, SignedHeaders={names}, Signature={signature}"
        )
        return sent

    def _new_moment(self, keys: Any) -> _Moment:
        second = int(time.time())
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
        before = self._moment
        if before.stamp[:8] == stamp[:8] and before.keys == keys:
            step = before.day_key
        else:
            step = hmac.digest(f"AWS4{keys.secret_key}".encode(), stamp[:8].encode(), "sha256")
            for part in (self._region, "s3", "aws4_request"):
                step = hmac.digest(step, part.encode(), "sha256")
        scope = f"{stamp[:8]}/{self._region}/s3/aws4_request"
        key = step.ljust(64, b"\0")
        inner, outer = (hashlib.sha256(bytes(letter ^ pad for letter in key)) for pad in (0x36, 0x5C))
        return _Moment(second, keys, stamp, scope, step, inner, outer)


def _squeezed(value: str) -> str:
    """A header's value as it is signed: without outer spaces, and without runs of them."""
    value = value.strip()
    return _SPACES.sub(" ", value) if "  " in value else value


def _code(answer: Answer) -> str:
    found = _CODE.search(answer.content)
    return found.group(1).decode("ascii", "replace") if found else ""
