"""Prompts for the mirror and the canary, from a JSONL file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from crossload.ports.errors import Invalid
from crossload.ports.models import ChatRequest

# Used when the migration names no file: they exercise both endpoints, and say nothing about the team's own questions.
GENERAL = (
    "What is the capital of France?", "Name a prime number between 10 and 20.", "What colour is a ripe banana?",
    "How many days are in a week?", "Spell the word cat backwards.", "What do bees make?",
    "Is water wet? Answer yes or no.", "What comes after Monday?", "Name one planet.", "What is 2 plus 3?",
)  # fmt: skip


def read_prompts(path: Path | None, count: int, *, max_tokens: int = 8) -> list[ChatRequest]:
    """`count` greedy requests, going round the file as often as needed. A line holds `prompt`, or `question` with an
    optional `context`; `system` and `max_tokens` are optional. Raises Invalid with file and line."""
    entries: list[dict[str, Any]] = [{"prompt": text} for text in GENERAL] if path is None else _read(path)
    requests = [_request(entry, max_tokens) for entry in entries]
    return [requests[number % len(requests)] for number in range(count)]


def _read(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise Invalid(f"cannot read the prompts: {error}", hint="correct `cutover.questions`") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise Invalid(f"{path}:{number}: not JSON: {error}", hint="one JSON object a line") from error
        if not isinstance(entry, dict) or not (entry.get("prompt") or entry.get("question")):
            raise Invalid(f"{path}:{number}: no `prompt` and no `question`", hint='for example {"prompt": "..."}')
        found.append(entry)
    if not found:
        raise Invalid(f"{path} holds no prompts", hint="one JSON object a line")
    return found


def _request(entry: dict[str, Any], max_tokens: int) -> ChatRequest:
    text = entry.get("prompt") or "\n".join(part for part in (entry.get("context", ""), entry["question"]) if part)
    return ChatRequest.ask(
        text, system=entry.get("system", ""), max_tokens=entry.get("max_tokens", max_tokens), temperature=0.0, seed=1
    )
