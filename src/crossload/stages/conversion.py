"""Step 7, conversion: the application's cloud calls get a portable form, and its own tests say whether it works.

The tests run against the source first; only when they are green there can they prove anything at the target."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossload.engines.convert import Conversion, Scan, convert, grammar, scan
from crossload.engines.convert.branch import Repository
from crossload.engines.convert.trial import Trial, copy_application, run_tests, same_tests
from crossload.estate.asset import Kind
from crossload.estate.diagnostic import Diagnostic, errors_in
from crossload.estate.digest import digest_of_json, sha256_of
from crossload.estate.evidence import Outcome
from crossload.estate.migration import Migration
from crossload.ports.code import Code, Reading, Writing
from crossload.ports.errors import Invalid, NotFound, Unsupported
from crossload.ports.world import World
from crossload.steps.step import Facts, Planned, Step

NAME = "conversion"
# Folders whose own name says nothing about the application.
_PLAIN_FOLDERS = ("app", "src", "code")


def app_asset(migration: Migration, facts: Facts) -> str:
    """The id of the application's asset: the inventory's, or the same name when there is no inventory yet."""
    app = migration.file.app
    path = app.path if app is not None else ""
    for asset in facts.inventory.of(Kind.APP):
        if asset.fact("path") == path:
            return asset.id
    parts = [part for part in (migration.folder / path).parts if part not in ("/", ".", "..")]
    return f"{Kind.APP}:{next((part for part in reversed(parts) if part not in _PLAIN_FOLDERS), 'app')}"


def plan(migration: Migration, facts: Facts) -> Planned:
    """Scan, rewrite (with the tests on both sides), branch; also where the code could not be read today: the plan is
    one, and what it takes may be installed before it is performed."""
    app = migration.file.app
    if app is None:
        hint = "add `app: {path: FOLDER}` to the migration file"
        note = Diagnostic.note("XL700", "no application is named, so no code is converted", hint=hint)
        return Planned((), (note,))
    asset = app_asset(migration, facts)
    places, after = _targets(migration, facts)
    params = {
        "path": app.path, "test": list(app.test), "branch": app.branch, "source": migration.source.id, **places,
    }  # fmt: skip
    found, rewritten = f"{NAME}/scan/{asset}", f"{NAME}/rewrite/{asset}"
    steps = (
        Step(found, NAME, "scan", asset, f"find the cloud calls of {app.path}", params, undo="nothing was changed"),
        Step(
            rewritten, NAME, "rewrite", asset,
            f"convert a copy of {app.path}; its tests run at {params['source']} and at {places['store']}",
            params, (found, *after), undo="remove the copy from the workspace", risk="medium", wave=2,
        ),
        Step(
            f"{NAME}/branch/{asset}", NAME, "branch", asset, f"put the converted code on branch {app.branch}",
            params, (rewritten,), undo="delete the branch, if nobody built on it", wave=2,
        ),
    )  # fmt: skip
    return Planned(steps, _readable(asset))


def _readable(asset: str) -> tuple[Diagnostic, ...]:
    if not grammar.MISSING:
        return ()
    return (
        Diagnostic.warning(
            "XL714", f"the code cannot be read here: a package is not installed ({grammar.MISSING})",
            subject=asset, hint=grammar.INSTALL,
        ),
    )  # fmt: skip


def _targets(migration: Migration, facts: Facts) -> tuple[dict[str, str], tuple[str, ...]]:
    """Where objects and models go, and the steps that bring them there: the tests need both at the target."""
    places = {"store": "", "models": ""}
    after: list[str] = []
    for kind, port, step in (
        (Kind.DATASET, "store", "transfer/copy"),
        (Kind.ENDPOINT, "models", "portability/gateway"),
    ):
        for asset in facts.inventory.of(kind):
            if asset.id in facts.choices:
                places[port] = places[port] or facts.choices[asset.id]
                after.append(f"{step}/{asset.id}")
    fallback = places["store"] or migration.target_ids[0]
    return {port: place or fallback for port, place in places.items()}, tuple(after)


def perform(step: Step, world: World) -> Outcome:
    if step.action == "scan":
        return _scan(step, world)
    return _rewrite(step, world) if step.action == "rewrite" else _branch(step, world)


def verify(step: Step, world: World) -> Outcome:
    """From what lies there now: source files, converted files, branch."""
    recorded = world.outcome(step.id) or {}
    if step.action == "scan":
        digest = _source_digest(scan(_folder(step, world), _dialects(step, world).reading))
        portable = (world.outcome(f"{NAME}/rewrite/{step.asset}") or {}).get("converted_digest")
        if digest not in (recorded.get("source_digest"), portable):
            return Outcome.failed("the application has changed since it was scanned", source_digest=digest)
        return Outcome.done(f"{recorded.get('calls')} calls, source unchanged", source_digest=digest)
    if step.action == "rewrite":
        return _verify_rewrite(step, world, recorded)
    if not recorded.get("commit"):
        return Outcome.done("the converted code is in the workspace only", **dict(recorded))
    repository = Repository.around(_folder(step, world))
    if repository is None or not repository.holds(recorded["branch"], recorded["tree"]):
        return Outcome.failed(f"branch {recorded['branch']} no longer holds the converted code")
    return Outcome.done(f"branch {recorded['branch']} holds tree {recorded['tree'][:12]}")


def undo(step: Step, world: World) -> Outcome:
    if step.action == "scan":
        return Outcome.unchanged("a scan changes nothing")
    if step.action == "rewrite":
        removed = _remove(_work(step, world))
        return Outcome.done("removed the copy") if removed else Outcome.unchanged("there was no copy")
    recorded = world.outcome(step.id) or {}
    repository = Repository.around(_folder(step, world)) if recorded.get("commit") else None
    if repository is None:
        return Outcome.unchanged("there was no branch")
    if not repository.tip(recorded["branch"]):
        return Outcome.unchanged(f"branch {recorded['branch']} is gone already")
    kept = repository.delete(recorded["branch"], recorded["commit"])
    return Outcome.unchanged(kept) if kept else Outcome.done(f"deleted branch {recorded['branch']}")


def write(step: Step, world: World) -> Outcome:
    """Put the converted code into the working tree. Refused (Stale) when a file changed since it was scanned."""
    folder = _folder(step, world)
    dialects = _dialects(step, world)
    recorded = world.outcome(f"{NAME}/rewrite/{step.asset}")
    if recorded is None:
        return Outcome.refused("nothing was converted yet: run `apply` first")
    found = scan(folder, dialects.reading)
    if _source_digest(found) not in (recorded.get("source_digest"), recorded.get("converted_digest")):
        return Outcome.refused("the application has changed since its converted form was tested")
    conversion = convert(folder, dialects.reading, dialects.writings, found)
    written = conversion.write(folder)
    return Outcome.done(f"wrote {len(written)} file(s)", files=written) if written else Outcome.unchanged("nothing new")


@dataclass(frozen=True, slots=True)
class _Dialects:
    reading: Reading
    writings: tuple[Writing, ...]
    source: Code
    targets: tuple[Code, ...]


def _dialects(step: Step, world: World) -> _Dialects:
    source = world.code(step.params["source"])
    targets = (world.code(step.params["store"]), world.code(step.params["models"], "models"))
    if source.reading is None:
        raise Unsupported(f"no table reads code that calls {source.place}")
    return _Dialects(source.reading, tuple(code.writing for code in targets if code.writing), source, targets)


def _folder(step: Step, world: World) -> Path:
    folder = world.migration.folder / step.params["path"]
    if not folder.is_dir():
        raise NotFound(f"the application's folder is not there: {step.params['path']}", hint="correct `app.path`")
    return folder


def _work(step: Step, world: World) -> Path:
    return world.workspace / NAME / step.asset.partition(":")[2]


def _source_digest(found: Scan) -> str:
    """One digest of all Python files and lists of packages, so that a later write can tell whether they changed."""
    digests = {path: str(digest) for path, digest in found.digests.items()}
    for path in sorted(found.root.glob("requirements*")):
        digests[path.name] = str(sha256_of(path.read_bytes()))
    return str(digest_of_json(digests))


def _scan(step: Step, world: World) -> Outcome:
    folder = _folder(step, world)
    dialects = _dialects(step, world)
    conversion = convert(folder, dialects.reading, dialects.writings)
    calls = [call for call in conversion.found.calls if not call.in_test]
    data = {
        "calls": len(calls), "carried": sum(not call.in_test for call in conversion.carried),
        "operations": sorted({call.op for call in conversion.carried}),
        "source_digest": _source_digest(conversion.found), "found": [call.to_json() for call in calls],
        "diagnostics": [item.to_json() for item in conversion.diagnostics],
    }  # fmt: skip
    for item in conversion.diagnostics:
        world.progress.say(str(item))
    return Outcome.done(f"{data['calls']} cloud calls, {data['carried']} of them have a portable form", **data)


def _rewrite(step: Step, world: World) -> Outcome:
    folder, work, dialects = _folder(step, world), _work(step, world), _dialects(step, world)
    digest = _source_digest(scan(folder, dialects.reading))
    recorded = world.outcome(step.id) or {}
    if digest in (recorded.get("source_digest"), recorded.get("converted_digest")) and _as_tested(work, recorded):
        return Outcome.unchanged("converted and tested already", **dict(recorded))
    copy_application(folder, work / "app")
    environment = _source_environment(dialects)
    before = _try(step, world, dialects, work, "source", environment)
    if not before.green:
        why = f"the tests are not green at {step.params['source']}, so they cannot prove a conversion"
        return Outcome.refused(f"{why}: {before}\n{before.tail}", source=before.to_json())
    conversion = convert(work / "app", dialects.reading, dialects.writings)
    errors = errors_in(conversion.diagnostics)
    (work / "app.diff").write_text(conversion.diff, encoding="utf-8", errors="surrogateescape")
    if errors:
        listed = "\n".join(str(item) for item in errors[:10])
        return Outcome.refused(f"{len(errors)} call(s) cannot be carried:\n{listed}",
                               diagnostics=[item.to_json() for item in errors])  # fmt: skip
    conversion.write(work / "app")
    after = _try(step, world, dialects, work, "target", _target_environment(dialects, environment, conversion))
    problem = same_tests(before, after)
    if problem:
        return Outcome.failed(
            f"converted, but {problem}\n{after.tail}", source=before.to_json(), target=after.to_json()
        )
    converted = _source_digest(scan(work / "app", dialects.reading))
    data = _evidence(conversion, work, digest) | {
        "converted_digest": converted,
        "source": before.to_json(),
        "target": after.to_json(),
    }
    words = f"{data['carried']} calls carried by {data['edits']} edits in {data['files_edited']} file(s)"
    words += f"; tests at the source: {before}; at the target: {after}"
    return Outcome.done(words, **data)


def _evidence(conversion: Conversion, work: Path, digest: str) -> dict[str, Any]:
    return {
        "source_digest": digest, "carried": sum(not call.in_test for call in conversion.carried),
        "edits": sum(len(edits) for edits in conversion.edits.values()), "files_edited": len(conversion.edits),
        "files": {path: str(sha256_of(data)) for path, data in sorted(conversion.after.items())},
        "requirements": list(conversion.requirements), "services": list(conversion.services),
        "settings": [setting.name for setting in conversion.settings],
        "bytes_changed_outside_edits": conversion.changed_outside,
        "not_carried": [item.to_json() for item in conversion.diagnostics if item.code in ("XL702", "XL709")],
        "diff": str((work / "app.diff").name), "diff_sha256": sha256_of((work / "app.diff").read_bytes()).hex,
    }  # fmt: skip


def _source_environment(dialects: _Dialects) -> dict[str, str]:
    environment: dict[str, str] = dict(os.environ)
    for code in (dialects.source, *dialects.targets):
        environment = code.inherited(environment)
    drop = ("PYTEST_CURRENT_TEST", "CROSSLOAD_CLOUD", "CROSSLOAD_BUCKETS")
    environment = {name: value for name, value in environment.items() if name not in drop}
    options = f"{environment.get('PYTEST_ADDOPTS', '')} -p no:cacheprovider".strip()
    tidy = {"PYTHONDONTWRITEBYTECODE": "1", "PYTEST_ADDOPTS": options}
    return {**environment, **tidy, **dialects.source.environment(), "CROSSLOAD_CLOUD": "source"}


def _target_environment(dialects: _Dialects, source: Mapping[str, str], conversion: Conversion) -> dict[str, str]:
    """What stays with the source is still reached there; what moved must not be: those services are cut off."""
    environment = {**source, **dialects.source.cut_off(conversion.services), "CROSSLOAD_CLOUD": "target"}
    for code in dialects.targets:
        environment |= code.environment()
    return environment


def _try(
    step: Step, world: World, dialects: _Dialects, work: Path, side: str, environment: Mapping[str, str]
) -> Trial:  # fmt: skip
    def redact(text: str) -> str:
        for code in (dialects.source, *dialects.targets):
            text = code.redact(text)
        return text

    world.progress.say(f"running the application's tests at the {side}")
    trial = run_tests(work / "app", step.params["test"], environment, work / f"tests-{side}.log", redact)
    world.progress.say(f"tests at the {side}: {trial}")
    return trial


def _as_tested(work: Path, recorded: Mapping[str, Any]) -> bool:
    """Whether the converted files in the workspace are those that the tests ran with."""
    if "files" not in recorded or not (work / "app").is_dir():
        return False
    paths = {work / "app" / path: digest for path, digest in recorded["files"].items()}
    return all(path.is_file() and str(sha256_of(path.read_bytes())) == digest for path, digest in paths.items())


def _verify_rewrite(step: Step, world: World, recorded: Mapping[str, Any]) -> Outcome:
    work = _work(step, world)
    if not _as_tested(work, recorded):
        return Outcome.failed("the converted files in the workspace are not those that were tested")
    diff = work / recorded.get("diff", "app.diff")
    if not diff.is_file() or sha256_of(diff.read_bytes()).hex != recorded.get("diff_sha256"):
        return Outcome.failed("the diff in the workspace is not the one that was made")
    return Outcome.done(f"{len(recorded['files'])} converted file(s) as tested")


def _branch(step: Step, world: World) -> Outcome:
    folder, work = _folder(step, world), _work(step, world)
    recorded = world.outcome(f"{NAME}/rewrite/{step.asset}")
    if recorded is None or not _as_tested(work, recorded):
        raise Invalid("the converted files are not those that were tested", hint="run the step `rewrite` again")
    if not recorded["files"]:
        return Outcome.unchanged("the application is portable as it is: nothing to put on a branch")
    repository = Repository.around(folder)
    if repository is None or not repository.tracks():
        why = "the application is in no git repository" if repository is None else "git does not track the application"
        return Outcome.done(f"{why}: the converted code stays in the workspace", where=f"{NAME}/{work.name}/app")
    # What was tested is what is committed: changes that are not committed yet come along, and are named.
    own = [path for path in repository.changed() if (work / "app" / path).is_file()]
    files = {path: work / "app" / path for path in [*recorded["files"], *own]}
    title = f"Portable form of {step.params['path']}"
    done = repository.commit(step.params["branch"], files, title, work / "index")
    data = {"branch": done.branch, "commit": done.commit, "tree": done.tree, "files": sorted(recorded["files"]),
            "uncommitted_of_yours": sorted(set(own) - set(recorded["files"]))}  # fmt: skip
    words = f"branch {done.branch} at {done.commit[:12]}; the working tree is untouched"
    return Outcome.done(words, **data) if done.created else Outcome.unchanged(words, **data)


def _remove(folder: Path) -> bool:
    import shutil

    if not folder.exists():
        return False
    shutil.rmtree(folder)
    return True
