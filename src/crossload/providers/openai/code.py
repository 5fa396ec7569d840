"""An OpenAI-compatible endpoint as a target of converted code."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from crossload.ports.code import Setting, WriteRow, Writing, reference_of, secret_value
from crossload.ports.provider import Settings

WRITE: Mapping[str, WriteRow] = {
    "chat.complete": WriteRow("ask"),
    "chat.stream": WriteRow("ask_stream"),
}
SETTINGS = (
    Setting("CROSSLOAD_CHAT_URL", "base URL of the model endpoint, with its /v1"),
    Setting("CROSSLOAD_CHAT_KEY", "reference to its key; empty means none", secret=True),
    Setting("CROSSLOAD_CHAT_MODEL", "model to ask; empty means the name that the caller gives"),
)


def target_part() -> str:
    return Path(__file__).with_name("portable.py").read_text(encoding="utf-8")


def _errors() -> Mapping[int, str]:
    from crossload.providers.openai.portable import CHAT_STATUS

    return CHAT_STATUS


WRITING = Writing(
    name="an OpenAI-compatible endpoint, with the standard library",
    group="chat",
    class_name="Chat",
    rows=WRITE,
    errors=_errors,
    requirements=(),
    settings=SETTINGS,
    part=target_part,
)


def open_code(settings: Settings) -> OpenaiCode:
    return OpenaiCode(settings)


class OpenaiCode:
    """The Code port of a model endpoint that applications come to."""

    reading = None
    writing = WRITING

    def __init__(self, settings: Settings) -> None:
        self.place = settings.place.id
        self._settings = replace(settings, identity="app")

    def environment(self) -> dict[str, str]:
        named = {
            "CROSSLOAD_CHAT_URL": self._settings.require("base_url"),
            "CROSSLOAD_CHAT_KEY": reference_of(self._settings, "key"),
            "CROSSLOAD_CHAT_MODEL": self._settings.get("model"),
        }
        return {name: value for name, value in named.items() if value}

    def inherited(self, environment: Mapping[str, str]) -> dict[str, str]:
        return dict(environment)

    def cut_off(self, services: Collection[str]) -> dict[str, str]:
        return {}

    def redact(self, text: str) -> str:
        value = secret_value(self._settings, "key")
        return text.replace(value, "***") if value else text
