"""The Bedrock Converse wire (and ConverseStream), as the official SDKs speak it.

Source: the SDK's service model `bedrock-runtime`, which the tests hold our requests and answers against."""

from crossload.engines.gateway.wire.converse.answer import parse_error, parse_response, render_error, render_response
from crossload.engines.gateway.wire.converse.request import add_parameters, build_request, parse_request, relay_request
from crossload.engines.gateway.wire.converse.stream import decoder, encoder, tail_events
from crossload.engines.gateway.wire.frames import EVENT_STREAM_TYPE as STREAM_TYPE

NAME = "converse"

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
