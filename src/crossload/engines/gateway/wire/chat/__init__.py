"""The OpenAI chat-completions wire, as served by OpenAI, llama.cpp, vLLM and many others."""

from crossload.engines.gateway.wire.chat.answer import parse_error, parse_response, render_error, render_response
from crossload.engines.gateway.wire.chat.request import add_parameters, build_request, parse_request, relay_request
from crossload.engines.gateway.wire.chat.stream import decoder, encoder, tail_events
from crossload.engines.gateway.wire.frames import SSE_TYPE as STREAM_TYPE

NAME = "chat"

__all__ = [
    "NAME",
    "STREAM_TYPE",
    "add_parameters",
    "build_request",
    "decoder",
    "encoder",
    "parse_error",
    "parse_request",
    "parse_response",
    "relay_request",
    "render_error",
    "render_response",
    "tail_events",
]
