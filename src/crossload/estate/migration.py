"""The migration file: its schema (pydantic, at this door only) and the frozen value the rest of the house sees."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError
from pydantic_core.core_schema import ValidationInfo

from crossload.estate.place import Place, Service

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Country = Annotated[str, Field(pattern=r"^[A-Z]{2}$")]


class Section(BaseModel):
    """Unknown keys are errors: a misspelt limit must not silently become no limit. Nor may `.nan`, which nothing is
    ever above or below."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)


class Metadata(Section):
    name: Name = Field(description="Name of this migration.")
    owner: str = Field(description="Team or person who answers for it.")
    deadline: date | None = Field(default=None, description="Last day on which the cutover must be committed.")


class Metric(Section):
    name: Name = Field(description="Name of the metric, as the report shows it.")
    measure: Literal[
        "latency_p95", "error_rate", "answer_agreement", "cost_per_1k_tokens", "digest_mismatches", "data_lag"
    ] = Field(description="What is measured; each is measured by one stage of Crossload.")
    direction: Literal["lower", "higher"] = Field(description="Which way is better.")
    limit: float = Field(description="Worst value at which the migration still counts as a success.")
    unit: str = Field(description="Unit of `limit`: s, ratio, usd, count.")
    rollback_at: float | None = Field(default=None, description="Value at which traffic goes back to the source.")


class Budget(Section):
    one_time_usd: float | None = Field(default=None, ge=0, description="Ceiling for moving once.")
    monthly_usd: float | None = Field(default=None, ge=0, description="Ceiling for running at the target.")


class Goals(Section):
    metrics: list[Metric] = Field(min_length=3, max_length=5, description="Three to five metrics that decide.")
    budget: Budget = Budget()


class ServiceSection(Section):
    provider: str = Field(description="Provider that answers this port here.")
    connection: dict[str, str] = Field(default_factory=dict, description="Settings; values may be env: or file:.")


PORTS = Literal["store", "vectors", "models", "identity", "account", "policy", "probe", "fleet"]


class PlaceSection(Section):
    id: Name = Field(description="Short name of this place, used all over the plan.")
    provider: str = Field(description="Provider of the place: aws, gcp, azure, local.")
    region: str = Field(description="Region in the provider's own spelling.")
    country: Country | None = Field(default=None, description="ISO 3166-1 alpha-2 country of the region.")
    connection: dict[str, str] = Field(default_factory=dict, description="Settings; values may be env: or file:.")
    services: dict[PORTS, ServiceSection] = Field(default_factory=dict, description="Ports served by others.")

    def place(self) -> Place:
        services = {port: Service(item.provider, item.connection) for port, item in self.services.items()}
        return Place(self.id, self.provider, self.region, self.country or "", self.connection, dict(services))


class Regions(Section):
    min: int = Field(default=2, ge=1, description="The plan must be able to use at least this many regions.")
    max: int | None = Field(default=None, ge=1)


class Targets(Section):
    allow: list[PlaceSection] = Field(min_length=1, description="Places that may be chosen.")
    regions: Regions = Regions()
    residency: dict[str, list[str]] = Field(
        default_factory=dict, description="sensitivity -> allowed countries (ISO codes) or sets (EU, EEA, US)."
    )
    forbid: list[str] = Field(default_factory=list, description="Place ids or regions never to use.")


class Match(Section):
    kind: str | None = Field(default=None, description="Asset kind (dataset, model, index, ...).")
    name: str | None = Field(default=None, description="Name or glob of the asset as discovered.")


class Overlay(Section):
    match: Match
    set: dict[Literal["id", "sensitivity", "uptime", "app", "owner", "move", "risk", "serves"], str] = Field(
        description="Facts people know and clouds do not. `id` renames; `move: no` leaves the asset where it is; "
        "`serves` names the model artifact (model:NAME) behind an endpoint."
    )


DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _quoted(value: Any) -> Any:
    """YAML 1.1 reads a bare 22:00 as a number to the base of sixty, and 06:00 as text."""
    if isinstance(value, int):
        raise PydanticCustomError("clock", 'write the time in quotes ("22:00"): without them YAML reads a number')
    return value


def _zone(value: str) -> str:
    try:
        if value != "UTC":
            ZoneInfo(value)
    except (ValueError, OSError, LookupError) as error:  # LookupError: ZoneInfoNotFoundError is one
        raise PydanticCustomError(
            "zone", "no time zone of that name in this system's database; Europe/Berlin and UTC are such names"
        ) from error
    return value


Clock = Annotated[str, BeforeValidator(_quoted), Field(pattern=r"^(([01]\d|2[0-3]):[0-5]\d|24:00)$")]


def minutes_of(clock: str) -> int:
    """Minutes since midnight of a `Clock`; 24:00 is 1440."""
    return int(clock[:2]) * 60 + int(clock[3:])


class Window(Section):
    """A stretch of the week, as the clock on the wall of `zone` shows it. It belongs to the day it begins on."""

    days: list[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]] = Field(
        default=list(DAYS), min_length=1, description="Days on which the window begins: mon, tue, ... Every day."
    )
    begins: Clock = Field(alias="from", description='Time it begins, in quotes: "22:00".')
    ends: Clock = Field(
        alias="to", description='Time it ends, the next day unless that is after `from`; "24:00" is midnight.'
    )
    zone: str = Field(default="UTC", description="IANA time zone of the two times, such as Europe/Berlin.")
    mib_per_second: float | None = Field(
        default=None, ge=0, description="Ceiling inside the window; 0 stops the move, left out means no ceiling."
    )

    _known_zone = field_validator("zone")(_zone)

    @field_validator("begins")
    @classmethod
    def _on_this_day(cls, value: str) -> str:
        if value == "24:00":
            raise PydanticCustomError("clock", 'a window cannot begin at 24:00; write "00:00" and the day after')
        return value

    @field_validator("ends")
    @classmethod
    def _not_empty(cls, value: str, info: ValidationInfo) -> str:
        if value == info.data.get("begins"):
            raise PydanticCustomError(
                "clock", 'a window cannot end when it begins; the whole day is from "00:00" to "24:00"'
            )
        return value


