"""The Store port through an agent at the far end: one request a call, bodies packed where that pays.

What is stored there is always the plain bytes, and every digest is of the plain bytes: the agent compares it before it
writes, and this side compares what it reads."""

from __future__ import annotations

import builtins
import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from crossload.ports.errors import Invalid, PreconditionFailed, Unavailable, Unsupported
from crossload.ports.provider import Settings
from crossload.ports.store import (
    BucketInfo,
    Bytes,
    Digests,
    ObjectInfo,
    ObjectMeta,
    Part,
    StoreFeatures,
)
from crossload.providers.keepalive import Answer, send_to
from crossload.providers.relay import words
from crossload.providers.relay.packing import MODES, Link, can_pack, pack, require_zstd, unpack

Made = TypeVar("Made")
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def open_store(settings: Settings) -> RelayStore:
    """Asks nobody anything yet. Raises Invalid for settings that cannot work."""
    mode = settings.get("compression", "auto")
    if mode not in MODES:
        raise Invalid(f"place {settings.place.id}: compression `{mode}`", hint=f"one of: {', '.join(MODES)}")
    if mode == "zstd":
        require_zstd()
    return RelayStore(settings.place.id, settings.require("url"), settings.require("token"), mode)


@dataclass(slots=True)
class Traffic:
    """Bytes of bodies, as they are (`plain`) and as they travelled (`wire`), in both directions."""

    sent_plain_bytes: int = 0
    sent_wire_bytes: int = 0
    received_plain_bytes: int = 0
    received_wire_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Agreed:
    """What the agent says of itself: `place` and `features` are the store's behind it; `patches` whether it applies
    patches of model files; `body_bytes_max` the largest body it takes."""

    place: str
    features: StoreFeatures
    zstd: bool
    patches: bool
    body_bytes_max: int


