"""The Infra port of a cloud that Terraform knows: what is the same whoever's resources the foundations become.

What the landing zones of several providers share; it knows no provider."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import resources

from crossload.ports.infra import Block, Constraint, Expression, Foundations, TerraformFiles, Value

Blocks = Callable[[Foundations], Iterable[Block]]
KEEP_KEY = Block("lifecycle", (), {"prevent_destroy": True}, note="Without the key the data cannot be read again.")


@dataclass(slots=True)
class TerraformInfra:
    """Foundations at `place` as the resources of one Terraform provider.

    `cloud` is OpenTelemetry's `cloud.provider`; `schema_file` lies in the package `room`; `rules` are what the schema
    does not say. `main`, `variables` and `outputs` each make one file's blocks in order."""

    place: str
    cloud: str
    room: str
    schema_file: str
    rules: tuple[Constraint, ...]
    main: Blocks
    variables: Blocks
    outputs: Blocks

    def terraform(self, foundations: Foundations) -> TerraformFiles:
        return TerraformFiles({
            "main.tf": tuple(self.main(foundations)),
            "variables.tf": tuple(self.variables(foundations)),
            "outputs.tf": tuple(self.outputs(foundations)),
        })  # fmt: skip

    def schema(self) -> bytes | None:
        return resources.files(self.room).joinpath(self.schema_file).read_bytes()

    def constraints(self) -> tuple[Constraint, ...]:
        return self.rules

    def telemetry_attributes(self) -> Mapping[str, str]:
        return {"cloud.provider": self.cloud}


def slug(name: str) -> str:
    """A Terraform name."""
    text = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    return text if text[:1].isalpha() else f"x_{text}"


def labels(foundations: Foundations) -> dict[str, Value]:
    """What everything here is marked with, in an order that stays."""
    return dict(sorted(foundations.labels.items()))


def required(name: str, version: str) -> Block:
    """What must be there to apply the files: Terraform, and HashiCorp's provider `name`."""
    wanted: dict[str, Value] = {name: {"source": f"hashicorp/{name}", "version": version}}
    return Block("terraform", (), {"required_version": ">= 1.5"}, (Block("required_providers", (), wanted),))


def variable(name: str, kind: str, description: str, **more: Value) -> Block:
    return Block("variable", (name,), {"type": Expression(kind), "description": description, **more})


def output(name: str, value: Value, description: str) -> Block:
    return Block("output", (name,), {"value": value, "description": description})


def sign_in_variables(foundations: Foundations) -> list[Block]:
    """By which tokens workloads take their roles; nothing where there are no roles."""
    if not foundations.roles:
        return []
    subjects: dict[str, Value] = {role.name: role.subject for role in foundations.roles}
    return [
        variable("oidc_issuer", "string", "Issuer URL of the tokens that workloads sign in with."),
        variable("oidc_audience", "string", "Audience those tokens must carry."),
        variable("role_subjects", "map(string)", "Role -> `sub` of the token that may take it.", default=subjects),
    ]
