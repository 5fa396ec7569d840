"""The one room that names every other: the order of stages, the table of providers, which ledger, what wraps what."""

from __future__ import annotations

import difflib
import importlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from crossload.estate.asset import Inventory
from crossload.estate.diagnostic import Diagnostic, Severity, errors_in
from crossload.estate.evidence import Outcome
from crossload.estate.migration import Migration, PlaceSection
from crossload.estate.place import Place
from crossload.estate.reading import Connection, bare_secrets, connections_of, nearest, read_migration
from crossload.estate.secret import read_env_file
from crossload.ledger.ledger import Ledger
from crossload.ports.account import DENIED, Account, Discovery, index_assets
from crossload.ports.errors import CrossloadError, Invalid, Unsupported
from crossload.ports.metered import metered
from crossload.ports.provider import BESIDE, IDENTITIES, Provider, Settings
from crossload.ports.retrying import RetryingStore, RetryPolicy
from crossload.ports.world import Progress, World
from crossload.steps.step import Stage, Step

if TYPE_CHECKING:  # named in annotations only: a run loads the ports that it opens
    from crossload.conformance.trial import Trial
    from crossload.engines.mover.ends import End
    from crossload.ports.agents import Agents
    from crossload.ports.code import Code
    from crossload.ports.fleet import Act, Fleet
    from crossload.ports.identity import Identity
    from crossload.ports.infra import Infra
    from crossload.ports.models import Models
    from crossload.ports.policy import Policy
    from crossload.ports.probe import Probe
    from crossload.ports.store import Store
    from crossload.ports.vectors import Vectors
    from crossload.providers.relay.agent import Agent

# The ten steps of the guide, in its order.
STAGES = (
    "goals", "inventory", "placement", "foundations", "transfer", "portability", "conversion", "landing", "assurance",
    "cutover",
)  # fmt: skip

# A lazy table: a provider is loaded when it is named, never before.
PROVIDERS: Mapping[str, str] = {
    "aws": "crossload.providers.aws",
    "azure": "crossload.providers.azure",
    "gcp": "crossload.providers.gcp",
    "lancedb": "crossload.providers.lancedb",
    "local": "crossload.providers.local",
    "openai": "crossload.providers.openai",
    "postgres": "crossload.providers.postgres",
    "qdrant": "crossload.providers.qdrant",
    "registry": "crossload.providers.registry",
    "relay": "crossload.providers.relay",
    "temporal": "crossload.providers.temporal",
}


def stage(name: str) -> Stage:
    """Raises Unsupported when what the stage works with is not installed."""
    try:
        return cast(Stage, importlib.import_module(f"crossload.stages.{name}"))
    except ImportError as error:
        if (error.name or "crossload").startswith("crossload"):
            raise
        raise Unsupported(
            f"the stage {name} needs a package that is not installed ({error.name})",
            hint="`crossload doctor` names the extra that brings it",
        ) from error


def write_code(step: Step, world: World) -> Outcome:
    """The conversion's fifth verb: its result into the user's working tree, only when asked for."""
    from crossload.stages import conversion

    return conversion.write(step, world)


class Stages(Mapping[str, Stage]):
    """All stages by name, in order; each is imported when it is asked for."""

    def __getitem__(self, name: str) -> Stage:
        if name not in STAGES:
            raise KeyError(name)
        return stage(name)

    def __iter__(self) -> Iterator[str]:
        return iter(STAGES)

    def __len__(self) -> int:
        return len(STAGES)


def provider(name: str) -> Provider:
    """Raises Unsupported naming the providers there are."""
    if name not in PROVIDERS:
        raise Unsupported(f"no provider is called {name}", hint=f"there are: {', '.join(sorted(PROVIDERS))}")
    return importlib.import_module(PROVIDERS[name]).PROVIDER


def support_matrix() -> dict[str, set[str]]:
    """provider -> ports it offers; computed from what each says, never typed by hand."""
    return {name: set(provider(name).ports) for name in PROVIDERS}


