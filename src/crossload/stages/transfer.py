"""Step 5, transfer: data moves once, then deltas keep it equal until the cutover."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from crossload.engines.mover.bucket import move_bucket, older_versions
from crossload.engines.mover.egress import egress_report
from crossload.engines.mover.history import HistoryReport, carry_history, check_history, undo_history
from crossload.engines.mover.inclusion import SignedFolder
from crossload.engines.mover.losses import history_left
from crossload.engines.mover.manifest import missing_lines, root_of, write_manifest
from crossload.engines.mover.options import CopyOptions, Watcher
from crossload.engines.mover.proof import prove_copy
from crossload.engines.mover.removal import remove_copy
from crossload.engines.mover.signing import origin_of, sign_manifest, signing_key
from crossload.engines.mover.vectors import as_recorded, digest_index, move_index, prove_index, recheck_index
from crossload.engines.planner.placement import market_of
from crossload.estate.asset import Asset, Kind
from crossload.estate.diagnostic import Diagnostic
from crossload.estate.evidence import Outcome
from crossload.estate.migration import Migration
from crossload.estate.quantity import Quantity
from crossload.estate.whole import write_whole
from crossload.ledger.egress import egress_book
from crossload.ledger.journal import copy_folder, copy_journal
from crossload.ports.errors import NotFound, PreconditionFailed
from crossload.ports.metered import metered
from crossload.ports.world import World
from crossload.steps.step import Facts, Planned, Step

NAME = "transfer"
_BUCKET_CREATED = "bucket_created"
# Kinds this version finds, places and compares, and does not carry: said at plan time, never left out in silence.
_NOT_CARRIED = (Kind.QUEUE, Kind.SECRET, Kind.TABLE, Kind.KEY, Kind.FUNCTION)


def plan(migration: Migration, facts: Facts) -> Planned:
    """One copy step per dataset, model artifact and index that has a target."""
    steps: list[Step] = []
    diagnostics: list[Diagnostic] = []
    for asset in facts.inventory.assets:
        if asset.kind in _NOT_CARRIED and asset.id in facts.choices:
            diagnostics.append(
                Diagnostic.warning(
                    "XL502", f"a place is chosen for this {asset.kind}, but its contents are not carried yet",
                    subject=asset.id, hint="bring it over by hand before the cutover; the landing zone has room for it",
                )
            )  # fmt: skip
        if asset.kind not in (Kind.DATASET, Kind.MODEL, Kind.INDEX):
            continue
        target = facts.choices.get(asset.id)
        if target is None:
            diagnostics.append(Diagnostic.note("XL501", "stays where it is: no target was chosen", subject=asset.id))
            continue
        diagnostics += _losses(asset) if migration.file.data.versions == "latest" else []
        after = (f"foundations/access/{asset.id}",)
        params = {"source": asset.place, "target": target, **_location(asset)}
        action = "copy-index" if asset.kind is Kind.INDEX else "copy"
        steps.append(
            Step(
                f"{NAME}/{action}/{asset.id}",
                NAME,
                action,
                asset.id,
                _summary(asset, target),
                params,
                after,
                undo="remove what this step created at the target",
                risk="low",
                wave=1,
            )
        )
    return Planned(tuple(steps), tuple(diagnostics))


def _location(asset: Asset) -> dict[str, Any]:
    if asset.kind is Kind.INDEX:
        return {"table": asset.fact("table", asset.name)}
    # A model artifact is one key of its bucket; a dataset is all keys that are no model artifact's.
    prefix = asset.fact("key", "") if asset.kind is Kind.MODEL else asset.fact("prefix", "")
    return {"bucket": asset.fact("bucket", asset.name), "prefix": prefix}


def _summary(asset: Asset, target: str) -> str:
    if asset.kind is Kind.INDEX:
        return f"copy {asset.fact('rows', 'unknown')} vectors of {asset.id} to {target}"
    size = asset.fact("size_bytes")
    return f"copy {asset.id} ({_mib(size)}) to {target}"


def _mib(size_bytes: int | None) -> str:
    return "unknown size" if size_bytes is None else f"{size_bytes / 2**20:,.1f} MiB"


def _losses(asset: Asset) -> list[Diagnostic]:
    older, markers = asset.fact("older_versions"), asset.fact("delete_markers")
    words = history_left(older, markers)
    if asset.kind is not Kind.DATASET or asset.fact("versioning") in ("off", None) or not words:
        return []
    hint = "the latest version of every object is carried; keep the source bucket for history"
    return [Diagnostic.warning("XL510", words, subject=asset.id, hint=hint)]


def perform(step: Step, world: World) -> Outcome:
    return _perform_index(step, world) if step.action == "copy-index" else _perform_objects(step, world)


def verify(step: Step, world: World) -> Outcome:
    return _verify_index(step, world) if step.action == "copy-index" else _verify_objects(step, world)


def undo(step: Step, world: World) -> Outcome:
    """Remove only what we wrote and nobody has changed since."""
    target = step.params["target"]
    if step.action == "copy-index":
        return _undo_index(step, world)
    store, bucket = world.store(target), step.params["bucket"]
    with copy_journal(world.workspace, step.asset) as journal:
        if world.migration.file.data.versions == "all":
            undo_history(store, bucket, journal, copy_folder(world.workspace, step.asset))
        report = remove_copy(store, bucket, journal, prefix=step.params["prefix"])
        ours = journal.counter(_BUCKET_CREATED) > 0
    if ours and not report.kept:
        try:
            store.remove_bucket(bucket)
        except PreconditionFailed:
            pass  # another copy step's objects, or somebody else's, are still in it
    words = f"removed {report.removed} object(s) at {target}, kept {report.kept} that others wrote or changed"
    return Outcome.done(words, removed=report.removed, kept=report.kept)


def target_is_home(step: Step, world: World) -> bool:
    """Since the cutover, and until its rollback, users write at the target: what differs there is their work."""
    ends = [f"cutover/freeze/{step.asset}"]
    if step.action == "copy-index":  # an index has no freeze of its own: it moves with the traffic
        ends = [f"cutover/switch/{asset.id}" for asset in world.inventory.of(Kind.ENDPOINT)]
    return any(world.outcome(name) is not None for name in ends)


def watcher(world: World, task: str) -> Watcher:
    return Watcher(
        start=lambda objects, size_bytes: world.progress.start(task, size_bytes, "B"),
        moved=lambda objects, size_bytes: world.progress.advance(task, size_bytes),
        say=world.progress.say,
    )


def _perform_objects(step: Step, world: World) -> Outcome:
    """Snapshot or delta: whichever it is, what differs now is brought over."""
    source_place, target_place = step.params["source"], step.params["target"]
    bucket, prefix = step.params["bucket"], step.params["prefix"]
    source, target = world.store(source_place), world.store(target_place)
    home = target_is_home(step, world)
    rules, folder = world.migration.file.data, copy_folder(world.workspace, step.asset)
    with copy_journal(world.workspace, step.asset) as journal:
        if home and not journal.totals():
            return Outcome.refused(
                "users write at the target now, and the journal that tells their objects from ours is gone"
            )
        if target.ensure_bucket(bucket):
            journal.count(_BUCKET_CREATED, 1)  # now, not with the outcome: what follows may fail, and undo must know
            journal.barrier()
        created = journal.counter(_BUCKET_CREATED) > 0
        options, watching = CopyOptions.of(rules, target_is_home=home), watcher(world, step.asset)
        past: HistoryReport | None = None
        with egress_book(world.workspace) as book:
            leaving = metered(source, lambda size_bytes: book.count(source_place, size_bytes))
            if rules.versions == "all" and not home:  # since then the target writes a history of its own
                past = carry_history(
                    leaving, bucket, target, bucket, journal, folder, options, watching, prefix=prefix,
                    may_keep_versions=created,
                )  # fmt: skip
                if past.failures or past.late:
                    listed = "; ".join([*past.failures, *past.late_keys][:5])
                    return Outcome.failed(f"older versions did not arrive: {listed}", **past.to_json())
            report = move_bucket(leaving, bucket, target, bucket, journal, options, watching, prefix)
            book.settle()
            bill = egress_report(book.days(source_place), _egress_prices(world), rules.egress_waivers)
        world.progress.finish(step.asset)
        if report.failures or report.hot:
            listed = "; ".join([*report.failures, *(f"{key} changes faster than it copies" for key in report.hot)][:5])
            return Outcome.failed(f"{len(report.failures) + len(report.hot)} object(s) did not arrive: {listed}",
                                  **report.to_json())  # fmt: skip
        manifest = write_manifest(journal.entries("done"), folder)
        trust = journal.trust()
        only = next(journal.entries("done"), None) if manifest.objects == 1 else None
    key = signing_key(world.workspace, rules.signing_key)
    checkpoint = sign_manifest(manifest, folder, key, origin_of(world.migration.name, step.asset))
    history = (0, 0) if past else older_versions(source, bucket)
    data = {
        **report.to_json(), "egress_of_place": bill.to_json(), "history": past.to_json() if past else "latest only",
        "bucket": bucket, "bucket_created": created, "manifest_root": manifest.root,
        "objects": manifest.objects, "size_bytes": manifest.size_bytes, "trust": trust,
        "sha256": only.sha256 if only else "see the manifest",
        "checkpoint": checkpoint.note.decode(), "signed_by": key.public.fingerprint,
        "older_versions_left": history[0] if history else "unknown",
        "delete_markers_left": history[1] if history else "unknown",
    }  # fmt: skip
    words = f"{manifest.objects} objects, {_mib(manifest.size_bytes)}, root {manifest.root[:16]}"
    return Outcome.unchanged(f"equal already: {words}", **data) if report.empty else Outcome.done(words, **data)


def _egress_prices(world: World) -> dict[str, Quantity]:
    """place -> usd/byte, from the price list; a place without an offer is left out, and its cost stays unknown."""
    market = market_of(world.migration)
    offers = {name: market.offer(place) for name, place in world.migration.places.items()}
    return {name: offer.egress for name, offer in offers.items() if offer is not None}


def _verify_objects(step: Step, world: World) -> Outcome:
    """Compare the target with the journal and the manifest, from the stores, now."""
    recorded = world.outcome(step.id) or {}
    manifest = copy_folder(world.workspace, step.asset) / "manifest.jsonl"
    with copy_journal(world.workspace, step.asset) as journal:
        report = prove_copy(
            world.store(step.params["target"]), step.params["bucket"], journal,
            reread_sample=world.migration.file.data.reread_sample, prefix=step.params["prefix"],
            target_is_home=target_is_home(step, world),
        )  # fmt: skip
        problems = dict(sorted(report.wrong.items()))
        if not manifest.exists() or root_of(manifest) != recorded.get("manifest_root"):
            problems["manifest.jsonl"] = "does not have the Merkle root in the evidence"
        else:  # a journal that was lost knows no objects, and would find nothing wrong with any
            lost = missing_lines(manifest, (entry.key for entry in journal.entries()))
            problems |= {key: "is in the manifest, but not in the journal" for key in lost}
    if recorded.get("signed_by") and "manifest.jsonl" not in problems:
        signed = SignedFolder(manifest.parent).check(recorded["signed_by"])
        problems |= {"checkpoint": "; ".join(signed.problems)} if signed.problems else {}
    if recorded.get("history", "latest only") != "latest only" and not target_is_home(step, world):
        store = world.store(step.params["target"])
        problems |= check_history(store, step.params["bucket"], manifest.parent, prefix=step.params["prefix"])
    data = {
        "objects": report.objects, "size_bytes": report.size_bytes, "digests_compared": report.compared,
        "reread": report.reread, "changed_by_users": report.theirs, "wrong": problems,
        "unknown_at_target": report.extra[:100],
        "manifest_root": recorded.get("manifest_root", "unknown"),
    }  # fmt: skip
    if problems:
        listed = "; ".join(f"{key}: {why}" for key, why in list(problems.items())[:5])
        return Outcome.failed(f"{len(problems)} object(s) wrong: {listed}", **data)
    words = f"{report.objects - report.theirs} objects equal, {report.reread} of them read back"
    if report.theirs:
        words += f"; {report.theirs} changed or removed by users since the cutover"
    return Outcome.done(words, **data)


def _sent_mark(step: Step, world: World) -> Path:
    """There once we have sent this index: one that was equal already is not ours to drop. Holds the digest of what was
    there before the first of our copies, if anything was."""
    return copy_folder(world.workspace, step.asset) / "sent"


def _perform_index(step: Step, world: World) -> Outcome:
    source, target = world.vectors(step.params["source"]), world.vectors(step.params["target"])
    table, mark, there = step.params["table"], _sent_mark(step, world), None
    try:
        target.describe(table)
        here, there = digest_index(source, table), digest_index(target, table)
        if here == there:
            if mark.exists():  # killed between the last row and its search index, we left it without one
                target.build(source.describe(table))
            return Outcome.unchanged(
                f"{here.rows} vectors equal already", **here.to_json(), target_bits_sha256=here.bits
            )
        if target_is_home(step, world):
            return Outcome.refused("users write to the index at the target since the cutover: it is not copied anew")
        recorded = world.outcome(step.id) or {}
        if mark.exists() and here.bits == recorded.get("bits_sha256") and as_recorded(there, recorded):
            target.build(source.describe(table))
            return Outcome.unchanged(f"{here.rows} vectors carried already", **recorded)
    except NotFound:
        pass
    mark.parent.mkdir(parents=True, exist_ok=True)
    if not mark.exists():  # before the first row: killed from here on, what lies at the target may be ours
        write_whole(mark, json.dumps(there.to_json()) if there else "", durable=True)
    info, sent = move_index(source, target, table)
    proof = prove_index(source, target, table, sent=sent)
    data = {
        **sent.to_json(), "dimension": info.dimension, "metric": info.metric, "index": info.kind, "model": info.model,
        "model_revision": info.model_revision, "target_bits_sha256": proof.target.bits, "equality": proof.to_json(),
    }  # fmt: skip
    if not proof.equal:
        listed = "; ".join(proof.problems)
        return Outcome.failed(f"the index at the target differs from what was sent: {listed}", **data)
    how = "bit-equal" if proof.target.bits == sent.bits else f"equal within {proof.precision}"
    return Outcome.done(f"{sent.rows} vectors of dimension {info.dimension}, {how}", **data)


def _verify_index(step: Step, world: World) -> Outcome:
    recorded = world.outcome(step.id) or {}
    try:
        found = recheck_index(world.vectors(step.params["target"]), step.params["table"], recorded)
    except NotFound as error:
        return Outcome.failed(f"the index is gone: {error}")
    rows, data = found.digest.rows, found.to_json()
    if not found.same and target_is_home(step, world):
        words = f"{rows} vectors; changed at the target since the cutover, so not compared with the copy"
        return Outcome.done(words, **data)
    if not found.same:
        return Outcome.failed("the index at the target is not the one that was copied", **data)
    if found.fell:
        return Outcome.failed(f"the index finds less than after the copy: {found.fell}", **data)
    return Outcome.done(f"{rows} vectors bit-equal to what was copied", **data)


def _undo_index(step: Step, world: World) -> Outcome:
    """An index that a load of ours never replaced is somebody's; so is one that was written to since the copy."""
    place, table, mark = step.params["target"], step.params["table"], _sent_mark(step, world)
    target = world.vectors(place)
    if not mark.exists():
        return Outcome.done(f"left index {table} at {place}: it was there before we came")
    try:
        there = digest_index(target, table)
    except NotFound:
        mark.unlink()
        return Outcome.done(f"index {table} at {place} is gone already")
    before, recorded = mark.read_text(encoding="utf-8"), world.outcome(step.id) or {}
    if before and json.loads(before) == there.to_json():
        mark.unlink()
        return Outcome.done(f"left index {table} at {place}: our copy never took its place")
    if "ids_sha256" in recorded and not as_recorded(there, recorded):
        return Outcome.done(f"left index {table} at {place}: others wrote to it since the copy", **there.to_json())
    target.drop(table)
    mark.unlink()
    return Outcome.done(f"dropped index {table} at {place}")
