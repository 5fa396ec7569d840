"""Step 6, portability: the moved model serves at the target, a gateway stands in front of both, agents are neutral."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crossload.engines import agents
from crossload.engines.agents import ToolServer
from crossload.engines.gateway.control import backend_settings
from crossload.engines.gateway.gguf import parse_gguf
from crossload.engines.gateway.lock import ModelLock, Pin, pin_of, write_lock
from crossload.engines.gateway.managed import ManagedGateway
from crossload.estate.asset import Asset, Kind
from crossload.estate.diagnostic import Diagnostic
from crossload.estate.digest import sha256_of
from crossload.estate.evidence import Outcome
from crossload.estate.migration import Migration
from crossload.ports.errors import CrossloadError, Invalid
from crossload.ports.models import ChatRequest, Models
from crossload.ports.world import World
from crossload.steps.step import Facts, Planned, Step

NAME = "portability"
SERVABLE = ("gguf", "safetensors")
_CANARY = "Answer with one word: what colour is a clear sky?"


def plan(migration: Migration, facts: Facts) -> Planned:
    """Deploy what was moved, then the gateway, then the agents."""
    steps: list[Step] = []
    diagnostics: list[Diagnostic] = []
    for endpoint in facts.inventory.of(Kind.ENDPOINT):
        target = facts.choices.get(endpoint.id)
        if target is None:
            continue
        model = _model_behind(endpoint, facts)
        after: tuple[str, ...] = ()
        if model is None:
            diagnostics.append(
                Diagnostic.warning(
                    "XL601", "no model artifact is known behind this endpoint: nothing is deployed at the target",
                    subject=endpoint.id, hint="the target's endpoint must already serve an equivalent model",
                )
            )  # fmt: skip
        else:
            after = (f"{NAME}/deploy/{endpoint.id}",)
            steps.append(_deploy_step(endpoint, model, target))
        params = {"source": endpoint.place, "target": target, "model": model.id if model else ""}
        steps.append(
            Step(
                f"{NAME}/gateway/{endpoint.id}", NAME, "gateway", endpoint.id,
                "put the gateway in front of both endpoints, all traffic at the source", params, after,
                undo="stop the gateway", risk="medium", wave=2,
            )
        )  # fmt: skip
    steps += [_agent_step(agent, facts) for agent in facts.inventory.of(Kind.AGENT) if agent.id in facts.choices]
    return Planned(tuple(steps), tuple(diagnostics))


def _agent_step(agent: Asset, facts: Facts) -> Step:
    endpoints = [item.id for item in facts.inventory.of(Kind.ENDPOINT) if item.id in facts.choices]
    params = {"source": agent.place, "target": facts.choices[agent.id], "name": agent.name}
    return Step(
        f"{NAME}/agent/{agent.id}", NAME, "agent", agent.id, "export to a neutral file, rehearse on both models",
        params, tuple(f"{NAME}/deploy/{item}" for item in endpoints), undo="remove the neutral file", wave=3,
    )  # fmt: skip


def _model_behind(endpoint: Asset, facts: Facts) -> Asset | None:
    """The artifact that an edge names; only a person or the provider knows what an endpoint serves."""
    for edge in facts.inventory.edges:
        if edge.source == endpoint.id and edge.relation in ("serves", "built-from"):
            model = facts.inventory.get(edge.target)
            return model if model is not None and model.fact("format") in SERVABLE else None
    return None


def _deploy_step(endpoint: Asset, model: Asset, target: str) -> Step:
    params = {"target": target, "model": model.id, "bucket": model.fact("bucket"), "key": model.fact("key"),
              "name": model.name}  # fmt: skip
    return Step(
        f"{NAME}/deploy/{endpoint.id}", NAME, "deploy", endpoint.id,
        f"serve {model.id} at {target} from the moved bytes", params,
        (f"transfer/copy/{model.id}",), undo="unload the model at the target", wave=2,
    )  # fmt: skip


def perform(step: Step, world: World) -> Outcome:
    verbs = {"deploy": _deploy, "gateway": _start_gateway, "agent": _port_agent}
    return verbs[step.action](step, world)


def verify(step: Step, world: World) -> Outcome:
    verbs = {"deploy": _verify_deploy, "gateway": _verify_gateway, "agent": _verify_agent}
    return verbs[step.action](step, world)


def undo(step: Step, world: World) -> Outcome:
    if step.action == "deploy":
        if (world.outcome(step.id) or {}).get("served_before_us"):
            return Outcome.done(f"{step.params['name']} stays: it was served before we came")
        world.models(step.params["target"]).undeploy(step.params["name"])
        return Outcome.done(f"unloaded {step.params['name']} at {step.params['target']}")
    if step.action == "agent":
        _agent_path(step, world).unlink(missing_ok=True)
        return Outcome.done("removed the neutral agent file")
    stopped = _gateway(world).stop()
    return Outcome.done("stopped the gateway" if stopped else "the gateway was stopped already")


def _deploy(step: Step, world: World) -> Outcome:
    """The host pulls the artifact from the target's own bucket and must find the digest we moved."""
    models = world.models(step.params["target"])
    digest = _moved_digest(step, world)
    uri = world.store(step.params["target"]).uri(step.params["bucket"], step.params["key"])
    before = models.deployed(step.params["name"])
    began = time.monotonic()
    found = models.deploy(step.params["name"], uri, digest)
    data: dict[str, Any] = {"uri": found.uri or uri, "digest": found.digest or "unknown", "state": found.state}
    if found.state != "ready":
        return Outcome.failed(f"{step.params['name']} is {found.state}: {found.reason}", **data)
    reply = models.complete(ChatRequest.ask(_CANARY, max_tokens=8, temperature=0.0, cache=False))
    data |= {"answer_tokens": reply.output_tokens, "latency_seconds": round(reply.latency_seconds, 3),
             "start_seconds": round(time.monotonic() - began, 3)}  # fmt: skip
    words = f"{step.params['name']} serves from {uri}, {digest[:23]}…, answered {reply.output_tokens} token(s)"
    same = before.state == "ready" and before.digest == found.digest
    data["served_before_us"] = same and (world.outcome(step.id) or {}).get("served_before_us", True)
    return Outcome.unchanged(words, **data) if same else Outcome.done(words, **data)


