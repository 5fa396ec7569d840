"""The Infra port: a place's foundations in neutral words, and how a provider spells them as Terraform resources.

The nouns live here because two rooms need them that may not know each other: the engine that derives, writes and
checks, and the providers that translate. Nothing in this port talks to a cloud."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias


@dataclass(frozen=True, slots=True)
class FoundationKey:
    """An encryption key. `rotation_days` is how often it gets a new version; `reason` names the assets it protects."""

    name: str
    rotation_days: int = 90
    reason: str = ""


@dataclass(frozen=True, slots=True)
class FoundationBucket:
    """A private, versioned, encrypted bucket. `key` is a FoundationKey's name, "" leaves the provider's own key.

    `assets` are the ids of what will live in it."""

    name: str
    assets: tuple[str, ...] = ()
    key: str = ""
    versioning: bool = True
    sensitivity: str = ""


@dataclass(frozen=True, slots=True, order=True)
class Grant:
    """One capability on one bucket, secret or model. Neutral capabilities: objects.list, objects.read,
    objects.write, objects.delete, secrets.read."""

    capability: str
    resource: str


@dataclass(frozen=True, slots=True)
class FoundationRole:
    """A workload's identity at the target, and the least it may do. It is assumed by a token of the team's own issuer
    whose subject is exactly `subject`: no key file exists."""

    name: str
    subject: str
    grants: tuple[Grant, ...] = ()
    asset: str = ""


@dataclass(frozen=True, slots=True)
class FoundationSecret:
    """The box for a secret, never its value."""

    name: str
    asset: str = ""


@dataclass(frozen=True, slots=True)
class LogSink:
    """Who touched which object, kept `retention_days`, in the same region as the data."""

    name: str
    retention_days: int = 400


@dataclass(frozen=True, slots=True)
class Foundations:
    """All that must stand at one place before traffic arrives. `labels` go on every resource that takes them."""

    migration: str
    place: str
    region: str
    country: str
    buckets: tuple[FoundationBucket, ...] = ()
    roles: tuple[FoundationRole, ...] = ()
    keys: tuple[FoundationKey, ...] = ()
    secrets: tuple[FoundationSecret, ...] = ()
    sink: LogSink | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Expression:
    """Terraform text that is code and not a string: `cloud_bucket.docs.name`, `var.region`."""

    text: str


@dataclass(frozen=True, slots=True)
class Template:
    """A string with `${...}` in it. A plain `str` is literal: its `${` is escaped when written."""

    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """A function of one argument around a value: `jsonencode({..})`."""

    name: str
    argument: Value


Scalar: TypeAlias = "str | bool | int | float"
Code: TypeAlias = "Expression | Template | Call"
Value: TypeAlias = "Scalar | Code | tuple[Value, ...] | Mapping[str, Value] | Mapping[Template, Value]"
"""A mapping is an object; its keys are all literal or all templates."""


@dataclass(frozen=True, slots=True)
class Block:
    """`resource "a" "b" { .. }` is Block("resource", ("a", "b"), ..); attributes come before nested blocks.

    `note` becomes a comment above the block: why it is there."""

    kind: str
    labels: tuple[str, ...] = ()
    attributes: Mapping[str, Value] = field(default_factory=dict)
    blocks: tuple[Block, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class TerraformFiles:
    """`files` maps a file name (main.tf, variables.tf, outputs.tf) to its blocks in order."""

    files: Mapping[str, tuple[Block, ...]]


@dataclass(frozen=True, slots=True)
class Constraint:
    """What a provider's schema does not say and a cloud does: the values of one attribute.

    `attribute` is `type.path.name`; `pattern` is a regular expression for the whole value; `rule` says it in words."""

    attribute: str
    pattern: str
    rule: str


class Infra(Protocol):
    """Pure translation for one place."""

    place: str

    def terraform(self, foundations: Foundations) -> TerraformFiles: ...
    def schema(self) -> bytes | None:
        """The provider's Terraform schema (gzip of JSON, see scripts/extract_terraform_schema.py), or None."""
        ...

    def constraints(self) -> tuple[Constraint, ...]: ...
    def telemetry_attributes(self) -> Mapping[str, str]:
        """OpenTelemetry resource attributes that name this cloud (`cloud.provider` and so on)."""
        ...
