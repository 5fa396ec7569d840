"""Step 10, cutover: mirror, drill, ramp, freeze with the last delta, switch; and the way back for traffic and data."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from crossload.engines.gateway.managed import ManagedGateway
from crossload.engines.mover.freezing import freeze, unfreeze
from crossload.engines.mover.options import CopyOptions
from crossload.engines.mover.returning import still_frozen
from crossload.engines.traffic.canary import CanaryPlan, Sent, run_canary, sent
from crossload.engines.traffic.judge import MirrorJudge
from crossload.engines.traffic.keeping import RowKeeper, read_rows
from crossload.engines.traffic.mirror import MirrorPlan, mirror
from crossload.engines.traffic.prompts import read_prompts
from crossload.engines.traffic.recheck import check_record
from crossload.engines.traffic.record import ACCEPT, DecisionRecord, JudgeSettings, Limit, Margins
from crossload.engines.traffic.rows import CanaryRow, MirrorRow
from crossload.estate.asset import Asset, Kind
from crossload.estate.diagnostic import Diagnostic
from crossload.estate.evidence import Outcome
from crossload.estate.migration import Migration
from crossload.ledger.journal import copy_journal
from crossload.ports.models import ChatReply, ChatRequest
from crossload.ports.world import World
from crossload.steps.step import Facts, Planned, Step

NAME = "cutover"
_DRILL_PERCENT = 50
_DRILL_REQUESTS = 12
_NOISE_SHARE = 0.2


def plan(migration: Migration, facts: Facts) -> Planned:
    """Mirror, drill and ramp per endpoint; freeze per dataset; the switch last of all."""
    steps: list[Step] = []
    endpoints = [asset for asset in facts.inventory.of(Kind.ENDPOINT) if asset.id in facts.choices]
    datasets = [asset for asset in facts.inventory.of(Kind.DATASET) if asset.id in facts.choices]
    diagnostics: list[Diagnostic] = []
    if endpoints and not migration.file.cutover.questions:
        hint = "name a JSONL file of your users' prompts under cutover.questions"
        diagnostics.append(Diagnostic.warning("XL901", "the mirror uses general prompts, not yours", hint=hint))
    indexes = [asset for asset in facts.inventory.of(Kind.INDEX) if asset.id in facts.choices]
    # No user is sent to data that is known not to have arrived.
    arrived = tuple(f"transfer/copy/{asset.id}" for asset in datasets)
    arrived += tuple(f"transfer/copy-index/{asset.id}" for asset in indexes)
    for asset in endpoints:
        steps += _endpoint_steps(asset, migration, arrived)
    before = tuple(f"{NAME}/ramp/{asset.id}" for asset in endpoints)
    steps += [_freeze_step(asset, facts.choices[asset.id], before) for asset in datasets]
    frozen = tuple(f"{NAME}/freeze/{asset.id}" for asset in datasets)
    steps += [
        Step(
            f"{NAME}/switch/{asset.id}", NAME, "switch", asset.id, "all traffic to the target", {},
            (f"{NAME}/ramp/{asset.id}", *frozen), undo="all traffic back to the source", risk="high", wave=4,
        )
        for asset in endpoints
    ]  # fmt: skip
    return Planned(tuple(steps), tuple(diagnostics))


def _endpoint_steps(asset: Asset, migration: Migration, arrived: tuple[str, ...]) -> Iterator[Step]:
    rules = migration.file.cutover
    gateway = f"portability/gateway/{asset.id}"
    yield Step(
        f"{NAME}/mirror/{asset.id}", NAME, "mirror", asset.id,
        f"send {rules.mirror_requests} requests to both sides and judge the difference", {},
        (gateway, f"portability/deploy/{asset.id}"), undo="nothing to undo: no user saw the mirror", wave=4,
    )  # fmt: skip
    ready = f"{NAME}/mirror/{asset.id}"
    if rules.drill:
        yield Step(
            f"{NAME}/drill/{asset.id}", NAME, "drill", asset.id, "shift traffic, roll back on purpose, time it",
            {}, (ready, *arrived), undo="nothing to undo: a drill ends where it began", risk="medium", wave=4,
        )  # fmt: skip
        ready = f"{NAME}/drill/{asset.id}"
    shown = ", ".join(f"{weight} %" for weight in rules.canary_weights)
    yield Step(
        f"{NAME}/ramp/{asset.id}", NAME, "ramp", asset.id, f"shift traffic by {shown}; back at once if a goal breaks",
        {}, (ready, *arrived), undo="all traffic back to the source", risk="high", wave=4,
    )  # fmt: skip


def _freeze_step(asset: Asset, target: str, before: tuple[str, ...]) -> Step:
    params = {"source": asset.place, "target": target, "bucket": asset.fact("bucket", asset.name),
              "prefix": asset.fact("prefix", "")}  # fmt: skip
    return Step(
        f"{NAME}/freeze/{asset.id}", NAME, "freeze", asset.id, "deny writes at the source, carry the last delta",
        params,
        (f"transfer/copy/{asset.id}", *before), undo="bring back what was written at the target, then lift the freeze",
        risk="high", wave=4,
    )  # fmt: skip


def perform(step: Step, world: World) -> Outcome:
    if step.action == "mirror":
        return _mirror(step, world)
    if step.action == "drill":
        return _drill(step, world)
    if step.action == "ramp":
        return _ramp(step, world)
    if step.action == "freeze":
        return _freeze(step, world)
    routes = _gateway(world).attach().set_target_percent(100)
    now = [_shifted(100)]
    return Outcome.done("all traffic is at the target", weights_percent=routes["weights"], weights=now)


def verify(step: Step, world: World) -> Outcome:
    """Routes and freeze are looked at again; verdicts are computed again from their stored rows."""
    if step.action in ("mirror", "ramp"):
        return _verify_verdict(step, world)
    if step.action == "drill":
        return Outcome.unchanged("a drill is repeated, not verified")
    if step.action == "freeze":
        return _verify_freeze(step, world)
    weights = _gateway(world).attach().routes()["weights"]
    if weights["target"] != 100:
        return Outcome.failed(f"traffic is not at the target: {weights}", weights_percent=weights)
    return Outcome.done("all traffic is at the target", weights_percent=weights)


def undo(step: Step, world: World) -> Outcome:
    if step.action in ("mirror", "drill"):
        return Outcome.unchanged(step.undo)
    if step.action == "freeze":
        return _unfreeze(step, world)
    began = time.monotonic()
    routes = _gateway(world).attach().set_target_percent(0)
    _rows_path(world, step).unlink(missing_ok=True)
    seconds = round(time.monotonic() - began, 4)
    now = [_shifted(0)]
    words = f"all traffic is at the source, after {seconds * 1000:.0f} ms"
    return Outcome.done(words, weights_percent=routes["weights"], seconds=seconds, weights=now)


def _shifted(percent: float) -> dict[str, float]:
    return {"at": time.time(), "target_percent": percent}


def _gateway(world: World) -> ManagedGateway:
    return ManagedGateway(world.workspace / "gateway")


def _freeze(step: Step, world: World) -> Outcome:
    where, bucket = step.params, step.params["bucket"]
    home = world.outcome(step.id) is not None  # frozen before, and not rolled back: users write at the target
    options = CopyOptions.of(world.migration.file.data, target_is_home=home, users_wait=True)
    with copy_journal(world.workspace, step.asset) as journal:
        report = freeze(
            world.store(where["source"], "freeze"), world.store(where["source"]), world.store(where["target"]), bucket,
            journal, options, where["prefix"],
        )  # fmt: skip
    data = {**report.to_json(), "frozen_at": time.time()}
    if not report.converged:
        named = "; ".join(dict.fromkeys(text for item in report.passes for text in (*item.failures, *item.hot)))
        why = f"not everything could be carried: {named[:500]}" if named else "the source changes faster than we carry"
        return Outcome.failed(f"{why}; the freeze {'stays' if home else 'was lifted'}", **data)
    how = "writes at the source are denied" if report.enforced else f"writers must be stopped by hand ({report.why})"
    return Outcome.done(f"{how}; {report.carried} object(s) in the last delta, then empty twice", **data)


def _verify_freeze(step: Step, world: World) -> Outcome:
    with copy_journal(world.workspace, step.asset) as journal:
        source = world.store(step.params["source"])
        changed = still_frozen(source, step.params["bucket"], journal, step.params["prefix"])
    if changed:
        return Outcome.failed(f"{len(changed)} object(s) changed at the source since: {changed[:5]}", changed=changed)
    return Outcome.done("nothing changed at the source since the freeze")


def _unfreeze(step: Step, world: World) -> Outcome:
    where, bucket = step.params, step.params["bucket"]
    token = (world.outcome(step.id) or {}).get("token", "")
    with copy_journal(world.workspace, step.asset) as journal:
        report = unfreeze(
            world.store(where["source"], "freeze"), world.store(where["source"], "return"),
            world.store(where["target"]), bucket, journal, token, where["prefix"],
        )  # fmt: skip
    words = f"the freeze is lifted; {len(report.returned)} object(s) came back, {len(report.removed)} removed"
    if report.conflicts:
        listed = ", ".join(report.conflicts[:5])
        return Outcome.failed(f"{words}; changed on both sides, left as they are: {listed}", **report.to_json())
    return Outcome.done(words, **report.to_json())


def _rows_path(world: World, step: Step) -> Path:
    return world.workspace / NAME / f"{step.action}-{step.asset.replace(':', '-').replace('/', '-')}.jsonl"


def _settings(world: World) -> JudgeSettings:
    """Margins and hard limits from the goals: what the file calls a success is what the judge holds the target to."""
    wired = world.outcome(f"goals/wire/estate:{world.migration.name}") or {}
    limits = tuple(
        Limit(item["measure"], item["direction"], float(item["at"]))
        for item in wired.get("triggers", ())
        if item["measure"] in ("latency_p95", "error_rate", "answer_agreement")
    )
    goals = {metric.measure: metric for metric in world.migration.file.goals.metrics}
    agreement = 1 - goals["answer_agreement"].limit if "answer_agreement" in goals else None
    errors = goals["error_rate"].rollback_at or goals["error_rate"].limit if "error_rate" in goals else 0.05
    return JudgeSettings(
        limits=limits, noise_share=_NOISE_SHARE,
        # Latency has an absolute goal; a margin against the source would hold the target to a promise nobody made.
        margins=Margins(errors=max(errors, 0.01), latency=None, agreement=max(agreement, 0.01) if agreement else None),
    )  # fmt: skip


def _requests(world: World, count: int) -> list[ChatRequest]:
    name = world.migration.file.cutover.questions
    return read_prompts(world.migration.folder / name if name else None, count)


def _mirror(step: Step, world: World) -> Outcome:
    """Rows are kept as they come, so that a killed mirror goes on where it was."""
    requests = _requests(world, world.migration.file.cutover.mirror_requests)
    client = _gateway(world).client("app")
    path = _rows_path(world, step)
    known = [MirrorRow.from_json(value) for value in read_rows(path)]
    judge = MirrorJudge(_settings(world))
    rows = list(known)
    for row in rows:
        judge.add(row)

    def ask(arm: str) -> Any:
        def call(request: ChatRequest) -> ChatReply:
            return client.complete(request, arm=arm)

        return call

    world.progress.start(step.asset, len(requests), "pairs")
    world.progress.advance(step.asset, len(rows))
    plan_ = MirrorPlan(noise_share=_NOISE_SHARE)
    with RowKeeper(path) as kept_rows:
        for row in mirror(requests, ask("source"), ask("target"), plan_, done=known, stop=lambda: bool(judge.alarm)):
            kept_rows.keep(row.to_json())
            judge.add(row)
            rows.append(row)
            world.progress.advance(step.asset, 1)
    world.progress.finish(step.asset)
    record = judge.record(rows)
    return _decided(record, f"{len(rows)} requests mirrored", step, world)


def _decided(record: DecisionRecord, words: str, step: Step, world: World, **more: Any) -> Outcome:
    agreement = record.noise_floor.get("target_differs_from_source")
    shown = "" if agreement is None else f"; answers agree {1 - agreement:.1%}"
    latency = {
        arm: {name: side.get(f"latency_{name}_seconds") for name in ("p50", "p95")}
        for arm, side in (("source", record.source), ("target", record.target))
    }
    data = {"decision": record.to_json(), "latency": latency, "rows_file": _rows_path(world, step).name, **more}
    text = f"{words}: {record.verdict}{shown}; {'; '.join(record.reasons)}"
    return Outcome.done(text, **data) if record.verdict == ACCEPT else Outcome.refused(text, **data)


def _drill(step: Step, world: World) -> Outcome:
    """Half of the traffic goes over and comes back: rollback is proved before it is needed."""
    gateway = _gateway(world)
    control, client = gateway.attach(), gateway.client("app")
    requests = _requests(world, 2 * _DRILL_REQUESTS)
    history = [_shifted(0)]
    control.set_target_percent(_DRILL_PERCENT)
    history.append(_shifted(_DRILL_PERCENT))
    try:
        away = [client.complete(request).arm for request in requests[:_DRILL_REQUESTS]]
    finally:
        began = time.monotonic()
        control.set_target_percent(0)
        seconds = time.monotonic() - began
    history.append(_shifted(0))
    back = [client.complete(request).arm for request in requests[_DRILL_REQUESTS:]]
    data = {"target_answers_during": away.count("target"), "target_answers_after": back.count("target"),
            "requests": len(requests), "rollback_seconds": round(seconds, 4), "weights": history}  # fmt: skip
    if back.count("target"):
        return Outcome.failed("after the rollback the target still answered", **data)
    words = f"{away.count('target')} of {len(away)} answers came from the target, then none of {len(back)}"
    return Outcome.done(f"{words}; the way back took {seconds * 1000:.0f} ms", **data)


def _ramp(step: Step, world: World) -> Outcome:
    rules = world.migration.file.cutover
    gateway = _gateway(world)
    control, client = gateway.attach(), gateway.client("app")
    ramp = CanaryPlan(tuple(float(weight) for weight in rules.canary_weights), rules.requests_per_weight,
                      settings=_settings(world))  # fmt: skip
    requests = _requests(world, rules.requests_per_weight * len(rules.canary_weights))
    path = _rows_path(world, step)
    known = [CanaryRow.from_json(value) for value in read_rows(path)]
    history: list[dict[str, float]] = []

    def shift(percent: float) -> None:
        control.set_target_percent(percent)
        history.append(_shifted(percent))
        world.progress.say(f"{percent:g} % of the traffic at the target")

    def send(number: int) -> Sent:
        session = f"{world.migration.name}-{number}"
        arm, reply = client.send(requests[number], session=session)
        return sent(requests[number], reply, session, arm)

    world.progress.start(step.asset, len(requests), "requests")
    with RowKeeper(path) as kept_rows:

        def kept(row: CanaryRow) -> None:
            kept_rows.keep(row.to_json())
            world.progress.advance(step.asset, 1)

        record, rows = run_canary(ramp, send, shift, rows=known, keep=kept, mirror=_mirror_record(step, world))
    world.progress.finish(step.asset)
    if record.verdict != ACCEPT:
        control.set_target_percent(0)
        history.append(_shifted(0))
        path.unlink(missing_ok=True)  # a ramp that was taken back begins anew next time
    return _decided(record, f"{len(rows)} requests by weight", step, world, weights=history)


def _mirror_record(step: Step, world: World) -> DecisionRecord | None:
    found = world.outcome(f"{NAME}/mirror/{step.asset}") or {}
    return DecisionRecord.from_json(found["decision"]) if "decision" in found else None


def _verify_verdict(step: Step, world: World) -> Outcome:
    found = world.outcome(step.id) or {}
    if "decision" not in found:
        return Outcome.failed("no decision is recorded")
    record = DecisionRecord.from_json(found["decision"])
    kind = MirrorRow if step.action == "mirror" else CanaryRow
    rows = [kind.from_json(value) for value in read_rows(_rows_path(world, step))]
    wrong = check_record(record, rows)
    if wrong:
        return Outcome.failed(f"the verdict does not follow from its rows: {', '.join(wrong)}", fields=wrong)
    return Outcome.done(f"{record.verdict} follows from its {len(rows)} rows", rows_sha256=record.rows_sha256)