def _moved_digest(step: Step, world: World) -> str:
    moved = world.outcome(f"transfer/copy/{step.params['model']}") or {}
    return f"sha256:{moved['sha256']}"


def _verify_deploy(step: Step, world: World) -> Outcome:
    found = world.models(step.params["target"]).deployed(step.params["name"])
    wanted = _moved_digest(step, world)
    if found.state != "ready" or (found.digest or wanted) != wanted:
        return Outcome.failed(
            f"{step.params['name']} is {found.state} with {found.digest or 'no digest'}, not {wanted}"
        )
    return Outcome.done(f"{step.params['name']} is ready with {wanted[:23]}…")


def _gateway(world: World) -> ManagedGateway:
    return ManagedGateway(world.workspace / "gateway")


def _start_gateway(step: Step, world: World) -> Outcome:
    source, target = world.models(step.params["source"]), world.models(step.params["target"])
    settings: dict[str, Any] = {
        "host": world.migration.file.gateway.host, "port": world.migration.file.gateway.port,
        "backends": [
            backend_settings("source", source.endpoint()), backend_settings("target", target.endpoint()),
        ],
    }  # fmt: skip
    if world.migration.file.environment:
        settings["environment_file"] = str(world.migration.folder / world.migration.file.environment)
    gateway = _gateway(world)
    found = gateway.start(settings)
    routes = gateway.attach().routes()
    data: dict[str, Any] = {"url": found.url, "pid": found.pid, "weights_percent": routes["weights"]}
    data |= _pin(step, world, source, target)
    words = f"the gateway answers at {found.url}, {routes['weights']['source']} % at the source"
    return Outcome.done(words, **data) if found.started_now else Outcome.unchanged(words, **data)


def _verify_gateway(step: Step, world: World) -> Outcome:
    try:
        routes = _gateway(world).attach().routes()
    except CrossloadError as error:
        return Outcome.failed(f"the gateway does not answer: {error}")
    return Outcome.done(f"the gateway answers, weights {routes['weights']}", weights_percent=routes["weights"])


