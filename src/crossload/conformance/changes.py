"""The conformance suite of the Changes port: what every source of hints must keep.

`case.run_all(CASES, ChangesBench(...), known)` gives one verdict per case; pytest runs the same cases one by one."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from crossload.conformance.case import Case, Collection, NotOffered, expect, expect_equal
from crossload.ports.changes import CREATED, REMOVED, Batch, Change, Changes, Subscription
from crossload.ports.errors import CrossloadError, Invalid, NotFound
from crossload.ports.store import ObjectMeta, Store

__all__ = ["CASES", "Case", "ChangesBench"]

# What an encoding on the way would change: spaces, plus and percent signs, what looks encoded already, other letters.
_AWKWARD = ("a b+c", "100%25.txt", "50%", "q?x=1&y=2#z", "über/ß Ω.txt", "a'b\"c", "dir/sub/file")
_PLAIN = ObjectMeta(content_type="text/plain")


@dataclass(slots=True)
class ChangesBench:
    """`open` gives the port and `store` the store it tells of, as a new process would have them.

    `flush` makes a stand-in for a service deliver what happened so far. `hear_seconds` is how long a hint may take,
    `again_seconds` how long a message that was not acknowledged stays hidden; a case that would have to wait for longer
    than a minute is `not-offered`. `awkward` are keys this store can hold."""

    open: Callable[[], Changes]
    store: Callable[[], Store]
    flush: Callable[[], None] = field(default=lambda: None)
    bucket_name: Callable[[str], str] = field(default=lambda purpose: f"changes-{purpose}-{secrets.token_hex(4)}")
    hear_seconds: float = 10.0
    again_seconds: float = 0.0
    awkward: tuple[str, ...] = _AWKWARD
    tells_etags: bool = True
    _made: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    def stream(self, prefix: str = "") -> tuple[Store, str, Subscription]:
        """A new bucket, followed by somebody of this case's own."""
        store, bucket, token = self.ensured(prefix)
        return store, bucket, self.open().follow(bucket, prefix, token)

    def ensured(self, prefix: str = "", owner: str = "conformance") -> tuple[Store, str, str]:
        store, bucket = self.store(), self.bucket_name("docs")
        store.ensure_bucket(bucket)
        self._made.append((bucket, ""))
        token = self.open().ensure(bucket, prefix, owner)
        self._made[-1] = (bucket, token)
        return store, bucket, token

    def hear(self, stream: Subscription, wanted: Callable[[list[Change]], bool]) -> list[Change]:
        """Everything heard, and acknowledged, until it is what was wanted."""
        heard: list[Change] = []
        until = time.monotonic() + self.hear_seconds
        while not wanted(heard):
            if time.monotonic() > until:
                said = [f"{change.kind} {change.key}" for change in heard]
                expect(False, f"not heard within {self.hear_seconds:.0f} s; heard {said}")
            self.flush()
            batch = stream.poll(0.5)
            heard += batch.changes
            stream.acknowledge(batch)
        return heard

    def close(self) -> None:
        store = self.store()
        for bucket, token in self._made:
            with contextlib.suppress(CrossloadError):
                if token:
                    self.open().remove(token)
                for info in list(store.list(bucket)):
                    store.delete(bucket, info.key)
                store.remove_bucket(bucket)
        self._made.clear()


CHANGES = Collection[ChangesBench]()
case = CHANGES.case


def _about(heard: list[Change], key: str, kind: str = "") -> list[Change]:
    return [change for change in heard if change.key == key and kind in ("", change.kind)]


@case
def write_is_heard(bench: ChangesBench) -> None:
    """A new object is told as created, with a time near to now and, where they are told, its size and etag."""
    store, bucket, stream = bench.stream()
    info = store.write(bucket, "doc", b"hello", _PLAIN)
    (change, *_) = _about(bench.hear(stream, lambda heard: bool(_about(heard, "doc"))), "doc")
    expect_equal(change.kind, CREATED, "kind")
    expect(change.at is None or abs(change.at - time.time()) < 120, f"a change of just now is told at {change.at}")
    expect(change.size_bytes in (None, 5), f"size of five bytes told as {change.size_bytes}")
    expect(change.etag in ("", info.etag), f"etag {change.etag!r}, but the store says {info.etag!r}")
    if bench.tells_etags:
        expect_equal(change.etag, store.head(bucket, "doc")[0].etag, "etag")


