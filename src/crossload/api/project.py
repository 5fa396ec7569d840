"""A migration as a project on disk: its verbs, and the few that need no project."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossload import wiring
from crossload.estate.asset import Inventory
from crossload.estate.diagnostic import Diagnostic, errors_in
from crossload.estate.digest import digest_of_json, sha256_of
from crossload.estate.evidence import Evidence, Outcome
from crossload.estate.migration import Migration, json_schema
from crossload.ledger.ledger import Ledger
from crossload.ledger.lock import WorkspaceLock
from crossload.ports.errors import CrossloadError, Invalid, Refused, Stale
from crossload.ports.world import Progress
from crossload.steps.plan import Plan, load_plan
from crossload.steps.run import Run, RunReport, StepResult
from crossload.steps.step import Facts, Step

if TYPE_CHECKING:
    from crossload.conformance.trial import Trial
    from crossload.engines.mover.inclusion import Inclusion, SignedFolder

COMMITTED = "committed"


class BadFile(Invalid):
    """The migration file has errors; `diagnostics` holds all of them."""

    code = "bad-file"

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        super().__init__(f"{len(errors_in(diagnostics))} error(s) in the migration file")
        self.diagnostics = list(diagnostics)


class Quiet:
    """Progress that says nothing."""

    def start(self, task: str, total: float | None, unit: str) -> None: ...
    def advance(self, task: str, amount: float) -> None: ...
    def finish(self, task: str) -> None: ...
    def say(self, text: str) -> None: ...


def check_file(path: Path) -> tuple[str, list[Diagnostic]]:
    """(name of the migration, or "" when the file is bad; every problem)."""
    migration, diagnostics = wiring.read_file(path)
    return (migration.name if migration else ""), diagnostics


def open_project(path: Path, progress: Progress | None = None) -> Project:
    """Read a migration file. Raises BadFile with every problem at once."""
    migration, diagnostics = wiring.read_file(path)
    if migration is None:
        raise BadFile(diagnostics)
    return Project(migration, diagnostics, progress or Quiet())


@dataclass(frozen=True, slots=True)
class StepStatus:
    """A planned step and where it stands: planned, or the ledger's word."""

    step: Step
    state: str
    evidence: str


