"""The suites against somebody's own account: what will be made there, the run, and taking all of it away again."""

from __future__ import annotations

import difflib
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from crossload.conformance import store, vectors
from crossload.conformance.case import Case, NotOffered, Verdict, run_all
from crossload.ports.errors import CrossloadError, Invalid, NotFound, Unsupported
from crossload.ports.store import Store
from crossload.ports.vectors import Vectors

# The word for a person who asks whether their account keeps the promises.
_WORDS = {"kept": "passed", "broken": "failed", "known": "failed", "not-offered": "skipped"}
PORTS = ("store", "vectors")  # those that have a suite
_LAND_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Tried:
    """One case and how it ended: `result` is passed | failed | skipped, `detail` says why."""

    port: str
    case: str
    promise: str
    result: str = ""
    detail: str = ""
    seconds: float = 0.0

    @classmethod
    def of(cls, port: str, verdict: Verdict) -> Tried:
        return cls(port, verdict.case, verdict.promise, _WORDS[verdict.result], verdict.detail, verdict.seconds)

    def to_json(self) -> dict[str, Any]:
        return {
            "port": self.port, "case": self.case, "promise": self.promise, "result": self.result,
            "detail": self.detail, "seconds": round(self.seconds, 3),
        }  # fmt: skip


@dataclass(slots=True)
class Trial:
    """What is tried: `openers` maps a port to a function from an identity ("" for the usual one) to the opened port,
    `identities` are those that the connection names. Nothing is opened before `run`.

    All of a trial lies in buckets of its own or, when `bucket` is named, below one prefix in that bucket, and in
    indexes of its own; every name begins with `mark` (with `_` for `-` in indexes). After `run`, `left` names what
    could not be removed."""

    place: str
    openers: Mapping[str, Callable[[str], Any]]
    bucket: str = ""
    identities: frozenset[str] = frozenset()
    only: str = ""
    mark: str = field(default_factory=lambda: f"crossload-trial-{secrets.token_hex(6)}")
    left: list[str] = field(default_factory=list[str])
    _buckets: list[str] = field(default_factory=list[str])
    _open: _Open = field(default_factory=lambda: _Open())
    _bucket_is_ours: bool = False

    def cases(self) -> list[Tried]:
        """Every case, not run. Raises Invalid when `only` is none of them."""
        found = [
            Tried(port, case.name, case.promise)
            for port, cases in (("store", store.CASES), ("vectors", vectors.CASES))
            if port in self.openers
            for case in cases
            if self.only in ("", case.name)
        ]
        if not found:
            names = [case.name for case in (*store.CASES, *vectors.CASES)]
            near = difflib.get_close_matches(self.only, names, n=1)
            raise Invalid(
                f"no case is called {self.only}", hint=f"did you mean `{near[0]}`?" if near else "--dry-run lists them"
            )
        return found

    def says(self) -> list[str]:
        """What a run will do, for the person who is asked."""
        lines: list[str] = []
        if "store" in self.openers and self.bucket:
            lines += [
                f"makes bucket {self.bucket} if it is not there, and works below {self.mark}-; what else lies in it is "
                "not touched, its settings stay, and cases that need a bucket of their own are skipped",
                "where that bucket keeps versions, old versions of what was written stay: remove them there",
            ]
        elif "store" in self.openers:
            lines.append(f"makes buckets called {self.mark}-..., and turns the freeze of one on and off")
        if "store" in self.openers:
            lines.append("writes some thousands of objects, nearly all tiny, and some uploads in parts")
        if "vectors" in self.openers:
            lines.append(f"makes indexes called {self.mark.replace('-', '_')}_... with some thousands of short rows")
        lines.append("removes all of it at the end, also after Ctrl-C; whoever owns the account pays for the requests")
        return lines

    def run(self, told: Callable[[Tried], None] = lambda _: None) -> list[Tried]:
        """Run the cases one by one. What keeps a trial from beginning (no way in, no such server) is raised; a case
        that goes wrong is a result."""
        self.cases()
        results: list[Tried] = []
        settled = False
        try:
            for port, verdict in self._verdicts():
                results.append(Tried.of(port, verdict))
                told(results[-1])
            settled = True
        finally:
            self.left = [f"what is called {self.mark} (interrupted while it was removed)"]
            left = self._remove()
            if not settled:  # a write that was on its way when we were stopped may land after the first pass
                time.sleep(_LAND_SECONDS)
                left = self._remove()
            self.left = left
        return results

    # -- inside ------------------------------------------------------------------------------------------------------

    def _verdicts(self) -> Iterator[tuple[str, Verdict]]:
        if "store" in self.openers:
            opened = self._store()
            if self.bucket:
                self._bucket_is_ours = opened.ensure_bucket(self.bucket)
                next(iter(opened.list(self.bucket, self.mark)), None)  # no way in is told before the first case
            else:
                opened.buckets()
            yield from (("store", verdict) for verdict in run_all(self._chosen(store.CASES), self._store_bench()))
        if "vectors" in self.openers:
            self._vectors().indexes()
            yield from (("vectors", verdict) for verdict in run_all(self._chosen(vectors.CASES), self._vectors_bench()))

    def _chosen(self, cases: tuple[Case[Any], ...]) -> list[Case[Any]]:
        return [case for case in cases if self.only in ("", case.name)]

    def _store(self, identity: str = "") -> Store:
        return cast("Store", _Watched(self.openers["store"](identity), self._open, self._may_freeze))

    def _vectors(self, identity: str = "") -> Vectors:
        return self.openers["vectors"](identity)

    def _may_freeze(self, bucket: str) -> bool:
        """A freeze changes a bucket's settings: only those of buckets that the trial made."""
        return bucket in self._buckets or (bucket == self.bucket and self._bucket_is_ours)

    def _store_bench(self) -> store.StoreBench:
        return store.StoreBench(
            open=self._store,
            bucket_name=self._bucket_name,
            stranger=self._door(self._store, "stranger"),
            writer=self._door(self._store, "return"),
            folder=self.mark,
        )

    def _vectors_bench(self) -> vectors.VectorsBench:
        return vectors.VectorsBench(
            open=self._vectors,
            stranger=self._door(self._vectors, "stranger"),
            reader=self._door(self._vectors, "audit"),
            prefix=self.mark.replace("-", "_"),
        )

    def _door(self, opened: Callable[[str], Any], identity: str) -> Callable[[], Any] | None:
        return (lambda: opened(identity)) if identity in self.identities else None

    def _bucket_name(self, purpose: str) -> str:
        if purpose == "versions":
            raise NotOffered("old versions cannot be removed through this port, so none are made in your account")
        if self.bucket:
            if purpose == "shared":
                return self.bucket
            raise NotOffered("needs a bucket of its own: leave --bucket out, and one is made and removed")
        # Noted before it exists: Ctrl-C may come while it is being made.
        self._buckets.append(f"{self.mark}-{purpose}")
        return self._buckets[-1]

    def _remove(self) -> list[str]:
        left: list[str] = []

        def attempt(what: str, action: Callable[[], Any]) -> None:
            try:
                action()
            except NotFound:
                return
            except CrossloadError as error:
                left.append(f"{what}: {error}")

        if "store" in self.openers:
            opened: list[Store] = []
            attempt(f"what is called {self.mark}", lambda: opened.append(self._store()))
            for one in opened:
                self._empty(one, attempt)
        if "vectors" in self.openers:
            attempt(f"indexes called {self.mark.replace('-', '_')}_...", self._vectors_bench().close)
        return left

    def _empty(self, opened: Store, attempt: Callable[[str, Callable[[], Any]], None]) -> None:
        for bucket, key, upload in sorted(self._open.uploads):
            attempt(f"an open upload of {bucket}/{key}", partial(opened.abort, bucket, key, upload))
        for bucket in sorted(self._open.frozen):
            attempt(f"the freeze of bucket {bucket}", partial(opened.thaw, bucket, ""))
        for bucket in self._buckets:
            attempt(f"objects in bucket {bucket}", partial(_emptied, opened, bucket, ""))
            attempt(f"bucket {bucket}", partial(opened.remove_bucket, bucket))
        if self.bucket:
            prefix = f"{self.mark}-"
            attempt(f"objects in bucket {self.bucket} below {prefix}", partial(_emptied, opened, self.bucket, prefix))
        if self._bucket_is_ours:
            attempt(f"bucket {self.bucket}", partial(opened.remove_bucket, self.bucket))


