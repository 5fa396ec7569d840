"""The fact diff on the pairs that embeddings get wrong."""

from __future__ import annotations

import pytest

from crossload.engines.traffic.compare import contract, reply_differences
from crossload.engines.traffic.facts import differences
from crossload.ports.models import ChatReply, ChatRequest, ToolCall, ToolSpec

SAME = [
    ("Refunds take 5 business days.", "Refunds take about five working days."),
    ("The capital of France is Paris.", "Paris."),
    ("due March 3, 2027", "due 2027-03-03"),
    ("It costs $5 in 1,000 shops.", "In 1000 shops it costs 5 dollars."),
    ("It is 20 km away", "20 kilometres away"),
]
DIFFERENT = [
    ("It takes 5 days", "It takes 15 days", "numbers"),
    ("The parcel will arrive.", "The parcel will not arrive.", "negated"),
    ("The parcel will arrive.", "The parcel won't arrive.", "negated"),
    ("Set timeout=30", "Set timeout=300", "code"),
    ("due 3 March 2027", "due 3 May 2027", "dates"),
    ("Take 5 mg a day", "Take 50 mg a day", "numbers"),
    ("Take 5 mg a day", "Take 5 g a day", "numbers"),
    ("The capital is Paris.", "I'm sorry, but I can't help with that.", "refusal"),
    ("order AB12-7 is late", "order AB12-8 is late", "ids"),
    ("see https://a.example/x.", "see https://a.example/y.", "addresses"),
    ("use `x = 1`", "use `x = 2`", "code"),
    ("at 3.5 %", "at 35 %", "numbers"),
]


@pytest.mark.parametrize(("first", "second"), SAME)
def test_same_facts_in_other_words(first: str, second: str) -> None:
    assert differences(first, second) == ()


@pytest.mark.parametrize(("first", "second", "kind"), DIFFERENT)
def test_a_changed_fact_is_named(first: str, second: str, kind: str) -> None:
    assert kind in differences(first, second)
    assert differences(first, second) == differences(second, first)


def reply(text: str, finish: str = "stop", calls: tuple[ToolCall, ...] = (), tokens: int | None = 3) -> ChatReply:
    return ChatReply(text, finish, 5, tokens, 0.1, tool_calls=calls)


def test_contract() -> None:
    plain = ChatRequest.ask("hi", max_tokens=4)
    assert contract(reply("yes"), plain) == ()
    assert contract(reply("  "), plain) == ("empty",)
    assert contract(reply("x", tokens=9), plain) == ("too-many-tokens",)
    assert contract(reply("x", tokens=None), plain) == ()
    wants = ChatRequest.ask("hi", response_schema={"type": "object"})
    assert contract(reply("{not json"), wants) == ("json",)
    assert contract(reply("{not fin", "length"), wants) == ()  # cut off, and said so
    tool = ToolSpec("f", "", {"type": "object"})
    call = ChatRequest.ask("hi", tools=(tool,))
    assert contract(reply("", "tool", (ToolCall("1", "g", "{"),)), call) == ("unknown-tool", "tool-arguments")


def test_json_and_tool_calls_are_compared_as_values() -> None:
    wants = ChatRequest.ask("hi", response_schema={"type": "object"})
    assert reply_differences(reply('{"a":1,"b":2}'), reply('{ "b":2, "a":1 }'), wants) == ()
    assert reply_differences(reply('{"a":1}'), reply('{"a":2}'), wants) == ("json",)
    one = reply("", "tool", (ToolCall("1", "f", '{"a": 1}'),))
    other = reply("", "tool", (ToolCall("9", "f", '{"a":1}'),))
    assert reply_differences(one, other, wants) == ()
    assert "tools" in reply_differences(one, reply("", "tool", (ToolCall("1", "f", '{"a": 2}'),)), wants)
