"""What the agent does with a request: checks it, asks its Store, makes the answer. Knows no socket."""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice
from typing import Any, cast

from crossload.estate.digest import Digest
from crossload.ports.errors import AccessDenied, DigestMismatch, Invalid, PreconditionFailed, Unavailable, Unsupported
from crossload.ports.store import Bytes, Digests, ObjectInfo, Store
from crossload.providers.relay import words
from crossload.providers.relay.packing import MODES, can_pack, pack, unpack
from crossload.providers.relay.patching import ApplyPatch, PatchJob, patch_object

_PAGE_OBJECTS = 2000
_CURSORS_MAX = 64
_CURSOR_SECONDS = 300.0
_CHANGES_MAX = 20
_READS = frozenset({"features", "buckets", "list", "versions", "head", "read", "fetch"})


@dataclass(frozen=True, slots=True)
class Limits:
    """`body_bytes_max`: of one body, packed or not; `patch_bytes_max`: of a patch, which lies on disk;
    `patched_bytes_max`: of the file that it makes."""

    body_bytes_max: int = 256 * 2**20
    patch_bytes_max: int = 64 * 2**30
    patched_bytes_max: int = 2**40


@dataclass(frozen=True, slots=True)
class Call:
    """One request whose token was right. `size_bytes` is the length of its body, as it travels. `hold` takes that many
    bytes of memory for as long as the request lives; ask once, before `body` reads it whole, or `blocks` in pieces.
    `stay_in_touch` is for work that takes minutes."""

    method: str
    do: str
    bucket: str
    key: str
    query: Mapping[str, str]
    told: Mapping[str, Any]
    size_bytes: int
    hold: Callable[[int], None]
    body: Callable[[], bytearray]
    blocks: Callable[[], Iterator[bytes]]
    stay_in_touch: Callable[[], AbstractContextManager[None]]

    def text(self, name: str) -> str:
        return self.query.get(name, "")

    def count(self, name: str) -> int | None:
        """A number of bytes, None when it is not said."""
        text = self.query.get(name, "")
        if not text:
            return None
        if not text.isascii() or not text.isdigit() or len(text) > 18:
            raise Invalid(f"{name} is no number")
        return int(text)

    def offset(self, name: str) -> int:
        """A number of bytes that is 0 when it is left out, as the other end leaves out what is empty."""
        found = self.count(name)
        return 0 if found is None else found

    def condition(self) -> dict[str, Any]:
        return {"if_absent": self.text("if-absent") == "1", "if_match": self.text("if-match")}


@dataclass(frozen=True, slots=True)
class Reply:
    """Either `json`, or `body` with what is told about it."""

    json: Mapping[str, Any] | None = None
    body: Bytes = b""
    told: Mapping[str, Any] | None = None