@case
def overwrite_and_removal_are_heard(bench: ChangesBench) -> None:
    """Replaced bytes are told again, and a removal as removed, with no etag and nothing to carry."""
    store, bucket, stream = bench.stream()
    store.write(bucket, "doc", b"one", _PLAIN)
    bench.hear(stream, lambda heard: bool(_about(heard, "doc")))
    new = store.write(bucket, "doc", b"two, longer", _PLAIN)
    heard = bench.hear(stream, lambda heard: bool(_about(heard, "doc", CREATED)))
    if bench.tells_etags:
        expect(new.etag in {change.etag for change in heard}, f"the new etag {new.etag} is not among {heard}")
    store.delete(bucket, "doc")
    heard = bench.hear(stream, lambda heard: bool(_about(heard, "doc", REMOVED)))
    gone = _about(heard, "doc", REMOVED)[0]
    expect_equal((gone.etag, gone.size_bytes), ("", 0), "etag and size of a removal")


@case
def keys_come_as_they_are(bench: ChangesBench) -> None:
    """Keys are given as the store lists them, however they travelled."""
    store, bucket, stream = bench.stream()
    for key in bench.awkward:
        store.write(bucket, key, b"x", _PLAIN)
    listed = {info.key for info in store.list(bucket)}
    heard = bench.hear(stream, lambda heard: listed <= {change.key for change in heard})
    for change in heard:
        # A reading too many costs one look; a reading that is missing costs the hint.
        expect(change.kind == CREATED, f"{change.key!r} told as {change.kind}")


@case
def sequence_orders_changes_of_one_key(bench: ChangesBench) -> None:
    """Where a sequence is told, plain text order is the order in which one key changed."""
    store, bucket, stream = bench.stream()
    store.write(bucket, "doc", b"x", _PLAIN)
    heard = _about(bench.hear(stream, lambda heard: bool(_about(heard, "doc"))), "doc")
    if not heard[0].sequence:
        raise NotOffered("this source tells no sequence")
    for number in range(2, 12):
        store.write(bucket, "doc", b"x" * number, _PLAIN)
        bench.flush()
    store.delete(bucket, "doc")
    heard += _about(bench.hear(stream, lambda heard: bool(_about(heard, "doc", REMOVED))), "doc")
    expect(all(change.sequence for change in heard), "some changes have a sequence and some have none")
    ordered = sorted(heard, key=lambda change: change.sequence)
    expect_equal(ordered[-1].kind, REMOVED, "the last by sequence")
    sizes = [change.size_bytes for change in ordered if change.kind == CREATED and change.size_bytes is not None]
    expect_equal(sizes, sorted(sizes), "sizes in order of sequence")


@case
def only_the_prefix_is_told(bench: ChangesBench) -> None:
    """Keys outside the prefix are left out, also when the prefix has letters that a filter would have to encode."""
    for prefix in ("in/", "in side+/"):
        store, bucket, stream = bench.stream(prefix)
        for key in ("outside", f"{prefix}one", "inn"):
            store.write(bucket, key, b"x", _PLAIN)
        heard = bench.hear(stream, lambda heard, at=prefix: bool(_about(heard, f"{at}one")))
        bench.flush()
        heard += stream.poll(0).changes
        expect_equal({change.key for change in heard}, {f"{prefix}one"}, "keys told")


@case
def what_is_not_acknowledged_comes_again(bench: ChangesBench) -> None:
    """Killed after a poll and before it was acknowledged, whoever follows then hears the same."""
    if bench.again_seconds > 60:
        raise NotOffered(f"messages stay hidden for {bench.again_seconds:.0f} s")
    store, bucket, token = bench.ensured()
    stream = bench.open().follow(bucket, "", token)
    bench.flush()
    before = stream.poll(0)
    stream.acknowledge(before)
    store.write(bucket, "doc", b"x", _PLAIN)
    until = time.monotonic() + bench.hear_seconds
    lost = Batch()
    while not lost.changes and time.monotonic() < until:
        bench.flush()
        lost = stream.poll(0.5)
    expect(bool(lost.changes), "nothing was heard")
    time.sleep(bench.again_seconds)
    again = bench.open().follow(bucket, "", token, before.cursor)
    bench.hear(again, lambda heard: bool(_about(heard, "doc")))