def _pin(step: Step, world: World, source: Models, target: Models) -> dict[str, Any]:
    """models.lock: what each arm serves, with the digest and the header of the artifact where there is one."""
    pins = [_pin_of_arm("source", source, None)]
    artifact = world.outcome(f"transfer/copy/{step.params['model']}") if step.params["model"] else None
    pins.append(_pin_of_arm("target", target, _artifact(step, world, artifact) if artifact else None))
    path = world.workspace / "models.lock"
    write_lock(path, [ModelLock(step.asset.partition(":")[2], tuple(pins))])
    return {"models_lock_sha256": sha256_of(path.read_bytes()).hex, "pins": [pin.to_json() for pin in pins]}


def _artifact(step: Step, world: World, moved: Mapping[str, Any]) -> dict[str, Any]:
    """Name, digest and header of the artifact as it lies in the target's own bucket."""
    model = world.inventory.get(step.params["model"])
    key, size = (model.fact("key"), model.fact("size_bytes")) if model is not None else ("", None)
    store = world.store(step.params["target"])

    def read(offset: int, length: int) -> bytes:
        return store.read(moved["bucket"], key, offset, max(0, min(length, (size or offset + length) - offset)))

    try:
        info = parse_gguf(read)
    except Invalid:
        info = None  # another format: digest and size still pin it
    return {"info": info, "artifact": f"{moved['bucket']}/{key}", "sha256": moved["sha256"], "size_bytes": size}


def _pin_of_arm(arm: str, models: Models, artifact: Mapping[str, Any] | None) -> Pin:
    endpoint = models.endpoint()
    return pin_of(arm, endpoint.wire, endpoint.model, place=models.place, **(artifact or {}))


def _agent_path(step: Step, world: World) -> Path:
    return world.workspace / NAME / "agents" / f"{step.params['name']}.json"


def _servers(world: World) -> dict[str, ToolServer]:
    """The tools' servers as the migration file names them; `python` is the interpreter that runs us."""
    folder = str(world.migration.folder)
    return {
        name: ToolServer(
            sys.executable if item.command == "python" else item.command,
            tuple(item.arguments),
            item.environment,
            folder,
        )
        for name, item in world.migration.file.agents.tools.items()
    }


def _port_agent(step: Step, world: World) -> Outcome:
    """Export with every loss named; then the same conversations on both models, and their tool calls compared."""
    definition = world.agents(step.params["source"]).definition(step.params["name"])
    agent, losses = agents.export(definition, _servers(world))
    agent.save(_agent_path(step, world))
    data: dict[str, Any] = {
        "file_sha256": sha256_of(_agent_path(step, world).read_bytes()).hex,
        "losses": [loss.to_json() for loss in losses],
    }
    words = f"neutral file with {len(losses)} loss(es) named"
    talks = world.migration.file.agents.conversations
    servers = [server for tool in agent.tools if (server := agents.server_in(agent, tool.name)) is not None]
    if not talks or not servers:
        return Outcome.done(f"{words}; not rehearsed: `agents.tools` and `agents.conversations` name nothing", **data)
    log = world.workspace / NAME / "tools.log"
    with agents.open_tools(servers[0], log=log) as tools:
        gaps = agents.check_tools(agent, tools)
        spoken = agents.read_talks(world.migration.folder / talks)
        verdict = agents.rehearse(
            agent, world.models(step.params["source"]).complete, world.models(step.params["target"]).complete, tools,
            spoken, first="tool", floor_cases=2,
        )  # fmt: skip
    data |= {"tool_gaps": [gap.to_json() for gap in gaps], "rehearsal": verdict.to_json()}
    if not verdict.good:
        return Outcome.refused(f"{words}; {verdict.summary()}", **data)
    return Outcome.done(f"{words}; {verdict.summary()}", **data)


def _verify_agent(step: Step, world: World) -> Outcome:
    path, recorded = _agent_path(step, world), world.outcome(step.id) or {}
    if not path.exists() or sha256_of(path.read_bytes()).hex != recorded.get("file_sha256"):
        return Outcome.failed(f"{path.name} is not the file that was exported")
    problems = agents.check(agents.load(path).document)
    if problems:
        return Outcome.failed("; ".join(str(item) for item in problems))
    return Outcome.done(f"{path.name} is as exported and valid")
