"""Codecs without I/O: any split of the bytes gives the same events; what we emit, the official SDK understands."""

from __future__ import annotations

import itertools
import json
import random
from typing import Any

import botocore.session
import orjson
import pytest
from botocore.eventstream import EventStreamBuffer
from botocore.validate import ParamValidator
from hypothesis import given
from hypothesis import strategies as st

from crossload.engines.gateway import wire as wires
from crossload.engines.gateway.errors import CODES
from crossload.engines.gateway.ir import (
    CallArgs,
    CallStart,
    Event,
    Failure,
    Request,
    Start,
    Stop,
    Text,
    Think,
    Usage,
    collect,
)
from crossload.engines.gateway.wire import chat, converse
from crossload.engines.gateway.wire.frames import EventStreamReader, FrameBroken, SseReader, event_frame, sse

REQUEST = Request(model="m", turns=(), include_usage=True)
texts = st.text(min_size=1, max_size=12)


@st.composite
def answers(draw: st.DrawFn) -> list[Event]:
    """An answer as a model gives it: thinking, text, then calls one after the other."""
    events: list[Event] = [Start("")]
    events += [Think(text) for text in draw(st.lists(texts, max_size=2))]
    events += [Text(text) for text in draw(st.lists(texts, max_size=5))]
    for block in range(draw(st.integers(0, 3))):
        events.append(CallStart(block, f"c{block}", draw(st.sampled_from(("f", "g")))))
        arguments = json.dumps({"x": draw(texts)})
        cut = draw(st.integers(1, len(arguments)))
        events += [CallArgs(block, piece) for piece in (arguments[:cut], arguments[cut:]) if piece]
    events.append(Stop(draw(st.sampled_from(("stop", "length", "tool", "filter"))), "x"))
    events.append(Usage(draw(st.integers(5, 99)), draw(st.integers(0, 99)), 3))
    return events


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


def whole(events: list[Event]) -> Any:
    found = collect(events)
    return found.text, found.thinking, [(call.name, call.arguments) for call in found.calls], found.stop, found.usage


@pytest.mark.parametrize("name", wires.NAMES)
@given(events=answers(), cuts=st.lists(st.integers(0, 10_000), max_size=25))
def test_any_split_gives_the_same_events_and_back(name: str, events: list[Event], cuts: list[int]) -> None:
    module = wires.wire(name)
    encoder = module.encoder(REQUEST, "id")
    data = encoder.feed(events) + encoder.end(1.0)
    once = module.decoder().feed(data)
    decoder = module.decoder()
    pieces = [event for piece in split(data, cuts) for event in decoder.feed(piece)]
    assert pieces == once
    assert decoder.finished
    wanted, found = whole(events), whole(once)
    assert found[:3] == wanted[:3]
    assert found[3].reason == wanted[3].reason
    assert found[4][:3] == wanted[4][:3]


@given(events=answers())
def test_every_byte_alone(events: list[Event]) -> None:
    for name in wires.NAMES:
        module = wires.wire(name)
        encoder = module.encoder(REQUEST, "id")
        data = encoder.feed(events) + encoder.end(1.0)
        decoder = module.decoder()
        assert [e for at in range(len(data)) for e in decoder.feed(data[at : at + 1])] == module.decoder().feed(data)


@given(st.lists(st.text(alphabet=st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=20)),
       st.sampled_from(("\n", "\r\n", "\r")), st.lists(st.integers(0, 10_000), max_size=20))  # fmt: skip
def test_sse_line_ends_and_splits(values: list[str], end: str, cuts: list[int]) -> None:
    data = "".join(f": note{end}event: x{end}data: {value}{end}{end}" for value in values).encode()
    reader = SseReader()
    assert [item.decode() for piece in split(data, cuts) for item in reader.feed(piece)] == values


def test_sse_joins_data_lines() -> None:
    assert SseReader().feed(b"data: a\ndata:b\n\n") == [b"a\nb"]
    assert sse(b"x") == b"data: x\n\n"


@given(st.binary(max_size=300))
def test_decoders_never_raise_on_rubbish(data: bytes) -> None:
    for name in wires.NAMES:
        for event in wires.wire(name).decoder().feed(data):
            assert event is not None


