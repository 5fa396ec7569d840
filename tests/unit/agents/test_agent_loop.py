"""The loop: what it asks the model, what it calls, when it stops. Decisions: what counts as one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import jsonschema
import pytest

from crossload.engines.agents import AgentFile, Call, ToolResult, check_tools, export, run
from crossload.engines.agents.decide import decision_schema, name_key, read_decision
from crossload.ports.agents import AgentDefinition, AgentTool
from crossload.ports.errors import Unavailable
from crossload.ports.models import ChatReply, ChatRequest, Message, ToolCall, ToolSpec

STATUS = {"type": "object", "properties": {"order_id": {"type": "integer"}}, "required": ["order_id"]}
CANCEL = {
    "type": "object",
    "properties": {"order_id": {"type": "integer"}, "reason": {"type": "string", "enum": ["late", "other"]}},
    "required": ["order_id"],
}
DEFINITION = AgentDefinition(
    "helpdesk", "a", "n", "m", "You are the helpdesk.",
    tools=(AgentTool("order_status", "Status.", STATUS), AgentTool("cancel", "Cancels.", CANCEL, confirm=True)),
    generation={"max_tokens": 16},
)  # fmt: skip
AGENT: AgentFile = export(DEFINITION)[0]
ASKED = [Message("user", "Where is order 7?")]


class Scripted:
    """A model that says what it is told, and remembers what it was asked."""

    def __init__(self, *texts: str, calls: tuple[tuple[ToolCall, ...], ...] = ()) -> None:
        self.texts = list(texts)
        self.calls = list(calls)
        self.asked: list[ChatRequest] = []

    def __call__(self, request: ChatRequest) -> ChatReply:
        self.asked.append(request)
        calls = self.calls.pop(0) if self.calls else ()
        return ChatReply(self.texts.pop(0), "stop", 10, 5, 0.01, tool_calls=calls)


class Orders:
    def __init__(self, *, failed: bool = False) -> None:
        self.called: list[tuple[str, Mapping[str, Any]]] = []
        self.failed = failed

    def specs(self) -> tuple[ToolSpec, ...]:
        return (ToolSpec("order_status", "", STATUS), ToolSpec("cancel", "", CANCEL))

    def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        self.called.append((name, arguments))
        return ToolResult('{"status": "shipped"}', self.failed)


def test_one_call_then_the_answer() -> None:
    model = Scripted('{"tool": "order_status", "order_id": 7}', '{"tool": "none", "answer": "It is on its way."}')
    tools = Orders()
    talk = run(AGENT, model, tools, ASKED)
    assert (talk.finish, talk.answer) == ("answer", "It is on its way.")
    assert talk.calls == (Call("order_status", {"order_id": 7}),)
    assert tools.called == [("order_status", {"order_id": 7})]
    assert talk.to_json()["input_tokens"] == 20


def test_nothing_is_left_to_chance() -> None:
    model = Scripted('{"tool": "order_status", "order_id": 7}', '{"tool": "none", "answer": "x"}')
    run(AGENT, model, Orders(), ASKED, first="tool")
    for request in model.asked:
        assert request.temperature == 0.0
        assert request.cache is False
        assert request.max_tokens == 96  # the agent's 16 would cut a decision in the middle
        assert request.response_schema is not None
    first, second = (json.dumps(request.response_schema) for request in model.asked)
    assert '"none"' not in first
    assert '"none"' in second


def test_the_next_turn_shows_the_call_in_one_spelling_and_its_result() -> None:
    answers = ('{\n "order_id" : 7,\n "tool":"order_status"}', '{"tool":"order_status","order_id":7}')
    shown = []
    for answer in answers:
        model = Scripted(answer, '{"tool": "none", "answer": "x"}')
        run(AGENT, model, Orders(), ASKED)
        shown.append(model.asked[1].messages)
    assert shown[0] == shown[1]
    assert [message.role for message in shown[0]] == ["user", "assistant", "user"]
    assert shown[0][2].content == 'order_status answered: {"status": "shipped"}'


def test_a_failed_tool_is_told_to_the_model() -> None:
    model = Scripted('{"tool": "order_status", "order_id": 7}', '{"tool": "none", "answer": "Sorry."}')
    talk = run(AGENT, model, Orders(failed=True), ASKED)
    assert model.asked[1].messages[-1].content.startswith("order_status failed:")
    assert talk.finish == "answer"


def test_turns_are_bounded() -> None:
    model = Scripted(*['{"tool": "order_status", "order_id": 7}'] * 5)
    talk = run(AGENT, model, Orders(), ASKED, turns_max=3)
    assert (talk.finish, len(talk.calls), len(model.asked)) == ("turns", 3, 3)


@pytest.mark.parametrize(
    "text",
    [
        "I am sorry for your loss.",
        '{"tool": "order_status"}',
        '{"tool": "fly", "to": "Mars"}',
        '{"tool": "order_st',
        "",
    ],
)
def test_no_decision_is_said_and_calls_nothing(text: str) -> None:
    tools = Orders()
    talk = run(AGENT, Scripted(text), tools, ASKED)
    assert (talk.finish, talk.calls, tools.called) == ("undecided", (), [])
    assert talk.turns[0].decision.problem


def test_a_call_that_needs_confirmation_waits_for_it() -> None:
    wish = '{"tool": "cancel", "order_id": 7, "reason": "late"}'
    tools = Orders()
    assert run(AGENT, Scripted(wish), tools, ASKED).finish == "refused"
    assert run(AGENT, Scripted(wish), tools, ASKED, confirm=lambda _: False).finish == "refused"
    assert tools.called == []
    model = Scripted(wish, '{"tool": "none", "answer": "Done."}')
    assert run(AGENT, model, tools, ASKED, confirm=lambda call: call.tool == "cancel").finish == "answer"
    assert tools.called == [("cancel", {"order_id": 7, "reason": "late"})]


def test_a_lost_tool_server_is_an_error_not_an_answer() -> None:
    class Gone(Orders):
        def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
            raise Unavailable("the server is gone")

    with pytest.raises(Unavailable):
        run(AGENT, Scripted('{"tool": "order_status", "order_id": 7}'), Gone(), ASKED)


def test_native_tool_calls() -> None:
    wish = ToolCall("id-1", "order_status", '{"order_id": 7}')
    model = Scripted("", "It is on its way.", calls=((wish,), ()))
    talk = run(AGENT, model, Orders(), ASKED, style="native", first="tool")
    assert talk.calls == (Call("order_status", {"order_id": 7}),)
    assert (talk.finish, talk.answer) == ("answer", "It is on its way.")
    assert [request.tool_choice for request in model.asked] == ["any", "auto"]
    assert model.asked[0].response_schema is None
    assert [tool.name for tool in model.asked[0].tools] == ["order_status", "cancel"]
    said, shown = model.asked[1].messages[-2:]
    assert said.tool_calls == (wish,)
    assert (shown.role, shown.tool_call_id) == ("tool", "id-1")


@pytest.mark.parametrize(("arguments", "problem"), [("", "is missing"), ("{}", "is missing"), ("not json", "no JSON")])
def test_native_arguments_that_make_no_sense(arguments: str, problem: str) -> None:
    model = Scripted("", calls=((ToolCall("1", "order_status", arguments),),))
    talk = run(AGENT, model, Orders(), ASKED, style="native")
    assert talk.finish == "undecided"
    assert problem in talk.turns[0].decision.problem


def test_the_schema_takes_exactly_what_is_a_decision() -> None:
    schema = decision_schema(AGENT.tools, may_answer=True)
    good = [{"tool": "order_status", "order_id": 1}, {"tool": "cancel", "order_id": 1}, {"tool": "none", "answer": "x"}]
    bad = [
        {"tool": "order_status"},
        {"tool": "none"},
        {"tool": "cancel", "order_id": "1"},
        {"order_id": 1},
        {"tool": "x"},
    ]
    for value in good:
        jsonschema.validate(value, schema)
        assert not read_decision(json.dumps(value), AGENT.tools).problem
    for value in bad:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(value, schema)
        assert read_decision(json.dumps(value), AGENT.tools).problem
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"tool": "none", "answer": "x"}, decision_schema(AGENT.tools, may_answer=False))


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"order_id": True}, "no integer"),
        ({"order_id": 1.5}, "no integer"),
        ({"order_id": 1, "colour": "red"}, "unknown"),
        ({"order_id": 1, "reason": "bored"}, "none of"),
    ],
)
def test_wrong_arguments(value: dict, problem: str) -> None:
    assert problem in read_decision(json.dumps({"tool": "cancel", **value}), AGENT.tools).problem


def test_text_around_the_decision_does_no_harm() -> None:
    decision = read_decision('Sure!\n```json\n{"tool": "order_status", "order_id": 7}\n```', AGENT.tools)
    assert decision.call == Call("order_status", {"order_id": 7})


def test_a_parameter_called_tool_does_not_hide_the_tools_name() -> None:
    spec = ToolSpec("pick", "", {"properties": {"tool": {"type": "string"}}, "required": ["tool"]})
    assert name_key([spec]) == "_tool"
    assert read_decision('{"_tool": "pick", "tool": "hammer"}', [spec]).call == Call("pick", {"tool": "hammer"})


def test_the_file_and_the_server_are_compared() -> None:
    class Other(Orders):
        def specs(self) -> tuple[ToolSpec, ...]:
            text = {"type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]}
            return (ToolSpec("order_status", "", text),)

    assert check_tools(AGENT, Orders()) == []
    losses = check_tools(AGENT, Other())
    assert [(loss.severity, loss.path) for loss in losses] == [
        ("lossy", "tools/order_status"),
        ("blocker", "tools/cancel"),
    ]
    assert "order_id: integer" in losses[0].why
    assert "order_id: string" in losses[0].why


def test_unknown_token_counts_stay_unknown() -> None:
    model = Scripted('{"tool": "order_status", "order_id": 7}', '{"tool": "none", "answer": "x"}')

    def silent(request: ChatRequest) -> ChatReply:
        reply = model(request)
        return dataclasses.replace(reply, input_tokens=None) if len(model.asked) == 2 else reply

    assert run(AGENT, silent, Orders(), ASKED).to_json()["input_tokens"] is None