class Project:
    """One migration: its file, its workspace, its ledger."""

    def __init__(self, migration: Migration, diagnostics: Sequence[Diagnostic], progress: Progress) -> None:
        self.migration = migration
        self.file_diagnostics = list(diagnostics)
        self.progress = progress
        self.workspace = wiring.workspace_of(migration)
        self.plan_path = self.workspace / "plan.lock.json"
        self.inventory_path = self.workspace / "inventory.lock.json"

    # -- looking -----------------------------------------------------------------------------------------------------

    def inventory(self) -> Inventory:
        """The locked inventory. Raises Stale when none was taken yet."""
        if not self.inventory_path.exists():
            raise Stale("there is no inventory yet", hint="run `crossload inventory` first")
        return wiring.read_inventory(self.migration, self.inventory_path)

    def load_plan(self) -> Plan:
        return load_plan(self.plan_path)

    def status(self) -> list[StepStatus]:
        with self._ledger() as ledger:
            states = ledger.states()
            shown = {state.sequence for state in states.values()}
            ids = {item.sequence: item.id for item in ledger.evidence() if item.sequence in shown}
        found: list[StepStatus] = []
        for step in self.load_plan().steps:
            state = states.get(step.id)
            word = state.state if state else "planned"
            found.append(StepStatus(step, word, ids.get(state.sequence, "") if state else ""))
        return found

    def trace(self, asset: str) -> list[Evidence]:
        """All evidence of one asset, oldest first. Raises Invalid naming the assets that have some."""
        with self._ledger() as ledger:
            found = list(ledger.evidence(asset)) if asset and asset.isprintable() else []
            if not found:
                known = sorted({item.asset for item in ledger.evidence()})
                raise Invalid(
                    f"nothing is recorded about {asset or 'an asset without a name'}",
                    hint=f"there is evidence for: {', '.join(known) or 'nothing yet'}",
                )
        return found

    def evidence(self) -> list[Evidence]:
        with self._ledger() as ledger:
            return list(ledger.evidence())

    def check_ledger(self) -> str:
        """ "" when the evidence chain is whole, else what is wrong with it."""
        with self._ledger() as ledger:
            return ledger.check_chain()

    @property
    def committed(self) -> str:
        """When the migration was committed, or ""."""
        with self._ledger() as ledger:
            return ledger.setting(COMMITTED)

    # -- doing -------------------------------------------------------------------------------------------------------

    def take_inventory(self, told: Callable[[StepResult], None] = lambda _: None) -> RunReport:
        """Discover the sources anew and lock what was found."""
        with self._changing("inventory") as ledger:
            planned = wiring.stage("inventory").plan(self.migration, Facts(Inventory()))
            # A repeat is wanted here: the world may have changed.
            return self._run(ledger, Inventory(), told).apply(planned.steps, again=True)

    def inventory_csv(self) -> str:
        """The locked inventory as a spreadsheet that reads back the same."""
        from crossload.engines.planner.csv import to_csv

        return to_csv(self.inventory())

    def make_plan(self, *, save: bool = True) -> Plan:
        """Ask every stage what it would do; pure, apart from reading the locks and writing the plan. Raises Refused
        when the new plan would forget a step of the cutover that only a rollback can undo."""
        from crossload.engines.planner.forecast import forecast
        from crossload.engines.planner.placement import choose

        inventory = self.inventory()
        with self._ledger() as ledger:
            outcomes = ledger.outcomes()
        choices = {asset: choice.place for asset, choice in choose(self.migration, inventory).items() if choice.place}
        facts = Facts(inventory, choices, outcomes, datetime.now(UTC).date().isoformat())
        steps: list[Step] = []
        diagnostics = list(self.file_diagnostics)
        for name in wiring.STAGES:
            planned = wiring.stage(name).plan(self.migration, facts)
            steps += planned.steps
            diagnostics += planned.diagnostics
        known = {step.id for step in steps}
        steps = [_with_known_dependencies(step, known) for step in steps]
        plan = Plan(
            self.migration.name, self._migration_digest(), self._inventory_digest(), tuple(steps), tuple(diagnostics),
            choices, forecast(self.migration, inventory, choices, outcomes),
        )  # fmt: skip
        if save:
            with self._changing("plan") as ledger:
                self._keep_the_way_back(ledger, known)
                plan.save(self.plan_path)
        return plan

    def apply(
        self,
        *,
        stage: str = "",
        only: str = "",
        dry_run: bool = False,
        again: bool = False,
        told: Callable[[StepResult], None] = lambda _: None,
    ) -> RunReport:
        """Perform the plan up to, not including, the cutover; or one stage, or the steps of one asset or step id.
        `again` repeats steps that are good already: a delta of the data, a new measurement of the link."""
        self._known_stage(stage)
        if stage == "cutover":
            raise Invalid("`apply` goes up to the cutover, not into it", hint="run `crossload cutover`")
        plan = self._sound_plan()

        def chosen(step: Step) -> bool:
            if only and only not in (step.id, step.asset):
                return False
            return step.stage == stage if stage else step.stage != "cutover"

        if only and not any(chosen(step) for step in plan.steps):
            raise _unknown(only)
        return self._perform("apply", plan.steps, chosen, dry_run, told, again=again)

    def cutover(self, *, dry_run: bool = False, told: Callable[[StepResult], None] = lambda _: None) -> RunReport:
        """Mirror, canary, drill, ramp, freeze, last delta, switch."""
        plan = self._sound_plan()
        return self._perform("cutover", plan.steps, lambda step: step.stage == "cutover", dry_run, told)

    def verify(self, *, only: str = "", told: Callable[[StepResult], None] = lambda _: None) -> RunReport:
        """Re-check everything that was done, now, from the stores. Raises Refused when that is nothing."""
        plan = self._fresh_plan()
        if only and not any(only in (step.id, step.asset) for step in plan.steps):
            raise _unknown(only)  # a misspelt name must not read as "nothing is wrong"
        with self._changing("verify") as ledger:
            broken = ledger.check_chain()
            report = self._run(ledger, self.inventory(), told).verify(
                plan.steps, lambda step: not only or only in (step.id, step.asset)
            )
            if broken:
                step = Step("ledger/chain", "ledger", "chain", f"estate:{self.migration.name}", "evidence chain")
                report.results.append(StepResult(step, "failed", f"the evidence chain is broken: {broken}"))
            if not report.results:  # no good news: a script would read it as "everything is as it should be"
                raise Refused("nothing was performed yet that could be verified", hint="run `crossload apply` first")
            return report

    def rollback(
        self, *, to_stage: str = "cutover", dry_run: bool = False, told: Callable[[StepResult], None] = lambda _: None
    ) -> RunReport:
        """Undo the cutover (traffic and data written at the target go back), or everything from `to_stage` on.

        Raises Refused once the migration was committed."""
        self._known_stage(to_stage)
        plan = self.load_plan()
        wanted = wiring.STAGES[wiring.STAGES.index(to_stage) :]
        with self._changing("rollback") as ledger:
            when = ledger.setting(COMMITTED)
            if when:
                raise Refused(
                    f"this migration was committed at {when}: the right to roll back has ended",
                    hint="to go back, plan a migration in the other direction",
                )
            try:
                inventory = self.inventory()
            except CrossloadError:
                inventory = Inventory()  # the way back must not hang on a file that only the way there needs
            run = self._run(ledger, inventory, told)
            return run.undo(plan.steps, lambda step: step.stage in wanted, dry_run=dry_run)

    def write_code(self) -> list[Evidence]:
        """Put the converted code into the working tree, if it is as it was when it was scanned. Raises Refused when
        it is not, or when nothing was converted yet."""
        plan = self._fresh_plan()
        with self._changing("apply --write") as ledger:
            good = ledger.outcomes()
            ready = [s for s in plan.steps if (s.stage, s.action) == ("conversion", "rewrite") and s.id in good]
            if not ready:
                raise Refused("no converted code is there to write", hint="run `crossload apply --stage conversion`")
            world = self._world(ledger, self.inventory())
            outcomes = [(step, wiring.write_code(step, world)) for step in ready]
            return [ledger.record(step.stage, step.id, step.asset, "note", outcome) for step, outcome in outcomes]

    def commit(self) -> Evidence:
        """End the right to roll back. Raises Refused unless every cutover step is good."""
        plan = self._fresh_plan()
        with self._changing("commit") as ledger:
            if ledger.setting(COMMITTED):
                raise Refused(f"already committed at {ledger.setting(COMMITTED)}")
            good = ledger.outcomes()
            missing = [step.id for step in plan.steps if step.stage == "cutover" and step.id not in good]
            if missing:
                raise Refused(
                    f"the cutover is not complete: {', '.join(missing)}", hint="run `crossload cutover`, then commit"
                )
            now = datetime.now(UTC).isoformat(timespec="seconds")
            outcome = Outcome.done("committed: the target is the home now, rollback has ended", head=ledger.head())
            item = ledger.record("cutover", "", f"estate:{self.migration.name}", "commit", outcome)
            ledger.set_setting(COMMITTED, now)
            return item

    # -- inside ------------------------------------------------------------------------------------------------------

    def _perform(
        self, verb: str, steps: Sequence[Step], chosen: Callable[[Step], bool], dry_run: bool,
        told: Callable[[StepResult], None],
        *, again: bool = False,
    ) -> RunReport:  # fmt: skip
        with self._changing(verb) as ledger:
            if ledger.setting(COMMITTED) and verb == "cutover":
                raise Refused("this migration is committed; there is nothing left to cut over")
            return self._run(ledger, self.inventory(), told).apply(steps, chosen, dry_run=dry_run, again=again)

    def _run(self, ledger: Ledger, inventory: Inventory, told: Callable[[StepResult], None]) -> Run:
        return Run(wiring.Stages(), ledger, self._world(ledger, inventory), told)

    def _world(self, ledger: Ledger, inventory: Inventory) -> wiring.CloudWorld:
        return wiring.CloudWorld(self.migration, inventory, ledger, self.progress)

    def _keep_the_way_back(self, ledger: Ledger, known: set[str]) -> None:
        """A rollback undoes what is planned: a freeze or a switch that no plan names any more would stay for ever."""
        try:
            before = self.load_plan()
        except CrossloadError:
            return
        states = {} if ledger.setting(COMMITTED) else ledger.states()
        lost = [
            step.id
            for step in before.steps
            if step.stage == "cutover" and step.id in states and states[step.id].state != "undone"
            and step.id not in known and not step.undo.startswith("nothing to undo")
        ]  # fmt: skip
        if lost:
            raise Refused(
                f"the new plan would forget {', '.join(lost)}, which a rollback must undo",
                hint="run `crossload rollback` first, then plan again; or take back the change of file or inventory",
            )

    def _sound_plan(self) -> Plan:
        """A fresh plan without errors; what was planned on a contradiction is not performed."""
        plan = self._fresh_plan()
        errors = errors_in(plan.diagnostics)
        if errors:
            listed = "; ".join(f"{item.code} {item.subject}: {item.summary}" for item in errors[:3])
            raise Refused(f"the plan has {len(errors)} error(s): {listed}", hint="`crossload plan` shows all of them")
        return plan

    def _fresh_plan(self) -> Plan:
        plan = self.load_plan()
        plan.check_fresh(self._migration_digest(), self._inventory_digest())
        return plan

    def _migration_digest(self) -> str:
        return digest_of_json(self.migration.to_json()).hex

    def _inventory_digest(self) -> str:
        try:
            return sha256_of(self.inventory_path.read_bytes()).hex
        except FileNotFoundError:
            return ""  # no plan was made for no inventory

    def _known_stage(self, name: str) -> None:
        if name and name not in wiring.STAGES:
            raise Invalid(f"no stage is called {name}", hint=f"stages: {', '.join(wiring.STAGES)}")

    @contextmanager
    def _ledger(self) -> Iterator[Ledger]:
        ledger = wiring.open_ledger(self.migration)
        try:
            yield ledger
        finally:
            ledger.close()

    @contextmanager
    def _changing(self, verb: str) -> Iterator[Ledger]:
        with WorkspaceLock(self.workspace / "lock", verb), self._ledger() as ledger:
            yield ledger