@case
def what_is_acknowledged_does_not_come_again(bench: ChangesBench) -> None:
    """After it was acknowledged, a hint is not told to whoever goes on at the cursor."""
    store, bucket, token = bench.ensured()
    stream = bench.open().follow(bucket, "", token)
    store.write(bucket, "doc", b"x", _PLAIN)
    until = time.monotonic() + bench.hear_seconds
    batch = Batch()
    while not batch.changes and time.monotonic() < until:
        bench.flush()
        batch = stream.poll(0.5)
        stream.acknowledge(batch)
    expect(bool(batch.changes), "nothing was heard")
    bench.flush()
    expect_equal(stream.poll(0).changes, (), "told again to the same follower")
    if not batch.cursor:
        time.sleep(min(bench.again_seconds, 5.0))
        expect_equal(bench.open().follow(bucket, "", token).poll(0).changes, (), "told again to the next follower")


@case
def silence_ends_in_time(bench: ChangesBench) -> None:
    """A poll of a bucket where nothing happens gives an empty batch, after about the time it was told to wait."""
    _, _, stream = bench.stream()
    bench.flush()
    first = stream.poll(0)
    stream.acknowledge(first)
    start = time.monotonic()
    batch = stream.poll(1.0)
    took = time.monotonic() - start
    stream.acknowledge(batch)
    expect_equal(batch.changes, (), "changes")
    expect(took < 8.0, f"a wait of 1 s took {took:.1f} s")


@case
def ensure_may_happen_twice(bench: ChangesBench) -> None:
    """The same bucket and owner give the same stream, and a change is not told twice because of it."""
    store, bucket, token = bench.ensured()
    changes = bench.open()
    again = changes.ensure(bucket, "", "conformance")
    stream = changes.follow(bucket, "", token)
    changes.follow(bucket, "", again)
    store.write(bucket, "doc", b"x", _PLAIN)
    heard = bench.hear(stream, lambda heard: bool(_about(heard, "doc")))
    bench.flush()
    heard += stream.poll(1.0).changes
    expect_equal(len({(change.key, change.sequence) for change in heard}), 1, "different changes heard")
    expect_equal(len(heard), 1, "times the change was told")


@case
def two_owners_do_not_take_from_each_other(bench: ChangesBench) -> None:
    """Two followers of one bucket each hear everything, and removing one leaves the other."""
    store, bucket, one = bench.ensured(owner="one")
    try:
        two = bench.open().ensure(bucket, "", "two")
    except Invalid as error:
        expect(bool(error.hint), "a second follower is refused without a hint")
        raise NotOffered(str(error)) from error
    streams = [bench.open().follow(bucket, "", token) for token in (one, two)]
    store.write(bucket, "doc", b"x", _PLAIN)
    for stream in streams:
        bench.hear(stream, lambda heard: bool(_about(heard, "doc")))
    bench.open().remove(two)
    store.write(bucket, "later", b"x", _PLAIN)
    bench.hear(streams[0], lambda heard: bool(_about(heard, "later")))


@case
def remove_may_happen_twice(bench: ChangesBench) -> None:
    """Removing a stream twice, and after its bucket is gone, is silent."""
    store, bucket, token = bench.ensured()
    changes = bench.open()
    changes.remove(token)
    changes.remove(token)
    again = changes.ensure(bucket, "", "conformance")
    for info in list(store.list(bucket)):
        store.delete(bucket, info.key)
    store.remove_bucket(bucket)
    changes.remove(again)


@case
def removed_stream_says_so(bench: ChangesBench) -> None:
    """Following a stream whose set-up is gone raises NotFound, not silence that looks like nothing happening."""
    _, bucket, token = bench.ensured()
    if not token or "from" in token:
        raise NotOffered("this source sets nothing up")
    stream = bench.open().follow(bucket, "", token)
    bench.open().remove(token)
    try:
        stream.poll(0)
    except NotFound as error:
        expect(bool(error.hint), "NotFound without a hint what to do")
        return
    expect(False, "a poll of a removed stream went through")


CASES: tuple[Case[ChangesBench], ...] = tuple(CHANGES.cases)