@given(events=answers(), at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_in_a_binary_frame_never_passes(events: list[Event], at: int, bit: int) -> None:
    encoder = converse.encoder(REQUEST, "id")
    data = bytearray(encoder.feed(events) + encoder.end(1.0))
    good = converse.decoder().feed(bytes(data))
    data[at % len(data)] ^= 1 << bit
    found = converse.decoder().feed(bytes(data))
    assert found != good
    assert found == good[: len(found)] or isinstance(found[-1], Failure)


def test_official_decoder_reads_our_frames_and_we_read_binary_headers() -> None:
    data = event_frame("contentBlockDelta", b'{"a":"\xc3\xa4"}') + event_frame("other", b"")
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    found = list(buffer)
    assert [item.headers[":event-type"] for item in found] == ["contentBlockDelta", "other"]
    assert found[0].payload == b'{"a":"\xc3\xa4"}'
    ours = EventStreamReader().feed(data)
    assert ours[0].headers == found[0].headers
    with pytest.raises(FrameBroken):
        EventStreamReader().feed(b"\x00" * 16)


@given(events=answers())
def test_whole_answers_cross_every_wire(events: list[Event]) -> None:
    for name in wires.NAMES:
        module = wires.wire(name)
        body = module.render_response(collect(events), REQUEST, "id", 0.5)
        found, wanted = whole(module.parse_response(body)), whole(events)
        assert found[:2] == wanted[:2]
        assert [json.loads(call[1]) for call in found[2]] == [json.loads(call[1]) for call in wanted[2]]
        assert found[4][:3] == wanted[4][:3]


def test_interleaved_calls_come_out_one_block_after_the_other() -> None:
    events: list[Event] = [
        Start(""), CallStart(0, "a", "f"), CallStart(1, "b", "g"), CallArgs(0, '{"x"'), CallArgs(1, '{"y"'),
        CallArgs(0, ":1}"), CallArgs(1, ":2}"), Stop("tool", "x"),
    ]  # fmt: skip
    encoder = converse.encoder(REQUEST, "id")
    data = b"".join(encoder.feed([event]) for event in events)
    frames = EventStreamReader().feed(data)
    kinds = [frame.headers[":event-type"] for frame in frames]
    assert kinds.count("contentBlockStart") == kinds.count("contentBlockStop") == 2
    assert [call.arguments for call in collect(converse.decoder().feed(data)).calls] == ['{"x":1}', '{"y":2}']


@pytest.mark.parametrize("name", wires.NAMES)
def test_a_cut_answer_never_looks_finished(name: str) -> None:
    module = wires.wire(name)
    encoder = module.encoder(REQUEST, "id")
    data = encoder.feed([Start(""), Text("half")]) + encoder.end(1.0)
    events = module.decoder().feed(data)
    assert isinstance(events[-1], Failure)
    assert b"[DONE]" not in data


def test_unknown_usage_stays_unknown() -> None:
    for name in wires.NAMES:
        module = wires.wire(name)
        answer = collect([Start(""), Text("x"), Stop("stop", "x"), Usage(None, None)])
        assert b'sage":' not in module.render_response(answer, REQUEST, "id", 0.1).replace(b'"message":', b"")
        encoder = module.encoder(REQUEST, "id")
        data = encoder.feed([Start(""), Text("x"), Stop("stop", "x"), Usage(None, None)]) + encoder.end(0.1)
        assert not [event for event in module.decoder().feed(data) if isinstance(event, Usage)]


def test_what_we_send_fits_the_official_service_model() -> None:
    model = botocore.session.get_session().get_service_model("bedrock-runtime")
    shape = model.operation_model("Converse").input_shape
    body = {
        "model": "m", "max_completion_tokens": 5, "temperature": 0.1, "top_p": 0.9, "stop": "END", "seed": 3,
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "tools": [
            {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
        ],
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}},
        "messages": [
            {"role": "developer", "content": "sys"},
            {"role": "user", "content": [{"type": "text", "text": "t"},
                                         {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}]},
            {"role": "assistant", "content": None,
             "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                            {"id": "2", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}]},
            {"role": "tool", "tool_call_id": "1", "content": "one"},
            {"role": "tool", "tool_call_id": "2", "content": "two"},
        ],
    }  # fmt: skip
    request = chat.parse_request(orjson.dumps(body), "", False)
    outgoing = converse.build_request(request, "vendor.model-v1:0")
    sent = orjson.loads(outgoing.body)
    assert outgoing.path == "/model/vendor.model-v1%3A0/converse"
    assert outgoing.losses == ()
    sent["messages"][0]["content"][1]["image"]["source"]["bytes"] = b"ABC"  # the SDK's validator wants bytes
    report = ParamValidator().validate({"modelId": "m", **sent}, shape)
    assert not report.has_errors(), report.generate_report()
    assert [block["toolResult"]["toolUseId"] for block in sent["messages"][2]["content"]] == ["1", "2"]
    back = converse.parse_request(outgoing.body, "m", False)
    assert orjson.loads(chat.build_request(back, "m").body)["messages"][-2:] == body["messages"][-2:]


BAD_BODIES = [
    b"", b"null", b"[]", b"{", b'"x"', b"{}", b'{"messages":[]}', b'{"model":"m","messages":"x"}',
    b'{"model":"m","messages":[1]}', b'{"model":"m","messages":[{"role":"alien","content":"x"}]}',
    b'{"model":"m","messages":[{"role":"user","content":3}]}',
    b'{"model":1,"messages":[{"role":"user","content":"x"}]}',
    b'{"model":"m","messages":[{"role":"user","content":"x"}],"tools":7}',
    b'{"model":"m","messages":[{"role":"user","content":"x"}],"max_tokens":"many"}',
    b'{"model":"m","messages":[{"role":"user","content":"x"}],"tool_choice":[]}',
    b'{"messages":[{"role":"user","content":[{"toolUse":1}]}]}',
    b'{"messages":[{"role":"user","content":[{"video":{}}]}]}',
    b'{"messages":[{"role":"user","content":[{"text":"x"}]}],"toolConfig":{"tools":[{"toolSpec":{}}]}}',
]  # fmt: skip


@pytest.mark.parametrize("name", wires.NAMES)
@pytest.mark.parametrize("body", BAD_BODIES)
def test_bad_requests_are_gateway_errors(name: str, body: bytes) -> None:
    from crossload.engines.gateway.errors import GatewayError
    from crossload.engines.gateway.flow import error_answer, parse

    module = wires.wire(name)
    try:
        parse(module, body, "m", False)
    except GatewayError as error:
        answer = error_answer(module, error.code, error.message, error.param)
        assert 400 <= answer.status < 500
        assert json.loads(answer.body)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                        st.sampled_from(("messages", "role", "content", "tools", "text", "type", "toolConfig", "model",
                                         "function", "system", "inferenceConfig", "tool_calls", "image")),
                        inner, max_size=4), max_leaves=12))  # fmt: skip
