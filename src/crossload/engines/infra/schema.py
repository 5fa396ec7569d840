"""A provider's Terraform schema, read from the compact file that scripts/extract_terraform_schema.py makes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any


@dataclass(frozen=True, slots=True)
class Argument:
    """`type` is string | number | bool | list(x) | set(x) | map(x) | any. A `filled` argument that is not optional is
    read-only: the provider says it, nobody may set it."""

    type: str
    required: bool
    optional: bool
    filled: bool

    @property
    def settable(self) -> bool:
        return self.required or self.optional


class BlockSchema:
    """Arguments and nested blocks of a resource, or of a block in it."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self._raw = raw
        self.single = raw.get("n") == "1"
        self.required = "!" in raw.get("f", "")

    def argument(self, name: str) -> Argument | None:
        text: str | None = self._raw["a"].get(name)
        if text is None:
            return None
        kind = text.rstrip("!?=")
        marks = text[len(kind) :]
        return Argument(kind, "!" in marks, "?" in marks, "=" in marks)

    def block(self, name: str) -> BlockSchema | None:
        raw = self._raw.get("b", {}).get(name)
        return None if raw is None else BlockSchema(raw)

    @property
    def arguments(self) -> list[str]:
        return list(self._raw["a"])

    @property
    def blocks(self) -> list[str]:
        return list(self._raw.get("b", {}))


class ProviderSchema:
    """One version of one provider. `complete` is False when only the types we write were kept, so that an unknown
    type is then "not in our extract" and not "does not exist"."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.provider = str(document["provider"])
        self.version = str(document["version"])
        self.source = str(document["source"])
        self.complete = bool(document["complete"])
        self.settings = BlockSchema(document["settings"])
        self._resources: Mapping[str, Any] = document["resources"]

    @property
    def name(self) -> str:
        """`cloud` of `owner/cloud`: the prefix of its resource types."""
        return self.provider.rpartition("/")[2]

    @property
    def title(self) -> str:
        return f"{self.provider} {self.version}"

    def resource(self, kind: str) -> BlockSchema | None:
        raw = self._resources.get(kind)
        return None if raw is None else BlockSchema(raw)

    @property
    def kinds(self) -> list[str]:
        return list(self._resources)


@lru_cache(maxsize=4)
def read_schema(data: bytes) -> ProviderSchema:
    """Raises OSError or ValueError when the bytes are no schema file."""
    return ProviderSchema(json.loads(gzip.decompress(data)))
