"""The neutral words that both halves of a generated adapter speak: the source-shaped front and the target's back.

Pieces of this module are copied into the application that is converted, so nothing here may import another room."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Protocol


class Trouble(Exception):
    """What went wrong at the target, in one neutral word.

    `kind`: absent (no such object), no-place (no such bucket or model), denied, unsigned, changed, throttled, invalid,
    unavailable, unreachable. `status` is the HTTP status, 0 when there was none."""

    def __init__(self, kind: str, message: str, status: int = 0, endpoint: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.status = status
        self.endpoint = endpoint


@dataclass(frozen=True, slots=True)
class Stored:
    """One object as the target describes it. `md5_hex` is "" where it keeps none; `modified_at` is epoch seconds."""

    key: str
    size_bytes: int
    md5_hex: str
    version: str
    modified_at: float
    content_type: str
    content_encoding: str
    content_language: str
    content_disposition: str
    cache_control: str
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Headers:
    """What is written beside the bytes; empty fields are left to the target."""

    content_type: str = ""
    content_encoding: str = ""
    content_language: str = ""
    content_disposition: str = ""
    cache_control: str = ""
    metadata: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing: objects, common prefixes, and the token of the next page ("" at the end)."""

    objects: list[Stored]
    prefixes: list[str]
    next_token: str


@dataclass(frozen=True, slots=True)
class Question:
    """One request to a language model: turns are (role, text); None leaves a setting to the server."""

    model: str
    system: str
    turns: list[tuple[str, str]]
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: list[str] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """`finish` is stop | length | filtered; token counts are None when the server does not tell."""

    text: str
    finish: str
    input_tokens: int | None
    output_tokens: int | None
    seconds: float


class Objects(Protocol):
    """What a target must offer for objects. Every method raises Trouble."""

    def read_object(self, bucket: str, key: str, start: int, length: int | None) -> tuple[Stored, BinaryIO, int]:
        """The description, a stream of bytes [start, start+length), and how many bytes the stream holds.

        A negative `start` counts from the end."""
        ...

    def write_object(self, bucket: str, key: str, data: bytes | BinaryIO, headers: Headers) -> Stored: ...
    def describe_object(self, bucket: str, key: str) -> Stored: ...
    def remove_object(self, bucket: str, key: str) -> None:
        """Silent when it is not there."""
        ...

    def duplicate_object(self, bucket: str, key: str, to_bucket: str, to_key: str) -> Stored: ...
    def list_page(self, bucket: str, prefix: str, delimiter: str, after: str, token: str, count: int) -> Page: ...


class Chat(Protocol):
    """What a target must offer for language models. Every method raises Trouble."""

    def ask(self, question: Question) -> Answer: ...
    def ask_stream(self, question: Question) -> Iterator[str | Answer]:
        """Pieces of text, then one Answer with the whole text and the counts."""
        ...