def read_file(path: Path) -> tuple[Migration | None, list[Diagnostic]]:
    """A migration file, read as its providers understand it; all problems at once, and never raises for one."""
    return read_migration(path, judge)


def judge(connection: Connection) -> Iterator[tuple[str, Diagnostic]]:
    """What the provider of a connection makes of its settings, by setting; "" is the provider's name. Loads no SDK."""
    if connection.provider not in PROVIDERS:
        hint = nearest(connection.provider, PROVIDERS, "there are: ")
        yield "", Diagnostic.error("XL128", f"no provider is called `{connection.provider}`", hint=hint)
        return
    speaker = provider(connection.provider)
    ports = {connection.port, *BESIDE} if connection.port else set(speaker.ports) - connection.replaced
    for setting in connection.settings:
        name, at, identity = setting.partition("@")
        readers = speaker.readers(name)
        if not readers:
            known = speaker.known(ports) or speaker.known(speaker.ports)
            hint = nearest(name, known, "known settings here: ", at + identity)
            yield setting, Diagnostic.error("XL126", f"{speaker.name} has no connection setting `{setting}`", hint=hint)
        elif at and not identity:
            hint = f"one of: {', '.join(f'{name}@{one}' for one in IDENTITIES)}; or leave out the @"
            yield setting, Diagnostic.error("XL126", f"`{setting}` names no identity after the @", hint=hint)
        elif not ports & set(readers):
            text = f"nothing reads `{setting}` here: it is a setting of {speaker.name}'s {', '.join(readers)}"
            hint = "remove it, or move it to the connection (of the place or a service) that answers that port"
            yield setting, Diagnostic.warning("XL127", text, hint=hint)
        elif identity and identity not in IDENTITIES:
            near = difflib.get_close_matches(identity, IDENTITIES, n=1, cutoff=0.75)
            if near:
                text = f"Crossload does no work as `{identity}`; only probes try it, as one of the workload's"
                hint = f"did you mean `{name}@{near[0]}`?"
                yield setting, Diagnostic.warning("XL129", text, hint=hint)


def check_place(section: PlaceSection) -> None:
    """Raises Invalid with every setting of a place that a migration file must not get: it would not be read again, or
    the file would keep a secret's value, and go to a repository."""
    listed = [
        f"{problem.summary} ({problem.hint})"
        for connection in connections_of(section.model_dump())
        for _, problem in judge(connection)
        if problem.severity is Severity.ERROR
    ]
    for *_, setting in bare_secrets(section):
        way_out = f"write `{setting}=env:NAME` or `{setting}=file:PATH`"
        listed.append(f"setting `{setting}` holds a secret's value; the file may only refer to it ({way_out})")
    if listed:
        raise Invalid(f"place {section.id}: {'; '.join(listed)}", hint="docs/migration-file.md lists the settings")


def environment(file: Path | None, hint: str) -> dict[str, str]:
    """What `env:` references see: the environment file, if one is named, and the process on top of it."""
    try:
        found = read_env_file(file) if file is not None else {}
    except (OSError, ValueError) as error:
        raise Invalid(f"cannot read the environment file: {error}", hint=hint) from error
    return {**found, **os.environ}


def workspace_of(migration: Migration) -> Path:
    """Where this migration keeps its ledger, journals, manifests and generated files."""
    return migration.folder / ".crossload" / migration.name


def read_inventory(migration: Migration, path: Path) -> Inventory:
    """The locked inventory with the overlays the file has now."""
    from crossload.stages import inventory

    return inventory.load(migration, path)


def open_ledger(migration: Migration) -> Ledger:
    return Ledger(workspace_of(migration) / "ledger.db")


def discover(place: Place, settings: Mapping[str, str]) -> list[Discovery]:
    """What one place holds, before there is a migration file: its account, and its vector indexes if it has any."""
    account: Account = _opened(place, "account", settings)
    found = [account.discover()]
    if "vectors" in provider(place.service("vectors").provider).ports:
        try:
            vectors: Vectors = _opened(place, "vectors", settings)
            found.append(index_assets(place.id, vectors.indexes()))
        except CrossloadError as error:  # a refusing database does not stop the rest, and is not an empty one
            found.append(index_assets(place.id, [], DENIED, str(error)))
    return found


