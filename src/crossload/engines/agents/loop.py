"""Our own thin agent loop: ask the model, call the tool, show the result, until there is an answer.

Built to compare two models, so nothing in it is left to chance: greedy decoding, no prompt cache (a cached prefix can
change greedy answers), a bounded number of turns, and a record of every call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from crossload.engines.agents.decide import NO_TOOL, Call, Decision, decision_schema, name_key, read_call, read_decision
from crossload.engines.agents.file import AgentFile
from crossload.engines.agents.tools import ToolResult, ToolSession
from crossload.estate.digest import canonical_json
from crossload.ports.models import ChatReply, ChatRequest, Message, ToolCall, ToolSpec

Complete = Callable[[ChatRequest], ChatReply]
Confirm = Callable[[Call], bool]

TURNS_MAX = 4
DECISION_TOKENS_MAX = 96


@dataclass(frozen=True, slots=True)
class Turn:
    """One question to the model and what came of it. `result` is None unless a tool was called."""

    decision: Decision
    result: ToolResult | None
    input_tokens: int | None
    output_tokens: int | None
    latency_seconds: float
    losses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Conversation:
    """`finish` is answer | turns (the limit was reached) | undecided (the model's text was no decision) | refused (a
    call that needs confirmation was not confirmed)."""

    finish: str
    answer: str
    turns: tuple[Turn, ...]

    @property
    def calls(self) -> tuple[Call, ...]:
        """Every call the model decided on, in order, refused ones included."""
        return tuple(turn.decision.call for turn in self.turns if turn.decision.call is not None)

    def to_json(self) -> dict[str, Any]:
        return {
            "finish": self.finish,
            "answer": self.answer,
            "calls": [call.to_json() for call in self.calls],
            "problems": [turn.decision.problem for turn in self.turns if turn.decision.problem],
            "input_tokens": _total([turn.input_tokens for turn in self.turns]),
            "output_tokens": _total([turn.output_tokens for turn in self.turns]),
        }


def run(
    agent: AgentFile,
    complete: Complete,
    tools: ToolSession,
    messages: Sequence[Message],
    *,
    first: str = "auto",
    style: str = "schema",
    turns_max: int = TURNS_MAX,
    confirm: Confirm | None = None,
) -> Conversation:
    """Carry one conversation on until the agent answers. `messages` ends with the user's.

    `first`: `auto` lets the model choose, `tool` makes its first decision a call, which is what models too small to
    choose need. `style`: `schema` asks for JSON that fits the decision schema, `native` uses the endpoint's own tool
    calls. The tools offered are the file's; one whose call `requires_confirmation` runs only when `confirm` says yes.
    Errors of `complete` and Unavailable of the tools pass through."""
    offered = agent.tools
    ask = _ask_native if style == "native" else _ask_schema
    history = list(messages)
    turns: list[Turn] = []
    for number in range(turns_max):
        must_call = first == "tool" and number == 0 and bool(offered)
        decision, reply = ask(agent, complete, offered, history, must_call)
        if decision.call is None:
            turns.append(_turn(decision, None, reply))
            finish = "answer" if decision.answer is not None else "undecided"
            return Conversation(finish, decision.answer or "", tuple(turns))
        if agent.needs_confirmation(decision.call.tool) and not (confirm is not None and confirm(decision.call)):
            turns.append(_turn(decision, None, reply))
            return Conversation("refused", "", tuple(turns))
        result = tools.call(decision.call.tool, decision.call.arguments)
        turns.append(_turn(decision, result, reply))
        history += _shown(style, offered, decision.call, reply, result)
    return Conversation("turns", "", tuple(turns))


def _turn(decision: Decision, result: ToolResult | None, reply: ChatReply) -> Turn:
    return Turn(decision, result, reply.input_tokens, reply.output_tokens, reply.latency_seconds, reply.losses)


def _ask_schema(
    agent: AgentFile, complete: Complete, offered: Sequence[ToolSpec], history: list[Message], must_call: bool
) -> tuple[Decision, ChatReply]:
    system = agent.instructions if must_call else f"{agent.instructions}\n{_listing(offered)}".strip()
    schema = decision_schema(offered, may_answer=not must_call)
    reply = complete(_request(agent, history, system=system, response_schema=schema))
    return read_decision(reply.text, offered), reply


def _ask_native(
    agent: AgentFile, complete: Complete, offered: Sequence[ToolSpec], history: list[Message], must_call: bool
) -> tuple[Decision, ChatReply]:
    choice = "any" if must_call else "auto"
    reply = complete(_request(agent, history, system=agent.instructions, tools=tuple(offered), tool_choice=choice))
    if not reply.tool_calls:
        text = reply.text.strip()
        return (
            Decision(reply.text, answer=text) if text else Decision(reply.text, problem="neither text nor a call")
        ), reply
    # One call a turn: a model that asks for two gets the first, and asks again when it has seen the result.
    wanted = reply.tool_calls[0]
    return read_call(wanted.name, wanted.arguments, offered), reply


def _request(agent: AgentFile, history: list[Message], **more: Any) -> ChatRequest:
    limit = agent.generation.get("max_tokens")
    return ChatRequest(
        tuple(history),
        # A decision cut in the middle is no decision: the agent's own limit is for answers, and may be smaller.
        max_tokens=max(int(limit), DECISION_TOKENS_MAX) if limit else DECISION_TOKENS_MAX,
        temperature=0.0,
        cache=False,
        **more,
    )


def _listing(offered: Sequence[ToolSpec]) -> str:
    key = name_key(offered)
    lines = [f"- {tool.name}({', '.join(tool.schema.get('properties', {}))}): {tool.description}" for tool in offered]
    if not lines:
        return ""
    return "\n".join(
        [
            "Tools:",
            *lines,
            f'Answer with JSON. To answer the customer: {{"{key}": "{NO_TOOL}", "answer": your sentence}}.',
        ]
    )


def _shown(
    style: str, offered: Sequence[ToolSpec], call: Call, reply: ChatReply, result: ToolResult
) -> tuple[Message, Message]:
    """The call and its result, as the model sees them in the next turn."""
    if style == "native":
        held = reply.tool_calls[0]
        said = Message("assistant", reply.text, tool_calls=(ToolCall(held.id, held.name, held.arguments),))
        return said, Message("tool", result.text, tool_call_id=held.id, failed=result.failed)
    # One spelling of the call, not the model's own: two models that call alike then see the same next turn.
    text = canonical_json({name_key(offered): call.tool, **call.arguments}).decode()
    verb = "failed" if result.failed else "answered"
    return Message("assistant", text), Message("user", f"{call.tool} {verb}: {result.text}")


def _total(counts: list[int | None]) -> int | None:
    """Unknown as soon as one is: a partial sum would read like a full one."""
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None
