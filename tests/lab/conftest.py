"""What the lab's own tests share: a small client of cloud B's store, and the search for leftovers."""

from __future__ import annotations

import json
import os
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from crossload.lab import Lab


@pytest.fixture
def token(lab: Lab) -> Callable[..., str]:
    """token("mover"), token("mover", expires_in=-5): a bearer token of an identity of cloud B."""

    def ask(identity: str, **more: object) -> str:
        form = {
            "grant_type": "client_credentials",
            "client_id": identity,
            "client_secret": lab.secret(f"oidc-{identity}"),
            **{key: str(value) for key, value in more.items()},
        }
        answer = httpx.post(lab.env()["CROSSLOAD_LAB_OIDC_ISSUER"] + "/token", data=form)
        assert answer.status_code == 200, answer.text
        value: str = answer.json()["access_token"]
        return value

    return ask


@dataclass
class Front:
    """Cloud B's store, spoken to over plain HTTP as one identity."""

    http: httpx.Client
    bucket: str

    def media(self, name: str, content: bytes, **query: object) -> httpx.Response:
        asked = {"uploadType": "media", "name": name, **query}
        return self.http.post(f"/upload/storage/v1/b/{self.bucket}/o", params=asked, content=content)

    def multipart(self, name: str, content: bytes, **query: object) -> httpx.Response:
        body = b"--XX\r\nContent-Type: application/json\r\n\r\n" + json.dumps({"name": name}).encode()
        body += b"\r\n--XX\r\nContent-Type: text/plain\r\n\r\n" + content + b"\r\n--XX--\r\n"
        return self.http.post(
            f"/upload/storage/v1/b/{self.bucket}/o",
            params={"uploadType": "multipart", **query},
            content=body,
            headers={"Content-Type": "multipart/related; boundary=XX"},
        )

    def session(self, name: str, **query: object) -> httpx.Response:
        asked = {"uploadType": "resumable", **query}
        return self.http.post(f"/upload/storage/v1/b/{self.bucket}/o", params=asked, json={"name": name})

    def read(self, name: str, **query: object) -> httpx.Response:
        return self.http.get(f"/storage/v1/b/{self.bucket}/o/{urllib.parse.quote(name, safe='')}", params=query)

    def generation(self, name: str) -> str:
        value: str = self.read(name).json()["generation"]
        return value


@pytest.fixture
def front(lab: Lab, token: Callable[..., str], request: pytest.FixtureRequest) -> Any:
    """The store of cloud B as the mover, with an empty bucket of this test's own."""
    bucket = "t-" + request.node.name.lower().replace("_", "-").replace("[", "-").replace("]", "")[:50].strip("-.")
    with httpx.Client(base_url=lab.env()["CROSSLOAD_LAB_GCS_ENDPOINT"], timeout=30) as http:
        http.headers["Authorization"] = f"Bearer {token('mover')}"
        made = http.post("/storage/v1/b", params={"project": "p"}, json={"name": bucket})
        assert made.status_code in (200, 409), made.text
        yield Front(http, bucket)


def processes_of(home: Path) -> list[int]:
    """Every living process that knows this home by its command line or environment, except the test itself."""
    mark = str(home).encode()
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if mark in (entry / "cmdline").read_bytes() or mark in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@pytest.fixture
def leftovers() -> Callable[[Path], list[int]]:
    return processes_of