def trial(
    name: str, *, bucket: str = "", region: str = "", settings: Mapping[str, str] | None = None, only: str = "",
    file: Path | None = None,
) -> Trial:  # fmt: skip
    """The suites against an account: `name` is a provider, reached by `settings` as in the migration file, or a place
    of `file`, which has its own. Raises Invalid for bad settings, Unsupported when no port there has a suite."""
    from crossload.conformance.trial import PORTS, Trial

    if name not in PROVIDERS and file is not None and file.exists():
        migration = _sound_file(file)
        if name not in migration.places:
            hint = f"providers: {', '.join(PROVIDERS)}; places: {', '.join(migration.places)}"
            raise Unsupported(f"no provider is called {name}, and no place of {file}", hint=hint)
        if settings or region:
            raise Invalid(f"place {name} has its settings in {file}", hint="name a provider to set others")
        place = migration.places[name]
        values = environment_of(migration)
    else:
        provider(name)
        section = PlaceSection(id=f"{name}-trial", provider=name, region=region, connection=dict(settings or {}))
        check_place(section)
        place, values = section.place(), environment(None, "")
    offered = [port for port in PORTS if port in provider(place.service(port).provider).ports]
    if not offered:
        able = [other for other in PROVIDERS if set(PORTS) & set(provider(other).ports)]
        raise Unsupported(f"{name} offers no port that has a suite ({', '.join(PORTS)})", hint=f"{', '.join(able)} do")

    def open_store(identity: str) -> Store:
        return RetryingStore(_opened(place, "store", values, identity=identity), RetryPolicy(), lambda _: None)

    openers: dict[str, Callable[[str], Any]] = {
        "store": open_store,
        "vectors": lambda identity: _opened(place, "vectors", values, identity=identity),
    }
    named = {setting.partition("@")[2] for port in offered for setting in place.service(port).connection}
    return Trial(place.id, {port: openers[port] for port in offered}, bucket, frozenset(named), only)


def relay_agent(
    migration: Migration, place: str, say: Callable[[str], None], *, body_bytes_max: int, **options: Any
) -> Agent:
    """The agent in front of one place's store, listening and not serving yet (docs/relay.md). `options` are those of
    AgentOptions. Raises Invalid and Refused for options open to strangers, Unavailable when the address is taken."""
    from crossload.engines.mover.chunks.content import Content, Write
    from crossload.engines.mover.chunks.patch import apply_patch
    from crossload.providers.relay.agent import Agent, AgentOptions
    from crossload.providers.relay.answering import Limits
    from crossload.providers.relay.patching import Read

    def apply(base: tuple[Read, int], patch: tuple[Read, int], out: Write, **known: Any) -> str:
        return apply_patch(Content(*base), Content(*patch), out, **known)

    raw: Store = _opened(_place_of(migration, place), "store", environment_of(migration))
    # Not for long: the other end waits and tries again too.
    store = RetryingStore(raw, RetryPolicy(give_up_seconds=30.0), say)
    return Agent(store, AgentOptions(limits=Limits(body_bytes_max=body_bytes_max), **options), apply, say)


def end_of_move(
    address: str, settings: Mapping[str, str], region: str, file: Path | None, say: Callable[[str], None],
    *, single: str = "", identity: str = "",
) -> End:  # fmt: skip
    """One end of a move: SCHEME://BUCKET/PREFIX, a folder or file of this machine, or PLACE:BUCKET/PREFIX of a
    migration file. `single` is the name of the one object that is to arrive there. Raises Invalid for an address that
    says nothing of these."""
    from crossload.engines.mover.ends import End, Meter

    place, values, bucket, key = _located(address, settings, region, file, single)
    meter, service = Meter(), place.service("store")
    try:
        raw: Store = _opened(place, "store", values, identity=identity)
    except Invalid as error:
        known = ", ".join(sorted(provider(service.provider).settings["store"]))
        hint = error.hint if file is not None else f"--source-set or --target-set NAME=VALUE; there are: {known}"
        raise Invalid(str(error), hint=hint) from error
    store = metered(raw, meter.count)  # under the retries: what is read again has left again
    reach = (service.provider, *sorted(f"{name}={value}" for name, value in service.connection.items()))
    return End(RetryingStore(store, RetryPolicy(), say), bucket, key, address, reach, meter)


