"""Rehearsals: both sides, the same conversations, and a floor under the verdict."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from crossload.engines.agents import ToolResult, export, read_talks, rehearse
from crossload.ports.agents import AgentDefinition, AgentTool
from crossload.ports.errors import Invalid
from crossload.ports.models import ChatReply, ChatRequest, ToolSpec

STATUS = {"type": "object", "properties": {"order_id": {"type": "integer"}}, "required": ["order_id"]}
AGENT, _ = export(AgentDefinition("a", "p", "n", "m", "x", tools=(AgentTool("order_status", "", STATUS),)))
TALKS = {f"c{number}": f"Where is order {number}?" for number in range(1, 5)}


class Orders:
    def specs(self) -> tuple[ToolSpec, ...]:
        return AGENT.tools

    def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        return ToolResult("{}")


class Model:
    """Reads the number out of the question; `shift` makes it wrong from the `after`-th question on."""

    def __init__(self, shift: int = 0, after: int = 0) -> None:
        self.shift, self.after, self.asked = shift, after, 0

    def __call__(self, request: ChatRequest) -> ChatReply:
        if len(request.messages) > 1:
            return ChatReply('{"tool": "none", "answer": "There."}', "stop", 1, 1, 0.0)
        self.asked += 1
        order = int(re.findall(r"\d+", request.messages[0].content)[0])
        order += self.shift if self.asked > self.after else 0
        return ChatReply(json.dumps({"tool": "order_status", "order_id": order}), "stop", 1, 1, 0.0)


def test_equal_models_pass() -> None:
    heard: list[str] = []
    found = rehearse(AGENT, Model(), Model(), Orders(), TALKS, on_talk=heard.append)
    assert found.good
    assert heard == list(TALKS)
    assert (found.comparison.cases, found.floor.cases if found.floor else 0) == (4, 2)
    assert found.to_json()["source"]["c1"]["calls"] == [{"tool": "order_status", "arguments": {"order_id": 1}}]


def test_a_worse_target_is_refused_and_named() -> None:
    found = rehearse(AGENT, Model(), Model(shift=10, after=2), Orders(), TALKS)
    assert not found.good
    assert (found.comparison.same, found.comparison.cases) == (2, 4)
    assert "c3" in found.summary()


def test_a_source_that_does_not_repeat_itself_proves_nothing() -> None:
    # Its second look at the first question is wrong, and so is all that follows: both sides are wrong alike.
    found = rehearse(AGENT, Model(shift=5, after=1), Model(), Orders(), {"c1": TALKS["c1"]}, floor_cases=1)
    assert found.comparison.equal
    assert not found.good
    assert "does not repeat itself" in found.summary()


def test_a_source_without_decisions_is_told() -> None:
    def mute(_: ChatRequest) -> ChatReply:
        return ChatReply("I am sorry.", "stop", 1, 1, 0.0)

    found = rehearse(AGENT, mute, mute, Orders(), TALKS, floor_cases=0)
    assert found.floor is None
    assert not found.good
    assert "no decision in c1" in found.summary()


def test_talks_are_read_with_the_line_of_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "talks.jsonl"
    path.write_text('{"id": "a", "say": "x", "order_id": 1}\n{"id": "b", "say": "y"}\n')
    assert read_talks(path) == {"a": "x", "b": "y"}
    for text, line in (("{}\n", 1), ('{"id": "a", "say": "x"}\nnope\n', 2), ('{"id": "a", "say": "x"}\n' * 2, 2)):
        path.write_text(text)
        with pytest.raises(Invalid, match=f":{line}:"):
            read_talks(path)
    with pytest.raises(Invalid, match="none"):
        read_talks(tmp_path / "none")