class RelayStore:
    """Safe to share between threads. The first call asks the agent what its store can; `features` are those, with user
    metadata limited to what a header carries."""

    features: StoreFeatures

    def __init__(self, place: str, url: str, token: str, mode: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Invalid(f"place {place}: `{url}` is no address of an agent", hint="as https://host:8790")
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            raise Invalid(
                f"place {place}: over plain http anybody on the way reads the token",
                hint="start the agent with --cert and --key, and write https://",
            )
        self.place = place
        self.traffic = Traffic()
        self._host = (parts.scheme, parts.netloc.rpartition("@")[2])
        self._base = parts.path.rstrip("/") + words.ROOT
        self._authorization = f"Bearer {token}"
        self._mode = mode
        self._link = Link()
        self._mutex = threading.Lock()
        self._agreed: Agreed | None = None

    def __getattr__(self, name: str) -> Any:
        """`features`, when they are first needed: before, nobody was asked."""
        if name != "features":
            raise AttributeError(name)
        self.features = self.agreed.features
        return self.features

    @property
    def agreed(self) -> Agreed:
        """Asked once. Raises what any call raises."""
        if self._agreed is None:
            told = self._json(self._ask("GET", "features"))
            self._agreed = _made(
                lambda: Agreed(
                    str(told["place"]), words.features_from_json(told["features"]), bool(told["zstd"]),
                    bool(told["patches"]), int(told["body_bytes_max"]),
                )
            )  # fmt: skip
        return self._agreed

    # -- buckets -----------------------------------------------------------------------------------------------------

    def uri(self, bucket: str, key: str = "") -> str:
        return f"{self._host[0]}://{self._host[1]}{self._base}/{bucket}/{key}"

    def buckets(self) -> builtins.list[BucketInfo]:
        told = self._json(self._ask("GET", "buckets"))
        return _made(lambda: [words.bucket_from_json(item) for item in told["buckets"]])

    def ensure_bucket(self, bucket: str) -> bool:
        return bool(self._json(self._ask("PUT", "ensure-bucket", bucket)).get("done"))

    def remove_bucket(self, bucket: str) -> bool:
        return bool(self._json(self._ask("DELETE", "remove-bucket", bucket)).get("done"))

    def list(self, bucket: str, prefix: str = "", start_after: str = "") -> Iterator[ObjectInfo]:
        cursor = ""
        while True:
            query = {"prefix": prefix, "start-after": start_after, "cursor": cursor}
            found, cursor = self._page(self._ask("GET", "list", bucket, query=self._reading(query)))
            yield from found
            if not cursor:
                return
            start_after = found[-1].key if found else start_after

    def versions(self, bucket: str) -> Iterator[ObjectInfo]:
        cursor = ""
        while True:
            found, cursor = self._page(self._ask("GET", "versions", bucket, query=self._reading({"cursor": cursor})))
            yield from found
            if not cursor:
                return

    def freeze(self, bucket: str) -> str:
        return str(self._json(self._ask("POST", "freeze", bucket)).get("token", ""))

    def thaw(self, bucket: str, token: str) -> None:
        self._ask("POST", "thaw", bucket, query={"token": token})

    # -- reading -----------------------------------------------------------------------------------------------------

    def head(self, bucket: str, key: str) -> tuple[ObjectInfo, ObjectMeta]:
        told = self._json(self._ask("GET", "head", bucket, key))
        return _made(lambda: (words.info_from_json(told["info"]), words.meta_from_json(told["meta"])))

    def read(self, bucket: str, key: str, start: int = 0, length: int | None = None, if_match: str = "") -> bytes:
        """One request, unless there is more than the agent gives at a time: then all of them read the same object."""
        pieces: builtins.list[bytes] = []
        while True:
            query = {"start": str(start), "length": "" if length is None else str(length), "if-match": if_match}
            answer = self._ask("GET", "read", bucket, key, query=self._reading(query))
            told = words.from_header(answer.headers.get(words.TOLD, ""))
            pieces.append(self._plain(answer, told, answer.content))
            if not told.get("more"):
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)
            start += len(pieces[-1])
            length = None if length is None else length - len(pieces[-1])
            if_match = str(told.get("etag", ""))

    def read_into(self, bucket: str, key: str, start: int, buffer: memoryview, if_match: str = "") -> int:
        if not len(buffer):
            return 0
        done = 0
        while True:
            query = {"start": str(start + done), "length": str(len(buffer) - done), "if-match": if_match}
            answer = self._ask("GET", "read", bucket, key, query=self._reading(query), into=buffer[done:])
            told = words.from_header(answer.headers.get(words.TOLD, ""))
            done += self._into(answer, told, buffer[done:])
            if not told.get("more"):
                return done
            if_match = str(told.get("etag", ""))

    def fetch(self, bucket: str, key: str, buffer: memoryview, if_match: str = "") -> tuple[ObjectInfo, ObjectMeta]:
        query = self._reading({"length": str(len(buffer)), "if-match": if_match})
        answer = self._ask("GET", "fetch", bucket, key, query=query, into=buffer)
        told = words.from_header(answer.headers.get(words.TOLD, ""))
        info, meta = _made(lambda: (words.info_from_json(told["info"]), words.meta_from_json(told["meta"])))
        if told.get("more"):
            count = self.read_into(bucket, key, 0, buffer[: info.size_bytes], info.etag)
        else:
            count = self._into(answer, told, buffer)
        if count != info.size_bytes:
            raise PreconditionFailed(f"{bucket}/{key}: {count} of {info.size_bytes} bytes")
        return info, meta

    # -- writing -----------------------------------------------------------------------------------------------------

    def write(
        self, bucket: str, key: str, data: Bytes, meta: ObjectMeta, *, if_absent: bool = False, if_match: str = "",
        digests: Digests = (),
    ) -> ObjectInfo:  # fmt: skip
        told = {"meta": words.meta_to_json(meta)}
        query = _condition(if_absent, if_match)
        answer = self._send("write", bucket, key, query, data, told, digests)
        return _made(lambda: words.info_from_json(answer["info"]))

    def open_upload(self, bucket: str, key: str, meta: ObjectMeta, size_bytes: int) -> str:
        told = {"meta": words.meta_to_json(meta)}
        query = {"size": str(size_bytes)}
        return str(self._json(self._ask("POST", "open-upload", bucket, key, query=query, told=told))["upload"])

    def write_part(
        self, bucket: str, key: str, upload: str, part: Part, data: Bytes, *, last: bool, digests: Digests = ()
    ) -> Part:
        told = {"part": words.part_to_json(part)}
        query = {"upload": upload, "last": "1" if last else ""}
        answer = self._send("write-part", bucket, key, query, data, told, digests)
        return _made(lambda: words.part_from_json(answer["part"]))

    def parts(self, bucket: str, key: str, upload: str) -> builtins.list[Part]:
        told = self._json(self._ask("GET", "parts", bucket, key, query={"upload": upload}))
        return _made(lambda: [words.part_from_json(item) for item in told["parts"]])

    def complete(
        self, bucket: str, key: str, upload: str, parts: builtins.list[Part], *, if_absent: bool = False,
        if_match: str = "",
    ) -> ObjectInfo:  # fmt: skip
        query = {"upload": upload} | _condition(if_absent, if_match)
        body = json.dumps([words.part_to_json(part) for part in parts]).encode()
        told = self._json(self._ask("POST", "complete", bucket, key, query=query, content=body))
        return _made(lambda: words.info_from_json(told["info"]))

    def abort(self, bucket: str, key: str, upload: str) -> None:
        self._ask("DELETE", "abort", bucket, key, query={"upload": upload})

    def delete(self, bucket: str, key: str, if_match: str = "") -> None:
        self._ask("DELETE", "delete", bucket, key, query=_condition(False, if_match))

    def write_patch(
        self, bucket: str, key: str, patch: Bytes, meta: ObjectMeta, *, base_key: str, base_etag: str,
        new_size_bytes: int, new_sha256: str, if_absent: bool = False, if_match: str = "",
    ) -> ObjectInfo:  # fmt: skip
        """Make the object `key` from `base_key`, which the far end has, and a patch (docs/chunks.md; a memoryview of a
        mapped file will do). Nothing shows before the far end has seen `new_sha256`.

        Raises PreconditionFailed when the base is no longer that of `base_etag` or the patch is for another,
        Unsupported when the agent applies none, Invalid, Refused or DigestMismatch for a bad patch."""
        if not self.agreed.patches:
            raise Unsupported(f"the agent of {self.place} applies no patches", hint="send the file whole")
        query = {"patch-of": base_key, "etag": base_etag, "size": str(new_size_bytes)} | _condition(if_absent, if_match)
        sha256 = hashlib.sha256(patch).hexdigest()
        told = {"meta": words.meta_to_json(meta), "new_sha256": new_sha256, "sha256": sha256}
        self._count(sent=(len(patch), len(patch)))
        answer = self._json(self._ask("PUT", "patch", bucket, key, query=query, content=patch, told=told))
        return _made(lambda: words.info_from_json(answer["info"]))

    # -- inside ------------------------------------------------------------------------------------------------------

    def _send(
        self, do: str, bucket: str, key: str, query: Mapping[str, str], data: Bytes, told: Mapping[str, Any],
        digests: Digests,
    ) -> dict[str, Any]:  # fmt: skip
        """A body, packed when that pays."""
        sha256 = next((item.hex for item in digests if item.algorithm == "sha256"), "")
        more: dict[str, Any] = {"size": len(data), "sha256": sha256 or hashlib.sha256(data).hexdigest()}
        if digests:
            more["digests"] = words.digests_to_json(digests)
        mode = self._mode if self.agreed.zstd else "off"
        frame = pack(data, mode, self._link.bytes_per_second)
        more |= {"encoding": words.ZSTD} if frame is not None else {}
        body = data if frame is None else frame
        self._count(sent=(len(data), len(body)))
        return self._json(self._ask("PUT", do, bucket, key, query=query, content=body, told={**told, **more}))

    def _reading(self, query: Mapping[str, str]) -> dict[str, str]:
        """What the agent must know to decide whether to pack the answer."""
        if self._mode == "off" or not can_pack():
            return dict(query)
        link = self._link.bytes_per_second
        return {**query, "pack": self._mode, "link": str(int(link)) if link else ""}

    def _into(self, answer: Answer, told: Mapping[str, Any], buffer: memoryview) -> int:
        if "encoding" not in told and told.get("size") == answer.filled:
            self._plain(answer, told, buffer[: answer.filled])
            return answer.filled
        data = self._plain(answer, told, bytes(buffer[: answer.filled]))
        buffer[: len(data)] = data
        return len(data)

    def _plain(self, answer: Answer, told: Mapping[str, Any], body: Bytes) -> bytes:
        """The bytes as they are stored, compared with the digest that the agent took of them. What came wrong is worth
        another try."""
        size = told.get("size")
        if not isinstance(size, int) or size < 0:
            raise Invalid(f"{answer.path}: the answer does not say its size")
        data = body
        if told.get("encoding") == words.ZSTD:
            if len(body) >= size > 0 or size > self.agreed.body_bytes_max:
                raise Invalid(f"{answer.path}: {len(body)} packed bytes of {size} were never due")
            try:
                data = unpack(body, size)
            except Invalid as error:
                raise Unavailable(f"{answer.path}: {error}") from error
        if len(data) != size or hashlib.sha256(data).hexdigest() != told.get("sha256"):
            raise Unavailable(f"{answer.path}: the bytes that arrived are not those that were read")
        self._count(received=(size, len(body)))
        return data if isinstance(data, bytes) else b""

    def _count(self, sent: tuple[int, int] = (0, 0), received: tuple[int, int] = (0, 0)) -> None:
        with self._mutex:
            self.traffic.sent_plain_bytes += sent[0]
            self.traffic.sent_wire_bytes += sent[1]
            self.traffic.received_plain_bytes += received[0]
            self.traffic.received_wire_bytes += received[1]

    def _page(self, answer: Answer) -> tuple[builtins.list[ObjectInfo], str]:
        told = words.from_header(answer.headers.get(words.TOLD, ""))
        text = self._plain(answer, told, answer.content)
        listed = _made(lambda: json.loads(text))
        return _made(lambda: ([words.info_from_json(item) for item in listed["objects"]], str(listed["cursor"])))

    def _json(self, answer: Answer) -> dict[str, Any]:
        found = answer.json()
        if not isinstance(found, dict):
            raise Invalid(f"{answer.path}: the answer is no object", hint="is `url` the address of a Crossload agent?")
        return found  # pyright: ignore[reportUnknownVariableType]

    def _ask(
        self, method: str, do: str, bucket: str = "", key: str = "", *, query: Mapping[str, str] | None = None,
        content: Bytes | None = None, told: Mapping[str, Any] | None = None, into: memoryview | None = None,
    ) -> Answer:  # fmt: skip
        """A good answer. Raises the agent's error, or Unavailable when nobody answers."""
        headers = {"authorization": self._authorization}
        if told:
            headers[words.TOLD] = words.to_header(told)
        if key and not bucket:
            raise Invalid("a key needs a bucket")
        named = {"do": do} | {name: value for name, value in (query or {}).items() if value}
        try:
            # The key is one segment: no server between folds its dots and slashes.
            place = "".join(f"/{quote(item, safe='')}" for item in (bucket, key) if item)
            target = f"{self._base}{place}?{urlencode(named, quote_via=quote)}"
        except UnicodeEncodeError:
            raise Invalid(f"{bucket}/{key!r} is no Unicode text", hint="rename it at the source") from None
        self._link.begin()
        size = 0
        try:
            answer = send_to(self._host, method, target, headers, content, into)
            size = len(content or b"") + len(answer.content) + answer.filled
        finally:
            self._link.end(size)
        if 200 <= answer.status_code < 300:
            return answer
        raise words.error_from_answer(answer.status_code, answer.content, f"{method} {do} {bucket}/{key}")


def _condition(if_absent: bool, if_match: str) -> dict[str, str]:
    return {"if-absent": "1"} if if_absent else {"if-match": if_match}


def _made(make: Callable[[], Made]) -> Made:
    """What an answer means. Raises Invalid when it makes no sense."""
    try:
        return make()
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise Invalid(f"the agent's answer makes no sense: {error!r}", hint="is it of the same version?") from error