def _unknown(only: str) -> Invalid:
    return Invalid(f"no planned step or asset is called {only}", hint="`crossload status` lists them")


def _with_known_dependencies(step: Step, known: set[str]) -> Step:
    """A stage may wait for a step that another stage found no reason to plan."""
    after = tuple(name for name in step.after if name in known)
    return step if after == step.after else replace(step, after=after)


def lab_main(arguments: Sequence[str]) -> int:
    """Run one verb of the lab; returns its exit code."""
    from crossload.lab.main import main

    return main(list(arguments))


def stage_names() -> tuple[str, ...]:
    """The ten steps in order."""
    return wiring.STAGES


def draft_file(
    name: str, owner: str, source: Mapping[str, Any], targets: Sequence[Mapping[str, Any]], *, environment: str = "",
    app: str = "", questions: str = "", folder: Path = Path(),
) -> str:  # fmt: skip
    """Discover `source` and write a migration file's text. Places are sections as in the file; `environment`, `app`
    and `questions` are paths relative to `folder`. Raises Invalid for a bad place, a setting that its provider does
    not know or a secret's value in one, and what discovery raises."""
    from pydantic import ValidationError

    from crossload.engines.planner.draft import draft_migration
    from crossload.estate.migration import PlaceSection

    try:
        sections = [PlaceSection.model_validate(item) for item in (source, *targets)]
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors())
        raise Invalid(f"a place is not right: {problems}", hint="see docs/migration-file.md") from error
    for section in sections:
        wiring.check_place(section)
    settings = wiring.environment(folder / environment if environment else None, "correct --environment")
    found = wiring.discover(sections[0].place(), settings)
    return draft_migration(found, name, owner, source, targets, environment=environment, app_path=app,
                           questions=questions)  # fmt: skip


