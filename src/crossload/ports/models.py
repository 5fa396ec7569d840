"""The Models port: one model endpoint that answers chat requests, whoever serves it and whatever wire it speaks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool the model may call; `schema` is the JSON Schema of its arguments."""

    name: str
    description: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """`arguments` is the model's own text, normally JSON; nobody has checked it yet."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """`role` is user | assistant | tool. An assistant message may carry `tool_calls`; a tool message answers the call
    `tool_call_id` and `failed` says that the tool itself did not succeed."""

    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    failed: bool = False


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """None leaves a setting to the endpoint's own default.

    `response_schema` asks for an answer that fits this JSON Schema (decoding is constrained where the endpoint can).
    `cache=False` asks for no prompt cache, because a cached prefix can change greedy answers; None does not care.
    `tool_choice` is auto | any | none or the name of one tool."""

    messages: tuple[Message, ...]
    system: str = ""
    max_tokens: int | None = None
    temperature: float | None = None
    seed: int | None = None
    response_schema: Mapping[str, Any] | None = None
    cache: bool | None = None
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: str = "auto"

    @classmethod
    def ask(cls, prompt: str, **settings: Any) -> ChatRequest:
        """One user message; `settings` are the other fields."""
        return cls((Message("user", prompt),), **settings)


@dataclass(frozen=True, slots=True)
class ChatReply:
    """`finish` is stop | length | tool | stopseq | filter | malformed | unknown. Token counts are None when the
    endpoint did not say. `first_token_seconds` is None for an answer that came in one piece. `losses` names what of
    the request this endpoint could not be asked for. `arm` and `failed_over_from` are filled by a gateway: source |
    target, who answered and who could not."""

    text: str
    finish: str
    input_tokens: int | None
    output_tokens: int | None
    latency_seconds: float
    first_token_seconds: float | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    losses: tuple[str, ...] = ()
    arm: str = ""
    failed_over_from: str = ""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """`digest` is `algorithm:hex` of the weights, None when the endpoint does not tell. `wire` is the name of a wire
    codec (chat, converse). `context` is the longest prompt plus answer in tokens, None when unknown."""

    name: str
    digest: str | None
    wire: str
    context: int | None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How a gateway reaches this model. `credentials` maps names to references (`env:`, `file:`), never to values;
    `credential_source` is a `module:function` that turns them into what the wire signs with, "" when a reference is
    used as it is (a bearer key)."""

    wire: str
    base_url: str
    model: str
    credentials: Mapping[str, str] = field(default_factory=dict)
    credential_source: str = ""


@dataclass(frozen=True, slots=True)
class Deployment:
    """`state` is absent | loading | ready | failed. `digest` is what the host says it loaded, None when it does not."""

    name: str
    state: str
    uri: str = ""
    digest: str | None = None
    reason: str = ""


class Models(Protocol):
    """All calls block and are safe from many threads. Errors are those of `ports.errors`; `Unsupported` names what
    the provider can do instead."""

    place: str

    def describe(self) -> ModelInfo: ...
    def endpoint(self) -> Endpoint:
        """Where and how a gateway should call it; holds references only."""
        ...

    def complete(self, request: ChatRequest) -> ChatReply: ...
    def stream(self, request: ChatRequest) -> Iterator[str]:
        """Pieces of the answer's text in order; closing the iterator early hangs up."""
        ...

    def deploy(self, name: str, uri: str, digest: str) -> Deployment:
        """Have the host load the artifact at `uri` and serve it as `name`; repeating it changes nothing.

        `digest` is `sha256:hex`; a host that gets other bytes must refuse them (DigestMismatch)."""
        ...

    def deployed(self, name: str) -> Deployment: ...
    def undeploy(self, name: str) -> None:
        """Silent when it is not there."""
        ...