def _emptied(opened: Store, bucket: str, prefix: str) -> None:
    for info in list(opened.list(bucket, prefix)):
        if not info.key.startswith(prefix):  # a store that lists more than it was asked must not cost foreign objects
            raise Invalid(f"the list of {prefix} in {bucket} holds {info.key}: nothing more is deleted there")
        opened.delete(bucket, info.key)


@dataclass(slots=True)
class _Open:
    """What no list of a store shows: uploads that are open (the account pays for their parts), frozen buckets."""

    uploads: set[tuple[str, str, str]] = field(default_factory=set[tuple[str, str, str]])
    frozen: set[str] = field(default_factory=set[str])


class _Watched:
    """A store that notes what it leaves open, and freezes only what the trial made."""

    def __init__(self, inner: Store, left_open: _Open, may_freeze: Callable[[str], bool]) -> None:
        self._inner = inner
        self._open = left_open
        self._may_freeze = may_freeze

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def open_upload(self, bucket: str, key: str, *more: Any, **named: Any) -> str:
        upload = self._inner.open_upload(bucket, key, *more, **named)
        self._open.uploads.add((bucket, key, upload))
        return upload

    def complete(self, bucket: str, key: str, upload: str, *more: Any, **named: Any) -> Any:
        info = self._inner.complete(bucket, key, upload, *more, **named)
        self._open.uploads.discard((bucket, key, upload))
        return info

    def abort(self, bucket: str, key: str, upload: str) -> None:
        self._inner.abort(bucket, key, upload)
        self._open.uploads.discard((bucket, key, upload))

    def freeze(self, bucket: str) -> str:
        if not self._may_freeze(bucket):
            raise Unsupported(
                f"bucket {bucket} was there before, so its settings are left alone",
                hint="leave --bucket out, and a bucket is made, frozen and removed",
            )
        self._open.frozen.add(bucket)
        try:
            return self._inner.freeze(bucket)
        except Unsupported:
            self._open.frozen.discard(bucket)
            raise

    def thaw(self, bucket: str, token: str) -> None:
        self._inner.thaw(bucket, token)
        self._open.frozen.discard(bucket)