def lab_places(home: Path | None = None) -> tuple[Path, dict[str, Any], list[dict[str, Any]]]:
    """(the lab's home, its source place, its target places), as sections of a migration file. Raises Invalid when no
    lab was ever up there."""
    from crossload.lab.lab import Lab, LabError
    from crossload.lab.places import source_place, target_places

    lab = Lab(home)
    try:
        return lab.home, source_place(lab.home), target_places(lab.home, lab.env())
    except LabError as error:
        raise Invalid(str(error), hint="run `crossload lab up`, or name its home: --lab HOME") from error


def play_demo(folder: Path, *, small: bool = False, keep: bool = False) -> None:
    """Play the demo in `folder`. Raises CrossloadError naming the command or server that did not do what it must."""
    from crossload.lab.demo import Demo, DemoFailed
    from crossload.lab.lab import LabError
    from crossload.lab.seed import SeedError

    try:
        Demo(folder, small=small, keep_lab=keep).play()
    except (DemoFailed, LabError, SeedError) as error:
        raise CrossloadError(str(error), hint="`crossload doctor` says what this machine lacks") from error


def open_proof(folder: Path) -> SignedFolder:
    """The signed manifest in a folder: `show`, `check`, `include`. Raises Invalid when there is no manifest."""
    from crossload.engines.mover.inclusion import SignedFolder

    return SignedFolder(folder)


