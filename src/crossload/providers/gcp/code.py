"""Cloud Storage as a target of converted code: what it offers, its errors, and what a child process needs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from crossload.ports.code import Setting, WriteRow, Writing, reference_of, secret_value
from crossload.ports.provider import Settings

WRITE: Mapping[str, WriteRow] = {
    "objects.get": WriteRow("read_object"),
    "objects.put": WriteRow("write_object"),
    "objects.head": WriteRow("describe_object"),
    "objects.delete": WriteRow("remove_object"),
    "objects.delete_many": WriteRow("remove_object", ("the target deletes one object a request",)),
    "objects.copy": WriteRow("duplicate_object"),
    "objects.list": WriteRow("list_page"),
}
SETTINGS = (
    Setting("CROSSLOAD_OBJECTS_ENDPOINT", "storage endpoint; empty means Google's own"),
    Setting("CROSSLOAD_OBJECTS_PROJECT", "project id; empty means the credentials' own"),
    Setting("CROSSLOAD_BUCKETS", "JSON object: source bucket -> target bucket, where they differ"),
    Setting("CROSSLOAD_OIDC_ISSUER", "issuer of workload tokens; empty means Application Default Credentials"),
    Setting("CROSSLOAD_OIDC_CLIENT_ID", "who we are at that issuer"),
    Setting("CROSSLOAD_OIDC_CLIENT_SECRET", "reference to the secret of that client", secret=True),
    Setting("CROSSLOAD_OIDC_AUDIENCE", "audience of the token"),
)


def target_part() -> str:
    return Path(__file__).with_name("portable.py").read_text(encoding="utf-8")


def _errors() -> Mapping[int, str]:
    from crossload.providers.gcp.portable import STORAGE_ERRORS

    return STORAGE_ERRORS


WRITING = Writing(
    name="Cloud Storage, through google-cloud-storage",
    group="objects",
    class_name="Objects",
    rows=WRITE,
    errors=_errors,
    requirements=("google-cloud-storage>=3.4",),
    settings=SETTINGS,
    part=target_part,
)


def open_code(settings: Settings) -> GcpCode:
    return GcpCode(settings)


class GcpCode:
    """The Code port of a place that applications come to."""

    reading = None
    writing = WRITING

    def __init__(self, settings: Settings) -> None:
        self.place = settings.place.id
        self._settings = replace(settings, identity="app")

    def environment(self) -> dict[str, str]:
        get = self._settings.get
        named = {"CROSSLOAD_OBJECTS_ENDPOINT": get("endpoint"), "CROSSLOAD_OBJECTS_PROJECT": get("project")}
        if get("issuer"):
            named |= {
                "CROSSLOAD_OIDC_ISSUER": get("issuer"),
                "CROSSLOAD_OIDC_AUDIENCE": get("audience"),
                "CROSSLOAD_OIDC_CLIENT_ID": get("client_id"),
                "CROSSLOAD_OIDC_CLIENT_SECRET": reference_of(self._settings, "client_secret"),
            }
        return {name: value for name, value in named.items() if value}

    def inherited(self, environment: Mapping[str, str]) -> dict[str, str]:
        # An emulator variable would silently win over the endpoint that we name.
        return {name: value for name, value in environment.items() if name != "STORAGE_EMULATOR_HOST"}

    def cut_off(self, services: Collection[str]) -> dict[str, str]:
        return {}

    def redact(self, text: str) -> str:
        value = secret_value(self._settings, "client_secret")
        return text.replace(value, "***") if value else text