def _located(
    address: str, settings: Mapping[str, str], region: str, file: Path | None, single: str
) -> tuple[Place, Mapping[str, str], str, str]:
    """(place, what its references see, bucket, key)."""
    scheme, slashes, rest = address.partition("://")
    if not slashes:
        name, colon, rest = address.partition(":")
        if colon and "/" not in name:
            return _place_named(address, name, rest, settings, region, file)
        scheme, rest = "file", address
    known = {one: name for name in PROVIDERS for one in provider(name).schemes}
    if scheme == "file":
        name, folder, key = "local", *_on_disk(address, rest, single)
        bucket = folder.name
        settings = {**settings, "root": str(folder.parent)}
    elif scheme in known:
        name = known[scheme]
        bucket, _, key = rest.partition("/")
    else:
        raise Invalid(
            f"{address}: no provider knows {scheme}://",
            hint=f"known: {', '.join(f'{one}://' for one in known)}, file://",
        )
    if not bucket:
        raise Invalid(f"{address} names no bucket", hint=f"{scheme}://BUCKET/PREFIX")
    section = PlaceSection(id=name, provider=name, region=region, connection=dict(settings))
    check_place(section)
    return section.place(), environment(None, ""), bucket, key


def _place_named(
    address: str, name: str, rest: str, settings: Mapping[str, str], region: str, file: Path | None
) -> tuple[Place, Mapping[str, str], str, str]:
    if file is None:
        hint = f"name that file with -f; a folder of this name is ./{address}"
        raise Invalid(f"{address}: {name} would be a place of a migration file", hint=hint)
    migration = _sound_file(file)
    if name not in migration.places:
        raise Invalid(f"no place of {file} is called {name}", hint=f"places: {', '.join(migration.places)}")
    if settings or region:
        raise Invalid(f"place {name} has its settings in {file}", hint="leave out settings and region of this end")
    bucket, _, key = rest.partition("/")
    if not bucket:
        raise Invalid(f"{address} names no bucket", hint=f"{name}:BUCKET/PREFIX")
    return migration.places[name], environment_of(migration), bucket, key


def _on_disk(address: str, text: str, single: str) -> tuple[Path, str]:
    """(folder, key in it) of a path. Links are followed once and for all: two names of one folder are one place."""
    path = Path(text).expanduser().resolve()
    at_file = path.is_file()
    if at_file and (single not in ("", path.name) or text.endswith("/")):
        raise Invalid(f"{address} is a file, and no folder", hint=f"what arrives keeps its name: {single}".rstrip(": "))
    if at_file or (path.name == single and not text.endswith("/") and not path.is_dir()):
        return path.parent, path.name
    return path, ""


@dataclass(frozen=True, slots=True)
class StoreAt:
    """Opens one place's store in whatever process calls it: references are resolved there, and no value travels.
    `variables` is the environment file."""

    place: Place
    variables: Path | None = None

    def __call__(self, say: Callable[[str], None]) -> Store:
        values = environment(self.variables, "correct `environment:` in the migration file")
        return RetryingStore(_opened(self.place, "store", values), RetryPolicy(), say)


def store_at(migration: Migration, place: str) -> StoreAt:
    """Raises Invalid for an unknown place."""
    named = migration.file.environment
    return StoreAt(_place_of(migration, place), migration.folder / named if named else None)


def open_fleet(migration: Migration, place: str) -> Fleet:
    """The fleet of a place: its own provider's, or that of its service `fleet`."""
    return _opened(_place_of(migration, place), "fleet", environment_of(migration))


