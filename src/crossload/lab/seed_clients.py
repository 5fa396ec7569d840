"""The administrator's clients of cloud A, for the seed only, and what every part of the seed hands back."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROFILE = "lab-a-seed"


class SeedError(RuntimeError):
    """The sample workload could not be put into cloud A; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class SeedEvent:
    """Progress of one part: `done` of `total` items of `part` (docs, models, index, account)."""

    part: str
    done: int
    total: int


@dataclass(slots=True)
class Tally:
    """What one part did. `made` and `kept` count items written now and found as they should be."""

    part: str
    total: int
    on_event: Callable[[SeedEvent], None] | None = None
    made: list[str] = field(default_factory=list)
    kept: int = 0
    size_bytes: int = 0
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _told: float = 0.0

    def add(self, name: str, *, made: bool, size_bytes: int = 0) -> None:
        with self._guard:
            if made:
                self.made.append(name)
            else:
                self.kept += 1
            self.size_bytes += size_bytes
            done = len(self.made) + self.kept
            now = time.monotonic()
            # A listener that draws would cost more than the work it reports.
            if self.on_event is None or (done < self.total and now - self._told < 0.1):
                return
            self._told = now
        self.on_event(SeedEvent(self.part, done, self.total))


class Clients:
    """boto3 clients by service, made once; building one costs up to a second."""

    def __init__(self, env: Mapping[str, str]) -> None:
        try:
            import boto3
            import botocore.session
        except ImportError as error:
            raise SeedError("the seed needs boto3: pip install 'crossload[aws]'") from error
        for name in ("CROSSLOAD_LAB_AWS_CONFIG", "CROSSLOAD_LAB_AWS_CREDENTIALS"):
            if name not in env:
                raise SeedError(f"cloud A is not up here ({name} is missing): crossload lab up")
        core = botocore.session.Session(profile=PROFILE)
        core.set_config_variable("config_file", env["CROSSLOAD_LAB_AWS_CONFIG"])
        core.set_config_variable("credentials_file", env["CROSSLOAD_LAB_AWS_CREDENTIALS"])
        self._session: Any = boto3.Session(botocore_session=core)
        self._made: dict[str, Any] = {}
        self._guard = threading.Lock()

    def get(self, service: str) -> Any:
        from botocore.config import Config

        with self._guard:
            if service not in self._made:
                config = Config(
                    retries={"mode": "standard", "total_max_attempts": 4},
                    max_pool_connections=16,
                    s3={"addressing_style": "path"},
                    # The seed compares ETags itself; a second digest of every byte would only cost time.
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                )
                self._made[service] = self._session.client(service, config=config)
            return self._made[service]

    @property
    def region(self) -> str:
        return str(self._session.region_name)


def code_of(error: Any) -> str:
    """The error code a service answered with, or the bare HTTP status as text."""
    answer = error.response
    return str(answer.get("Error", {}).get("Code") or answer.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))


def md5_of_file(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