class EgressWaiver(Section):
    """A provider's word that bytes leaving `place` between two days (UTC, both included) are not billed."""

    place: Name = Field(description="Place the bytes leave.")
    reference: str = Field(min_length=1, description="The provider's case or contract number.")
    approved_by: str = Field(default="", description="Who approved it; without it the waiver does not count.")
    approved_on: date | None = Field(default=None, description="Day of the approval; it covers nothing before that.")
    begins: date = Field(alias="from", description="First day it covers (UTC).")
    ends: date = Field(alias="to", description="Last day it covers (UTC).")
    cap_gib: float | None = Field(default=None, gt=0, description="Most it covers, in GiB; left out means no cap.")

    @field_validator("ends")
    @classmethod
    def _in_order(cls, value: date, info: ValidationInfo) -> date:
        begins = info.data.get("begins")
        if begins is not None and value < begins:
            raise PydanticCustomError("waiver", "a waiver cannot end before its first day")
        return value


class DataRules(Section):
    part_size_mib: int = Field(default=16, ge=5, le=512)
    workers: int = Field(default=8, ge=1, le=256)
    bandwidth_mib_per_second: float | None = Field(
        default=None, gt=0, description="Ceiling on the link, outside `windows`; left out means none."
    )
    windows: list[Window] = Field(
        default=[], description="Hours with a ceiling of their own; where several hold, the lowest one does."
    )
    outside: Literal["limit", "stop"] = Field(
        default="limit", description="Outside all windows: `limit` goes on under the bandwidth above, `stop` waits."
    )
    egress_waivers: list[EgressWaiver] = Field(default=[], description="Approved waivers of the fees for bytes out.")
    reread_sample: float = Field(default=0.01, ge=0, le=1, description="Share of objects read back and hashed.")
    allow_mass_delete: bool = Field(default=False, description="Let a delta delete more than 1 % of the keys.")
    versions: Literal["latest", "all"] = Field(
        default="latest", description="`all` carries older versions and delete markers too, where both sides keep them."
    )
    manifest: Literal["sha256"] = "sha256"
    signing_key: str = Field(
        default="", description="ed25519 key that signs the manifests: env:NAME or file:PATH; else one is made."
    )

    @model_validator(mode="after")
    def _moves_at_some_time(self) -> Self:
        if self.outside == "stop" and all(window.mib_per_second == 0 for window in self.windows):
            raise PydanticCustomError(
                "outside", "with `outside: stop` nothing ever moves unless a window lets it; add one under `windows`"
            )
        return self


class Gateway(Section):
    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65535, description="0 picks a free port and writes it down.")


class Cutover(Section):
    mirror_requests: int = Field(default=200, ge=20, description="Requests sent to both sides before any user moves.")
    questions: str = Field(default="", description="JSONL file of prompts for the mirror, relative to this file.")
    canary_weights: list[int] = Field(default=[5, 25, 50, 100], description="Percent of traffic at the target.")
    requests_per_weight: int = Field(default=40, ge=5)
    drill: bool = Field(default=True, description="Roll back once on purpose before the ramp.")


class ToolServerSection(Section):
    command: str = Field(description="Program that starts the MCP server (python is the running interpreter).")
    arguments: list[str] = Field(default_factory=list, description="Its arguments; relative to this file's folder.")
    environment: dict[str, str] = Field(default_factory=dict, description="Settings or references, never secrets.")


class Agents(Section):
    tools: dict[str, ToolServerSection] = Field(
        default_factory=dict, description="Tool name, its group, or * -> the MCP server that has it."
    )
    conversations: str = Field(default="", description="JSONL of rehearsals (`id`, `say`), relative to this file.")


class App(Section):
    path: str = Field(description="Folder of the app's code, relative to this file.")
    test: list[str] = Field(default=["python", "-m", "pytest", "-q"], description="Command that runs its tests.")
    branch: str = Field(default="crossload/portable", description="Git branch that receives the converted code.")


class MigrationFile(Section):
    """The whole file."""

    api_version: Literal["crossload/v1"] = Field(alias="apiVersion")
    kind: Literal["Migration"]
    metadata: Metadata
    environment: str = Field(default="", description="KEY=VALUE file that env: references may use, beside the process.")
    goals: Goals
    sources: list[PlaceSection] = Field(min_length=1)
    targets: Targets
    overlays: list[Overlay] = []
    data: DataRules = DataRules()
    gateway: Gateway = Gateway()
    cutover: Cutover = Cutover()
    agents: Agents = Agents()
    app: App | None = None


class Migration:
    """A migration file that passed the door, with the folder it lives in. `places` holds every place by id."""

    def __init__(self, file: MigrationFile, path: Path) -> None:
        self.file = file
        self.path = path
        self.folder = path.resolve().parent
        sections = [*file.sources, *file.targets.allow]
        self.places: dict[str, Place] = {section.id: section.place() for section in sections}
        self.source_ids = tuple(section.id for section in file.sources)
        self.target_ids = tuple(section.id for section in file.targets.allow)

    @property
    def name(self) -> str:
        return self.file.metadata.name

    @property
    def source(self) -> Place:
        return self.places[self.source_ids[0]]

    def to_json(self) -> dict[str, Any]:
        return self.file.model_dump(mode="json", by_alias=True)


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the migration file, for editors."""
    schema = MigrationFile.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "migration.schema.json", **schema}