def serve_fleet(
    migration: Migration, place: str, *, at_once: int, stop: threading.Event, act: Act | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> None:  # fmt: skip
    """Carry shards for the fleet of a place until `stop` is set (docs/fleet.md). Only places of this migration file are
    opened, as whoever this machine is signed in as."""
    from crossload.engines.mover import fleets
    from crossload.engines.mover.options import CopyOptions, Watcher

    options = CopyOptions.of(migration.file.data)
    fleets.serve_fleet(
        open_fleet(migration, place), lambda name: store_at(migration, name)(say), options, act,
        at_once=at_once, stop=stop, watcher=Watcher(say=say),
    )  # fmt: skip


def environment_of(migration: Migration) -> dict[str, str]:
    """What `env:` references of a migration file see."""
    named = migration.file.environment
    hint = "is the lab up? (`crossload lab up`); or correct `environment:` in the migration file"
    return environment(migration.folder / named if named else None, hint)


def _sound_file(file: Path) -> Migration:
    """A migration file that only lends its places. Raises Invalid with its first error."""
    migration, problems = read_file(file)
    if migration is None:
        raise Invalid(f"{file} has errors: {errors_in(problems)[0]}", hint="`crossload validate` shows all of them")
    return migration


def _place_of(migration: Migration, place: str) -> Place:
    found = migration.places.get(place)
    if found is None:
        raise Invalid(f"no place is called {place}", hint=f"places: {', '.join(migration.places)}")
    return found


def _opened(
    place: Place, wanted: str, environment: Mapping[str, str], *, identity: str = "", answering: str = ""
) -> Any:
    """`wanted` of the provider that answers the port `answering` there; the same port, unless said."""
    service = place.service(answering or wanted)
    return provider(service.provider).open(wanted, Settings(place, service.connection, environment, identity))


class CloudWorld:
    """The World of a real run. Ports are opened once; every store waits and retries."""

    def __init__(self, migration: Migration, inventory: Inventory, ledger: Ledger, progress: Progress) -> None:
        self.migration = migration
        self.inventory = inventory
        self.workspace = workspace_of(migration)
        self.progress = progress
        self._ledger = ledger
        self._environment = environment_of(migration)
        self._open: dict[tuple[str, str, str, str], Any] = {}

    def store(self, place: str, identity: str = "") -> Store:
        raw: Store = self._port(place, "store", identity=identity)
        return RetryingStore(raw, RetryPolicy(), self.progress.say)

    def vectors(self, place: str) -> Vectors:
        return self._port(place, "vectors")

    def models(self, place: str) -> Models:
        return self._port(place, "models")

    def identity(self, place: str, port: str = "") -> Identity:
        return self._of(place, port, "identity")

    def account(self, place: str) -> Account:
        return self._port(place, "account")

    def policy(self, place: str, port: str = "") -> Policy:
        return self._of(place, port, "policy")

    def probe(self, place: str, port: str = "") -> Probe:
        return self._of(place, port, "probe")

    def agents(self, place: str) -> Agents:
        return self._port(place, "agents")

    def code(self, place: str, port: str = "store") -> Code:
        """How app code reaches this port of the place."""
        return self._of(place, port, "code")

    def infra(self, place: str) -> Infra:
        return self._port(place, "infra")

    def outcome(self, step: str) -> Mapping[str, Any] | None:
        state = self._ledger.state(step)
        return state.data if state is not None and state.data else None

    def _of(self, place: str, port: str, wanted: str) -> Any:
        """`wanted` of the provider that answers `port` there: a database has roles and rights of its own."""
        return self._port(place, wanted, answering=port)

    def _port(self, place: str, wanted: str, *, identity: str = "", answering: str = "") -> Any:
        key = (place, wanted, identity, answering)
        if key not in self._open:
            self._open[key] = _opened(
                _place_of(self.migration, place), wanted, self._environment, identity=identity, answering=answering
            )
        return self._open[key]
