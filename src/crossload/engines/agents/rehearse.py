"""The same conversations on the source's model and on the target's, with the same tools, and the verdict."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossload.engines.agents.compare import Comparison, compare
from crossload.engines.agents.file import AgentFile
from crossload.engines.agents.loop import Complete, Conversation, run
from crossload.engines.agents.tools import ToolSession
from crossload.ports.errors import Invalid
from crossload.ports.models import Message

Talks = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """`floor` compares the source with itself on the first few cases: a source that does not repeat itself proves
    nothing about the target, so a report shows both. None when no floor was asked for."""

    source: Mapping[str, Conversation]
    target: Mapping[str, Conversation]
    comparison: Comparison
    floor: Comparison | None

    @property
    def good(self) -> bool:
        return self.comparison.equal and (self.floor is None or self.floor.equal)

    def summary(self) -> str:
        """One line for tables and evidence."""
        text = self.comparison.summary()
        if self.floor is not None and not self.floor.equal:
            text += f"; the source does not repeat itself: {self.floor.summary()}"
        undecided = [name for name, talk in self.source.items() if talk.finish == "undecided"]
        if undecided:
            text += f"; the source made no decision in {', '.join(undecided)}"
        return text

    def to_json(self) -> dict[str, Any]:
        """Calls and answers of both sides, for evidence."""
        return {
            "comparison": self.comparison.to_json(),
            "floor": self.floor.to_json() if self.floor is not None else None,
            "source": {name: talk.to_json() for name, talk in self.source.items()},
            "target": {name: talk.to_json() for name, talk in self.target.items()},
        }


def read_talks(path: Path) -> dict[str, str]:
    """Case id -> what the user says, from JSON lines with `id` and `say`. Raises Invalid with the line."""
    talks: dict[str, str] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"conversations {path}: {error}") from error
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            name, say = str(row["id"]), str(row["say"])
        except (ValueError, KeyError, TypeError) as error:
            raise Invalid(f"{path}:{number}: expected a JSON object with `id` and `say`") from error
        if name in talks:
            raise Invalid(f"{path}:{number}: case `{name}` is given twice")
        talks[name] = say
    return talks


def rehearse(
    agent: AgentFile,
    source: Complete,
    target: Complete,
    tools: ToolSession,
    talks: Talks,
    *,
    first: str = "auto",
    style: str = "schema",
    floor_cases: int = 2,
    on_talk: Callable[[str], None] | None = None,
) -> Rehearsal:
    """Run every case on both sides, and the first `floor_cases` twice on the source. `on_talk` hears each finished
    case. Both sides use the same tools, so only the models can differ. Errors of either side pass through."""

    def one(complete: Complete, say: str) -> Conversation:
        return run(agent, complete, tools, [Message("user", say)], first=first, style=style)

    left: dict[str, Conversation] = {}
    right: dict[str, Conversation] = {}
    again: dict[str, Conversation] = {}
    for number, (name, say) in enumerate(talks.items()):
        left[name] = one(source, say)
        right[name] = one(target, say)
        if number < floor_cases:
            again[name] = one(source, say)
        if on_talk is not None:
            on_talk(name)
    floor = compare({name: left[name].calls for name in again}, _calls(again)) if again else None
    return Rehearsal(left, right, compare(_calls(left), _calls(right)), floor)


def _calls(talks: Mapping[str, Conversation]) -> dict[str, Any]:
    return {name: talk.calls for name, talk in talks.items()}
