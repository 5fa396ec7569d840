"""Signing in to a registry: answers to its challenges (RFC 9110 section 11, RFC 6750), from references in settings.

A token is asked for one repository and one kind of access, is kept until it is about to end, and goes to the registry
and nowhere else. User and password go to the registry (Basic) or to the token server that the registry named."""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

from crossload.ports import errors
from crossload.ports.provider import Settings
from crossload.providers.registry.wire import Reply, Wire, origin_of

_CLIENT = "crossload"
_LIFE_SECONDS = 60.0  # what a token lives when its server does not say: the token specification's default
_EARLY_SECONDS = 10.0  # a token this close to its end is renewed, so that no blob starts under a dying one
_PARAMETER = re.compile(r'([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_SCHEME = re.compile(r"(?:^|,)\s*([A-Za-z][\w-]*)\s+(?=[\w-]+\s*=)")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge of `WWW-Authenticate`: `scheme` is lower-case, so are the names of `parameters`."""

    scheme: str
    parameters: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Held:
    header: str = field(repr=False)
    until: float


def challenges_of(values: Sequence[str]) -> list[Challenge]:
    """All challenges, of one header or several."""
    found: list[Challenge] = []
    for value in values:
        starts = list(_SCHEME.finditer(value))
        for number, start in enumerate(starts):
            end = starts[number + 1].start() if number + 1 < len(starts) else len(value)
            pairs = _PARAMETER.findall(value[start.end() : end])
            parameters = {name.lower(): re.sub(r"\\(.)", r"\1", quoted) or bare for name, quoted, bare in pairs}
            found.append(Challenge(start[1].lower(), parameters))
        if not starts and value.strip():
            found.append(Challenge(value.split()[0].lower(), {}))
    return found


class Credentials:
    """What is sent as `authorization`, by scope (`repository:NAME:pull` or `...:pull,push`)."""

    def __init__(self, settings: Settings, endpoint: str, wire: Wire) -> None:
        self._settings = settings
        self._endpoint, self._wire = endpoint, wire
        self._mutex = threading.Lock()
        self._held: dict[str, _Held] = {}

    def header(self, scope: str) -> str:
        """What is known to be good for this scope now; "" when nothing is."""
        with self._mutex:
            held = self._held.get(scope)
        return held.header if held is not None and held.until - time.monotonic() > _EARLY_SECONDS else ""

    def forget(self, scope: str) -> None:
        with self._mutex:
            self._held.pop(scope, None)

    def answer(self, reply: Reply, scope: str) -> str:
        """The header that a 401 asks for. Raises NotSignedIn when we have nothing to answer it with."""
        asked = challenges_of(reply.challenges)
        bearer = next((item for item in asked if item.scheme == "bearer" and item.parameters.get("realm")), None)
        if bearer is not None:
            held = self._token(bearer, scope)
        elif any(item.scheme == "basic" for item in asked):
            held = _Held(self._basic(self._endpoint, f"{reply.what} asks for a user"), float("inf"))
        else:
            kinds = ", ".join(item.scheme for item in asked) or "nothing"
            raise errors.NotSignedIn(f"{self._who()}: {reply.what}: HTTP 401, and it offers {kinds} to sign in with")
        with self._mutex:
            self._held[scope] = held
        return held.header

    def _token(self, challenge: Challenge, scope: str) -> _Held:
        """A bearer token of the server that the challenge names; anonymous where the settings name nobody."""
        realm = challenge.parameters["realm"]
        if urlsplit(realm).scheme not in ("https", urlsplit(self._endpoint).scheme):
            raise errors.Refused(f"{self._who()}: it wants our credentials sent to {realm}, without TLS")
        scopes = challenge.parameters.get("scope", "").split(" ")
        wanted = {"service": challenge.parameters.get("service", ""), "client_id": _CLIENT}
        pairs = [(name, value) for name, value in wanted.items() if value]
        pairs += [("scope", item) for item in dict.fromkeys([*scopes, scope]) if item]
        refresh = self._settings.get("identity_token")
        began = time.monotonic()
        if refresh:
            self._check_clear(realm)
            joined = " ".join(value for name, value in pairs if name == "scope")
            form = {**wanted, "scope": joined, "grant_type": "refresh_token", "refresh_token": refresh}
            headers = {"content-type": "application/x-www-form-urlencoded"}
            reply = self._wire.request("POST", realm, headers, urlencode(form).encode())
        else:
            signed = {"authorization": self._basic(realm, "")} if self._settings.get("username") else {}
            url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(pairs)}"
            reply = self._wire.request("GET", url, signed, follow=True)
        return self._granted(reply, began)

    def _granted(self, reply: Reply, began: float) -> _Held:
        data = reply.read()
        if reply.status_code in (400, 401, 403):
            raise errors.NotSignedIn(
                f"{self._who()}: its token server refused: HTTP {reply.status_code}",
                hint="check username and the reference password of this place",
            )
        if reply.status_code != 200:
            retryable = reply.status_code >= 500 or reply.status_code == 429
            kind = errors.Unavailable if retryable else errors.Invalid
            raise kind(f"{self._who()}: its token server: HTTP {reply.status_code}")
        try:
            found: dict[str, Any] = json.loads(data)
            token = str(found.get("token") or found["access_token"])
            life = float(found.get("expires_in") or _LIFE_SECONDS)
        except (ValueError, KeyError, TypeError, AttributeError):
            # Not chained: the error would carry the answer, and a token in it, into a traceback.
            raise errors.Invalid(f"{self._who()}: its token server's answer holds no token") from None
        return _Held(f"Bearer {token}", began + max(life, _EARLY_SECONDS + 1))

    def _basic(self, url: str, why: str) -> str:
        user = self._settings.get("username")
        if not user:
            text = f"{self._who()}: {why}, and the settings name none"
            raise errors.NotSignedIn(text, hint="add `username:` and `password:` (a reference) to the connection")
        self._check_clear(url)
        return "Basic " + base64.b64encode(f"{user}:{self._settings.require('password')}".encode()).decode()

    def _check_clear(self, url: str) -> None:
        """Credentials over plain HTTP are everybody's on the way; on this machine there is no way."""
        parts = urlsplit(url)
        here = parts.hostname in ("localhost", "::1") or (parts.hostname or "").startswith("127.")
        if parts.scheme != "https" and not here and self._settings.get("plain_http") != "allowed":
            raise errors.Refused(
                f"{self._who()}: credentials would go to {origin_of(url)} in clear text",
                hint="use an https endpoint, or set `plain_http: allowed` on this connection",
            )

    def _who(self) -> str:
        return f"place {self._settings.place.id} ({urlsplit(self._endpoint).netloc})"