def test_no_json_whatsoever_trips_a_parser(value: Any) -> None:
    from crossload.engines.gateway.errors import GatewayError
    from crossload.engines.gateway.flow import parse

    for name in wires.NAMES:
        for body in (
            value,
            {"model": "m", "messages": [value]},
            {"model": "m", "messages": [{"role": "user", "content": value}]},
        ):
            try:
                parse(wires.wire(name), orjson.dumps(body), "m", False)
            except GatewayError as error:
                assert error.code in CODES
            except orjson.JSONEncodeError:
                continue


def test_seeded_shuffle_of_everything_survives_the_round_trip() -> None:
    """Chat -> converse -> chat keeps turns, tools and limits for a thousand made-up conversations."""
    rng = random.Random(7)
    for _ in range(1000):
        messages: list[dict[str, Any]] = []
        for turn in range(rng.randrange(1, 5)):
            messages.append({"role": "user", "content": f"q{turn}"})
            messages.append({"role": "assistant", "content": f"a{turn}"})
        messages.append({"role": "user", "content": "last"})
        body = {"model": "m", "messages": messages, "max_tokens": rng.randrange(1, 99), "temperature": 0.5}
        request = chat.parse_request(orjson.dumps(body), "", False)
        back = converse.parse_request(converse.build_request(request, "m").body, "m", False)
        assert back.turns == request.turns
        assert orjson.loads(chat.build_request(back, "m").body) == body
