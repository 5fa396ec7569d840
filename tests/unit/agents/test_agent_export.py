"""From a definition to a neutral file: every loss named, the same bytes every time."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import yaml

from crossload.engines.agents import AgentFile, ToolServer, check, export, load, loaded, server_in, worst
from crossload.engines.agents.file import inputs_of, parameters_of
from crossload.estate.diagnostic import errors_in
from crossload.ports.agents import AgentDefinition, AgentTool, Loss
from crossload.ports.errors import Invalid

PARAMETERS = {
    "type": "object",
    "properties": {
        "order_id": {"type": "integer", "description": "four digits"},
        "language": {"type": "string", "enum": ["en", "de"], "description": "of the answer"},
        "tags": {"type": "array"},
    },
    "required": ["order_id"],
}
DEFINITION = AgentDefinition(
    name="helpdesk",
    place="a",
    native="native:agent/1",
    model="some-model:0",
    instructions="You are the helpdesk.",
    description="Orders.",
    version="DRAFT",
    idle_seconds=900,
    tools=(AgentTool("order_status", "Status of one order.", PARAMETERS, confirm=True, group="orders"),),
    generation={"temperature": 0.0, "top_p": 1.0, "max_tokens": 64, "top_k": 40},
    prompts={"orchestration": "$instruction$"},
    guardrail={"name": "g", "blocked_words": ["x"]},
    memory={"kinds": ["SESSION_SUMMARY"], "days": 30},
    knowledge=({"name": "manual", "index": "docs_index"},),
    identity={"role": "native:role/app"},
    collaborators=({"name": "billing", "instruction": "ask it about money", "native": "native:alias/2"},),
    losses=(Loss("degraded", "version", "the draft was read", "compare"),),
)
SERVER = ToolServer("python", ("mcp_server.py",), {"HELPDESK_ORDERS_TABLE": "env:ORDERS"})


def test_every_loss_is_named_worst_first() -> None:
    _, losses = export(DEFINITION)
    found = [(loss.severity, loss.path) for loss in losses]
    assert found == [
        ("blocker", "collaborators/billing"),
        ("degraded", "generation/top_k"),
        ("degraded", "model"),
        ("degraded", "prompts/orchestration"),
        ("degraded", "tools/order_status"),
        ("degraded", "version"),
        ("sidecar", "guardrail"),
        ("sidecar", "identity"),
        ("sidecar", "idle_seconds"),
        ("sidecar", "knowledge/manual"),
        ("sidecar", "memory"),
    ]
    assert all(loss.why and loss.fix for loss in losses)
    assert worst(losses) == "blocker"


def test_what_has_no_word_in_the_format_is_in_the_sidecar() -> None:
    file, _ = export(DEFINITION)
    assert file.sidecar["guardrail"] == {"name": "g", "blocked_words": ["x"]}
    assert file.sidecar["memory"]["days"] == 30
    assert file.sidecar["knowledge"][0]["index"] == "docs_index"
    assert file.sidecar["identity"] == {"role": "native:role/app"}
    assert file.sidecar["origin"] == {"place": "a", "native": "native:agent/1", "version": "DRAFT"}


@pytest.mark.parametrize(
    ("executor", "severity"),
    [("function", "degraded"), ("http", "degraded"), ("builtin", "blocker"), ("caller", "degraded")],
)
def test_a_tool_without_a_server_is_a_loss_and_with_one_is_not(executor: str, severity: str) -> None:
    tool = dataclasses.replace(DEFINITION.tools[0], executor=executor, native="native:function/f")
    definition = dataclasses.replace(DEFINITION, tools=(tool,))
    _, losses = export(definition)
    assert [loss.severity for loss in losses if loss.path == "tools/order_status"] == [severity]
    for key in ("order_status", "orders", "*"):
        file, losses = export(definition, {key: SERVER})
        assert not [loss for loss in losses if loss.path.startswith("tools/")]
        assert server_in(file, "order_status") == SERVER


def test_braces_in_the_instructions_are_a_loss() -> None:
    _, losses = export(dataclasses.replace(DEFINITION, instructions="Say {{name}}."))
    assert ("lossy", "instructions") in {(loss.severity, loss.path) for loss in losses}


def test_a_bare_agent_loses_only_its_models_name() -> None:
    bare = AgentDefinition("a", "p", "n", "m", "Answer.")
    file, losses = export(bare)
    assert [loss.path for loss in losses] == ["model"]
    assert file.tools == ()
    assert file.generation == {}


def test_the_same_definition_gives_the_same_file_in_both_spellings(tmp_path: Path) -> None:
    one, other = export(DEFINITION, {"*": SERVER})[0], export(DEFINITION, {"*": SERVER})[0]
    assert one.to_text() == other.to_text()
    for name in ("agent.json", "agent.yaml"):
        one.save(tmp_path / name)
        assert load(tmp_path / name).digest == one.digest
        assert load(tmp_path / name).tools == one.tools
    assert yaml.safe_load((tmp_path / "agent.yaml").read_text()) == json.loads((tmp_path / "agent.json").read_text())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["agent.json", "agent.yaml"]


def test_parameters_survive_the_formats_list_of_properties() -> None:
    back = parameters_of(inputs_of(PARAMETERS))
    assert back["properties"] == PARAMETERS["properties"]
    assert back["required"] == ["order_id"]
    file, _ = export(DEFINITION)
    assert file.tools[0].schema["properties"] == PARAMETERS["properties"]
    assert file.needs_confirmation("order_status")
    assert not file.needs_confirmation("other")


def test_two_tools_of_one_name_cannot_be_a_file() -> None:
    with pytest.raises(Invalid, match="given twice"):
        export(dataclasses.replace(DEFINITION, tools=DEFINITION.tools * 2))


def broken(**changes: object) -> dict:
    document = json.loads(export(DEFINITION)[0].to_text())
    return {**document, **changes}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"component_type": "Swarm"}, "XL651"),
        ({"agentspec_version": "1.0"}, "XL652"),
        ({"guardrails": []}, "XL653"),
        ({"$referenced_components": {"x": {}}}, "XL654"),
        ({"system_prompt": ""}, "XL655"),
        ({"llm_config": {}}, "XL656"),
        ({"llm_config": {"model_id": "m", "api_key": "sk-1"}}, "XL657"),
        ({"tools": {}}, "XL660"),
        ({"tools": [{}]}, "XL661"),
        ({"tools": [{"name": "t", "component_type": "BuiltinTool"}]}, "XL662"),
        ({"tools": [{"name": "t", "component_type": "ServerTool", "inputs": [{"type": "string"}]}]}, "XL664"),
    ],
)
def test_each_problem_has_its_code(changes: dict, code: str) -> None:
    assert [item.code for item in errors_in(check(broken(**changes)))] == [code]


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(Invalid) as caught:
        loaded(broken(component_type="Flow", system_prompt="", colour="red"))
    assert str(caught.value).count(";") == 2
    assert not errors_in(check(broken(inputs=[{"title": "x"}], toolboxes=[{}])))
    assert {item.code for item in check(broken(inputs=[{"title": "x"}], toolboxes=[{}]))} == {"XL658", "XL659"}


def test_what_is_no_mapping_or_no_text_is_refused(tmp_path: Path) -> None:
    for text, words in (("[1]", "not a mapping"), ("a: b: c", "neither JSON nor YAML")):
        (tmp_path / "agent.yaml").write_text(text)
        with pytest.raises(Invalid, match=words):
            load(tmp_path / "agent.yaml")
    with pytest.raises(Invalid, match="No such file"):
        load(tmp_path / "none.json")


def test_a_loss_of_an_unknown_severity_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="severity"):
        Loss("bad", "x", "y", "z")


def test_an_agent_file_is_used_without_its_definition() -> None:
    file = AgentFile(json.loads(export(DEFINITION)[0].to_text()))
    assert (file.name, file.model, file.instructions) == ("helpdesk", "some-model:0", "You are the helpdesk.")
    assert file.generation["max_tokens"] == 64