def check_inclusion(proof: bytes, public_key: bytes) -> tuple[Inclusion, list[str]]:
    """(what a proof of one object says, what is wrong with it). Raises Invalid when the bytes are something else."""
    from crossload.engines.mover import inclusion

    return inclusion.check_inclusion(proof, public_key)


def verify_provider(name: str, **options: Any) -> Trial:
    """The conformance suites against an account of one's own, for `run`; nothing is touched before. Options: `bucket`,
    `region`, `settings`, `only`, `file`. Raises Invalid or Unsupported for what cannot be tried."""
    return wiring.trial(name, **options)


def support_matrix() -> dict[str, set[str]]:
    """provider -> ports it offers."""
    return wiring.support_matrix()


def doctor() -> list[dict[str, str]]:
    """What this machine has: Python, SDKs of every provider, tools that make more possible. Each row has a state
    (ok, missing, optional) and what to do."""
    import importlib.util
    import platform

    rows = [{"name": "python", "state": "ok", "detail": platform.python_version(), "hint": ""}]
    packages = {
        "boto3": "aws", "azure.storage.blob": "azure", "psycopg": "postgres", "uvloop": "gateway", "mcp": "agents",
        "tree_sitter": "convert", "ministack": "lab", "xllamacpp": "lab",
    }  # fmt: skip
    for package, extra in packages.items():
        try:
            found = importlib.util.find_spec(package) is not None
        except ModuleNotFoundError:
            found = False
        hint = "" if found else f"pip install 'crossload[{extra}]'"
        rows.append({"name": package, "state": "ok" if found else "missing", "detail": f"extra {extra}", "hint": hint})
    for tool, why in (
        ("git", "conversion writes to a branch"), ("terraform", "second judge of the landing zone"),
        ("npm", "Azurite in the lab"), ("chromium", "pictures of the report"),
    ):  # fmt: skip
        path = shutil.which(tool)
        rows.append({
            "name": tool, "state": "ok" if path else "optional", "detail": path or why,
            "hint": "" if path else "optional; nothing else stops without it",
        })  # fmt: skip
    return rows


def schema_text() -> str:
    """JSON Schema of the migration file as text, for a file beside it."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