class Answering:
    """Safe to share between threads."""

    def __init__(
        self, store: Store, buckets: tuple[str, ...], limits: Limits, apply_patch: ApplyPatch | None, *, read_only: bool
    ) -> None:
        self._store = store
        self._buckets = buckets
        self._limits = limits
        self._apply_patch = apply_patch
        self._read_only = read_only
        self._cursors = _Cursors()
        self._routes: Mapping[tuple[str, str], Callable[[Call], Reply]] = {
            ("GET", "features"): self._features, ("GET", "buckets"): self._list_buckets,
            ("PUT", "ensure-bucket"): self._ensure_bucket, ("DELETE", "remove-bucket"): self._remove_bucket,
            ("GET", "list"): self._list, ("GET", "versions"): self._versions,
            ("GET", "head"): self._head, ("GET", "read"): self._read, ("GET", "fetch"): self._fetch,
            ("PUT", "write"): self._write, ("POST", "open-upload"): self._open_upload,
            ("PUT", "write-part"): self._write_part, ("GET", "parts"): self._parts,
            ("POST", "complete"): self._complete, ("DELETE", "abort"): self._abort,
            ("DELETE", "delete"): self._delete, ("PUT", "patch"): self._patch,
            ("POST", "freeze"): self._freeze, ("POST", "thaw"): self._thaw,
        }  # fmt: skip

    def answer(self, call: Call) -> Reply:
        """Raises the store's errors, AccessDenied for what this agent does not serve, Invalid for what makes no
        sense."""
        route = self._routes.get((call.method, call.do))
        if route is None:
            raise Unsupported(f"this agent knows no {call.method} {call.do[:40]}", hint="upgrade it")
        if self._read_only and call.do not in _READS:
            raise AccessDenied("this agent only reads", hint="start it without --read-only")
        if call.do not in ("features", "buckets") and not self._allowed(call.bucket):
            raise AccessDenied(f"this agent does not serve bucket {call.bucket}", hint="name it with --bucket there")
        try:
            return route(call)
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            # From what was told, or from the store's own code: in both cases another try would end the same.
            raise Invalid(f"{call.do}: {error!r}") from error

    def _allowed(self, bucket: str) -> bool:
        return any(fnmatchcase(bucket, pattern) for pattern in self._buckets)

    # -- buckets and lists -------------------------------------------------------------------------------------------

    def _features(self, call: Call) -> Reply:
        return Reply({
            "place": self._store.place, "features": words.features_to_json(self._store.features), "zstd": can_pack(),
            "patches": self._apply_patch is not None and not self._read_only,
            "body_bytes_max": self._limits.body_bytes_max,
        })  # fmt: skip

    def _list_buckets(self, call: Call) -> Reply:
        found = [item for item in self._store.buckets() if self._allowed(item.name)]
        return Reply({"buckets": [
            {"name": item.name, "region": item.region, "versioning": item.versioning, "encryption": item.encryption}
            for item in found
        ]})  # fmt: skip

    def _ensure_bucket(self, call: Call) -> Reply:
        return Reply({"done": self._store.ensure_bucket(call.bucket)})

    def _remove_bucket(self, call: Call) -> Reply:
        return Reply({"done": self._store.remove_bucket(call.bucket)})

    def _list(self, call: Call) -> Reply:
        about = ("list", call.bucket, call.text("prefix"))
        held = self._cursors.take(call.text("cursor"), about)
        return self._page(call, about, held or self._store.list(call.bucket, about[2], call.text("start-after")))

    def _versions(self, call: Call) -> Reply:
        about = ("versions", call.bucket, "")
        held = self._cursors.take(call.text("cursor"), about)
        if held is None and call.text("cursor"):
            raise Unavailable("the agent has forgotten this list of versions: begin it anew")
        return self._page(call, about, held or self._store.versions(call.bucket))

    def _page(self, call: Call, about: tuple[str, str, str], found: Iterator[ObjectInfo]) -> Reply:
        page = list(islice(found, _PAGE_OBJECTS))
        cursor = self._cursors.keep(found, about) if len(page) == _PAGE_OBJECTS else ""
        text = json.dumps({"objects": [words.info_to_json(item) for item in page], "cursor": cursor}).encode()
        return _body_of(text, pack(text, "auto", None) if call.text("pack") else None, {})

    def _freeze(self, call: Call) -> Reply:
        return Reply({"token": self._store.freeze(call.bucket)})

    def _thaw(self, call: Call) -> Reply:
        self._store.thaw(call.bucket, call.text("token"))
        return Reply({})

    # -- reading -----------------------------------------------------------------------------------------------------

    def _head(self, call: Call) -> Reply:
        info, meta = self._store.head(call.bucket, call.key)
        return Reply({"info": words.info_to_json(info), "meta": words.meta_to_json(meta)})

    def _read(self, call: Call) -> Reply:
        start, length, etag = call.offset("start"), call.count("length"), call.text("if-match")
        if length is not None and length <= self._limits.body_bytes_max:
            call.hold(2 * length)
            return self._packed(call, self._store.read(call.bucket, call.key, start, length, etag), {})
        held = 0
        for left in reversed(range(_CHANGES_MAX)):
            info = self._store.head(call.bucket, call.key)[0]
            rest = max(0, info.size_bytes - start)
            wanted = rest if length is None else min(rest, length)
            now = min(wanted, self._limits.body_bytes_max)
            if now > held:
                call.hold(2 * (now - held))
                held = now
            pinned = etag or (info.etag if self._store.features.conditional_read else "")
            try:
                data = self._store.read(call.bucket, call.key, start, now, pinned)
            except PreconditionFailed:
                # Nobody asked for a certain version: one that is replaced between our two requests is none either.
                if etag or not left:
                    raise
                continue
            return self._packed(call, data, {"more": True, "etag": pinned} if wanted > now else {})
        raise AssertionError("the last turn returns or raises")

    def _fetch(self, call: Call) -> Reply:
        room, etag = call.offset("length"), call.text("if-match")
        if room > self._limits.body_bytes_max:
            info, meta = self._store.head(call.bucket, call.key)
            about = {"info": words.info_to_json(info), "meta": words.meta_to_json(meta), "more": True}
            return self._packed(call, b"", about)
        call.hold(2 * room)
        buffer = memoryview(bytearray(room))
        info, meta = self._store.fetch(call.bucket, call.key, buffer, etag)
        about = {"info": words.info_to_json(info), "meta": words.meta_to_json(meta)}
        return self._packed(call, buffer[: info.size_bytes], about)

    def _packed(self, call: Call, data: Bytes, about: Mapping[str, Any]) -> Reply:
        mode = call.text("pack")
        return _body_of(data, pack(data, mode, call.count("link")) if mode in MODES else None, about)

    # -- writing -----------------------------------------------------------------------------------------------------

    def _write(self, call: Call) -> Reply:
        data, digests = self._received(call)
        meta = words.meta_from_json(call.told["meta"])
        info = self._store.write(call.bucket, call.key, data, meta, digests=digests, **call.condition())
        return Reply({"info": words.info_to_json(info)})

    def _open_upload(self, call: Call) -> Reply:
        meta = words.meta_from_json(call.told["meta"])
        return Reply({"upload": self._store.open_upload(call.bucket, call.key, meta, call.offset("size"))})

    def _write_part(self, call: Call) -> Reply:
        data, digests = self._received(call)
        part = words.part_from_json(call.told["part"])
        written = self._store.write_part(
            call.bucket, call.key, call.text("upload"), part, data, last=call.text("last") == "1", digests=digests
        )
        return Reply({"part": words.part_to_json(written)})

    def _parts(self, call: Call) -> Reply:
        found = self._store.parts(call.bucket, call.key, call.text("upload"))
        return Reply({"parts": [words.part_to_json(part) for part in found]})

    def _complete(self, call: Call) -> Reply:
        if call.size_bytes > self._limits.body_bytes_max:
            raise Invalid("a list of parts of that length")
        call.hold(call.size_bytes)
        parts = [words.part_from_json(item) for item in json.loads(call.body())]
        with call.stay_in_touch():
            info = self._store.complete(call.bucket, call.key, call.text("upload"), parts, **call.condition())
        return Reply({"info": words.info_to_json(info)})

    def _abort(self, call: Call) -> Reply:
        self._store.abort(call.bucket, call.key, call.text("upload"))
        return Reply({})

    def _delete(self, call: Call) -> Reply:
        self._store.delete(call.bucket, call.key, call.text("if-match"))
        return Reply({})

    def _patch(self, call: Call) -> Reply:
        if self._apply_patch is None:
            raise Unsupported("this agent applies no patches", hint="send the file whole")
        size = call.count("size")
        if size is None or size > self._limits.patched_bytes_max or call.size_bytes > self._limits.patch_bytes_max:
            raise Invalid(f"a patch of {call.size_bytes} bytes to a file of {size}", hint="send the file whole")
        job = PatchJob(
            call.bucket, call.key, call.text("patch-of"), call.text("etag"), size, str(call.told["new_sha256"]),
            str(call.told["sha256"]), words.meta_from_json(call.told["meta"]),
        )  # fmt: skip
        info = patch_object(self._store, job, self._apply_patch, call.hold, call.blocks(), call.stay_in_touch,
                            call.condition())  # fmt: skip
        return Reply({"info": words.info_to_json(info)})

    def _received(self, call: Call) -> tuple[Bytes, Digests]:
        """The plain bytes of a body, with the digests that are known to be theirs. Raises Invalid before anything is
        read when it is larger than allowed, packed or not, and DigestMismatch when other bytes arrived."""
        size, packed = call.told["size"], call.told.get("encoding", "")
        most = self._limits.body_bytes_max
        if type(size) is not int or size < 0 or packed not in ("", words.ZSTD):
            raise Invalid("a body that does not say what it is")
        if size > most or call.size_bytes > most:
            hint = "make `part_size` of the copy smaller, or start the agent with a larger --body-max"
            raise Invalid(f"{max(size, call.size_bytes)} bytes at once; this agent takes {most}", hint=hint)
        if not packed and size != call.size_bytes:
            raise Invalid(f"a body of {call.size_bytes} bytes that says it is {size}")
        call.hold(size + (call.size_bytes if packed else 0))
        body = call.body()
        data: Bytes = unpack(body, size) if packed else body
        sha256 = hashlib.sha256(data).hexdigest()
        if sha256 != call.told.get("sha256"):
            raise DigestMismatch(f"{call.bucket}/{call.key}: other bytes arrived than were sent")
        others = words.digests_from_json(cast("list[Any]", call.told.get("digests", [])))
        return data, (*(item for item in others if item.algorithm != "sha256"), Digest("sha256", sha256))


def _body_of(data: Bytes, frame: bytes | None, about: Mapping[str, Any]) -> Reply:
    """`frame` is `data` packed, None where it goes as it is; the size and digest that are told are always of `data`."""
    told = {**about, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    if frame is None:
        return Reply(body=data, told=told)
    return Reply(body=frame, told=told | {"encoding": words.ZSTD})


class _Cursors:
    """Lists that go on: each page has its own name, which serves once. A forgotten one costs a list begun anew behind
    the last key."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._held: dict[str, tuple[float, tuple[str, str, str], Iterator[ObjectInfo]]] = {}

    def keep(self, found: Iterator[ObjectInfo], about: tuple[str, str, str]) -> str:
        name, now = secrets.token_hex(12), time.monotonic()
        with self._mutex:
            old = [key for key, (since, _, _) in self._held.items() if now - since > _CURSOR_SECONDS]
            for key in old or list(self._held)[: max(0, len(self._held) - _CURSORS_MAX + 1)]:
                del self._held[key]
            self._held[name] = (now, about, found)
        return name

    def take(self, name: str, about: tuple[str, str, str]) -> Iterator[ObjectInfo] | None:
        with self._mutex:
            held = self._held.pop(name, None)
        return held[2] if held is not None and held[1] == about else None
