"""What a scan finds, in neutral words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

ADAPTER_MODULE = "crossload_portable"


def is_adapter(module: str) -> bool:
    """Whether a dotted module is a generated adapter, whatever package it lies in."""
    return module.rpartition(".")[2] == ADAPTER_MODULE


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """The call that made a client. Byte offsets are those of the callee expression (`sdk.client`) and of its object
    (`sdk`). `of_session` says that the object is a session and stays; `converted` that the adapter made the client;
    `options` are the keywords that were given beside the service."""

    path: str
    line: int
    start: int
    end: int
    object_end: int
    of_session: bool = False
    converted: bool = False
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Argument:
    """One keyword of a call; `neutral` is "" when it has no neutral form."""

    keyword: str
    neutral: str = ""


@dataclass(frozen=True, slots=True)
class NeutralCall:
    """One cloud call. `op` is "" when no row exists. `evidence`: flow (the client was traced to its constructor),
    annotation (a type says so), name (only names say so: never edited). `untraced` says that keywords come from a
    mapping whose keys are not known. `results` are the keys of the answer that the code reads nearby."""

    path: str
    line: int
    column: int
    service: str
    method: str
    op: str
    arguments: tuple[Argument, ...]
    evidence: str
    origins: tuple[Origin, ...]
    results: tuple[str, ...] = ()
    untraced: bool = False
    paginated: bool = False
    in_test: bool = False
    maker: str = "client"

    def to_json(self) -> dict[str, Any]:
        return {
            "path": self.path, "line": self.line, "column": self.column, "service": self.service,
            "method": self.method, "op": self.op, "arguments": {item.keyword: item.neutral for item in self.arguments},
            "evidence": self.evidence, "in_test": self.in_test,
        }  # fmt: skip
