"""The neutral form of a chat: one request, and one stream of events, that every wire is translated to and from.

Events are named tuples, because one is made per token. Their order is `Start (Text | Think | CallStart CallArgs*)*
Stop Usage?`, or `Failure` at any point after which nothing follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class TextPart(NamedTuple):
    text: str


class ImagePart(NamedTuple):
    """Either `data` (base64) with its `media_type`, or a `url` that the model host would have to fetch."""

    media_type: str
    data: str
    url: str


class CallPart(NamedTuple):
    """`arguments` is JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str


class ResultPart(NamedTuple):
    call_id: str
    text: str
    is_error: bool


Part = TextPart | ImagePart | CallPart | ResultPart


class Turn(NamedTuple):
    """`role` is user or assistant. Tool results are parts of a user turn, all parallel ones in the same turn."""

    role: str
    parts: tuple[Part, ...]


class Tool(NamedTuple):
    name: str
    description: str
    schema: Mapping[str, Any]


class Schema(NamedTuple):
    """The answer must fit this JSON Schema."""

    name: str
    schema: Mapping[str, Any]


class Loss(NamedTuple):
    """Something of the request that the other wire cannot say. `severity` refuse: it would change the meaning."""

    feature: str
    severity: str

    def __str__(self) -> str:
        return f"{self.feature};{self.severity}"


@dataclass(frozen=True, slots=True)
class Request:
    """`extras` holds fields the neutral form has no word for (`name -> value`), so that they are passed or named as
    lost, never forgotten. `tool_choice` is auto | any | none or a tool's name. `input_losses` were found in parsing."""

    model: str
    turns: tuple[Turn, ...]
    system: tuple[str, ...] = ()
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    schema: Schema | None = None
    stream: bool = False
    include_usage: bool = False
    extras: Mapping[str, Any] = field(default_factory=dict)
    input_losses: tuple[Loss, ...] = ()


class Outgoing(NamedTuple):
    """What to send upstream: path (already percent-encoded), body, and what could not be said."""

    path: str
    body: bytes
    losses: tuple[Loss, ...]


class Start(NamedTuple):
    id: str = ""


class Text(NamedTuple):
    text: str


class Think(NamedTuple):
    """Reasoning text. Signatures over it are valid only for their maker and are not carried."""

    text: str


class CallStart(NamedTuple):
    block: int
    id: str
    name: str


class CallArgs(NamedTuple):
    block: int
    text: str


class Stop(NamedTuple):
    """`reason` is stop | length | tool | stopseq | filter | malformed | unknown; `raw` is the wire's own word."""

    reason: str
    raw: str


class Usage(NamedTuple):
    """`input_tokens` includes cached ones (wires differ); None is unknown, never 0."""

    input_tokens: int | None
    output_tokens: int | None
    cached_read: int | None = None
    cached_write: int | None = None


class Failure(NamedTuple):
    """The model host failed after it had begun. `code` is one of `errors.CODES`."""

    code: str
    message: str


# An encoder says it to the client and the meter notes it: without it a cut answer would look like a finished one.
HUNG_UP = Failure("bad_upstream", "the model host hung up before the answer ended")

Event = Start | Text | Think | CallStart | CallArgs | Stop | Usage | Failure


@dataclass(slots=True)
class Collected:
    """A whole answer put together from events."""

    text: str = ""
    thinking: str = ""
    calls: list[CallPart] = field(default_factory=list[CallPart])
    stop: Stop | None = None
    usage: Usage | None = None


def collect(events: list[Event]) -> Collected:
    """Put an answer together. Calls come out in order of their block, whatever order their pieces came in."""
    out = Collected()
    text: list[str] = []
    thinking: list[str] = []
    calls: dict[int, tuple[str, str, list[str]]] = {}
    for event in events:
        if isinstance(event, Text):
            text.append(event.text)
        elif isinstance(event, Think):
            thinking.append(event.text)
        elif isinstance(event, CallStart):
            calls[event.block] = (event.id, event.name, [])
        elif isinstance(event, CallArgs):
            calls.setdefault(event.block, ("", "", []))[2].append(event.text)
        elif isinstance(event, Stop):
            out.stop = event
        elif isinstance(event, Usage):
            out.usage = event
    out.text = "".join(text)
    out.thinking = "".join(thinking)
    out.calls = [CallPart(one[0], one[1], "".join(one[2])) for _, one in sorted(calls.items())]
    return out
