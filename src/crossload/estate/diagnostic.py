"""Plan-time problems are values: all of them at once, each with a place and a way out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One problem. `code` is stable (XL1xx file, XL2xx goals, XL3xx inventory, XL4xx placement, XL5xx data,
    XL6xx models and agents, XL7xx code, XL8xx landing and assurance, XL9xx cutover); `subject` is an asset id or
    a file; `hint` says what to do next; `line` and `column` count from 1, 0 when there is no file."""

    severity: Severity
    code: str
    summary: str
    detail: str = ""
    subject: str = ""
    hint: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        where = self.subject
        if self.line:
            where = f"{self.subject}:{self.line}:{self.column}"
        text = f"{where + ': ' if where else ''}{self.severity} {self.code}: {self.summary}"
        if self.detail:
            text += f"\n  {self.detail}"
        if self.hint:
            text += f"\n  hint: {self.hint}"
        return text

    def to_json(self) -> dict[str, Any]:
        return {
            "severity": str(self.severity), "code": self.code, "summary": self.summary, "detail": self.detail,
            "subject": self.subject, "hint": self.hint, "line": self.line, "column": self.column,
        }  # fmt: skip

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Diagnostic:
        """Raises KeyError, TypeError or ValueError when it is none of ours."""
        fields: dict[str, Any] = {**value, "severity": Severity(value["severity"])}
        return cls(**fields)

    @classmethod
    def error(cls, code: str, summary: str, **more: Any) -> Diagnostic:
        return cls(Severity.ERROR, code, summary, **more)

    @classmethod
    def warning(cls, code: str, summary: str, **more: Any) -> Diagnostic:
        return cls(Severity.WARNING, code, summary, **more)

    @classmethod
    def note(cls, code: str, summary: str, **more: Any) -> Diagnostic:
        return cls(Severity.NOTE, code, summary, **more)


def errors_in(diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    return [item for item in diagnostics if item.severity is Severity.ERROR]
