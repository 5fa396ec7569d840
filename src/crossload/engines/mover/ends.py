"""The two ends of a move: what lies where, that neither lies in the other, and which move a folder is kept for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from crossload.estate.whole import write_whole
from crossload.ports.errors import AccessDenied, Invalid, NotFound, Refused
from crossload.ports.rooted import RootedStore
from crossload.ports.store import Store

_RECORD = "move.json"
_OWN = ".crossload"  # what lies below this in a folder is no object of it


class Meter:
    """Hears of every byte that is about to leave one end; `to` is who counts them, nobody at first."""

    def __init__(self) -> None:
        self.to: Callable[[int], None] | None = None

    def count(self, size_bytes: int) -> None:
        if self.to is not None:
            self.to(size_bytes)


@dataclass(frozen=True, slots=True)
class End:
    """One end of a move as it was addressed: `key` is a prefix or an object's name, "" the whole bucket. `reach` is how
    it is reached: the provider and its settings as they are written. `meter` counts what is read there."""

    store: Store
    bucket: str
    key: str
    address: str
    reach: tuple[str, ...] = ()
    meter: Meter = field(default_factory=Meter)

    @property
    def uri(self) -> str:
        return self.store.uri(self.bucket, self.key).rstrip("/")

    def at(self, single: str) -> str:
        """The prefix that everything moved lies under; `single` is the name of the one object that is moved."""
        if single and f"/{self.key}".endswith(f"/{single}"):
            return self.key.removesuffix(single)
        return self.key if not self.key or self.key.endswith("/") else f"{self.key}/"

    def rooted(self, single: str) -> RootedStore:
        return RootedStore(self.store, self.bucket, self.at(single), single)

    def single(self) -> str:
        """The name of the object this address means; "" for a prefix, whose slash may be left out."""
        if not self.key or self.key.endswith("/"):
            return ""
        try:
            self.store.head(self.bucket, self.key)
        except NotFound:
            return ""
        return self.key.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Pair:
    """Both ends, opened at what is moved. `label` stands for the bucket in messages."""

    source: RootedStore
    target: RootedStore
    from_end: End
    to_end: End
    single: str

    @property
    def label(self) -> str:
        return self.to_end.bucket


def refuse_overlap(pair: Pair) -> None:
    """Raises Refused when one end lies in the other, since every pass would find the copies of the pass before."""
    source, target = _folder_of(pair.source), _folder_of(pair.target)
    if pair.single:
        apart = source != target
    else:
        apart = not (source.startswith(target) or target.startswith(source))
    if apart or not _one_store(pair, source):
        return
    if source == target:
        raise Refused(f"{pair.from_end.address} and {pair.to_end.address} are the same place", hint="nothing to move")
    raise Refused(
        f"{pair.from_end.address} and {pair.to_end.address} lie one in the other",
        hint="every pass would find what the pass before has written; choose a target beside the source",
    )


def refuse_state_inside(folder: Path, *ends: End) -> None:
    """Raises Refused when the move's own folder would be an object of what it moves."""
    for end in ends:
        top = Path(end.store.uri(end.bucket))
        if not top.is_absolute():
            continue
        here = folder.resolve()
        if here.is_relative_to(top) and here.relative_to(top).parts[:1] != (_OWN,):
            raise Refused(f"the move keeps what it knows in {folder}, inside {end.address}", hint="--state elsewhere")


def _folder_of(store: RootedStore) -> str:
    return store.uri("").rstrip("/") + "/"


def _one_store(pair: Pair, uri: str) -> bool:
    """Whether addresses that overlap mean one store: two servers may well have a bucket of one name each."""
    source, target = pair.from_end, pair.to_end
    if "://" not in uri or source.reach == target.reach:
        return True
    first = next(iter(pair.source.list("")), None)
    if first is None:
        return False
    key = source.at(pair.single) + first.key
    try:
        here, there = source.store.head(source.bucket, key)[0], target.store.head(source.bucket, key)[0]
    except (NotFound, AccessDenied):
        return False
    return (here.etag, here.size_bytes, here.modified_at) == (there.etag, there.size_bytes, there.modified_at)


@dataclass(frozen=True, slots=True)
class Record:
    """Which move a folder is kept for. Objects that another move has brought would count as gone at this source.
    `finished`: everything had arrived, and no pass was begun since that did not end."""

    source: str
    target: str
    single: str
    source_reach: list[str]
    target_reach: list[str]
    finished: bool = False

    @classmethod
    def of(cls, pair: Pair, *, finished: bool) -> Record:
        source, target = pair.from_end, pair.to_end
        return cls(source.uri, target.uri, pair.single, _plain(source), _plain(target), finished)

    @classmethod
    def read(cls, folder: Path) -> Record | None:
        """None when nothing was moved from here yet. Raises Invalid for a file that is not ours."""
        path = folder / _RECORD
        try:
            return cls(**json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (TypeError, ValueError) as error:
            hint = "give this move a --state of its own"
            raise Invalid(f"{path} is not what a move wrote: {error}", hint=hint) from error

    def write(self, folder: Path) -> None:
        write_whole(folder / _RECORD, json.dumps(asdict(self), indent=1), durable=True)

    def expect(self, source: End, target: End, folder: Path, *, chosen: bool) -> None:
        """Raises Refused unless this folder belongs to a move between these ends. Other settings may mean other
        places, unless the folder was `chosen` by its user."""
        other = bool(self.single) and source.key.endswith("/")  # then a folder is meant, and no object
        if other or (self.source, self.target) != (source.uri, target.uri):
            raise Refused(
                f"{folder} belongs to the move from {self.source} to {self.target}",
                hint="give every move a --state of its own",
            )
        if not chosen and (self.source_reach, self.target_reach) != (_plain(source), _plain(target)):
            raise Refused(
                "a move between these addresses was begun with other settings: they may mean other places",
                hint=f"if they mean the same, go on with --state {folder}; if not, give this move a --state of its own",
            )


def forget_record(folder: Path) -> None:
    (folder / _RECORD).unlink(missing_ok=True)


def _plain(end: End) -> list[str]:
    """Without the variants for other identities: those are other people at the same place."""
    return [text for text in end.reach if "@" not in text.partition("=")[0]]
