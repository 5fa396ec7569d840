"""One HTTP exchange without any repair: the path goes out byte for byte, nothing is retried, nothing is followed.

What the probes of several providers share; it knows no provider."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Mapping
from urllib.parse import urlencode, urlsplit

from crossload.ports.errors import Invalid, NotSignedIn, Unavailable
from crossload.ports.probe import ProbeAnswer

_SECONDS_MAX = 15
_BODY_BYTES_MAX = 64 * 1024
_XML_MESSAGE = re.compile(rb"<Message>([^<]*)</Message>")


def exchange(
    endpoint: str, method: str, path: str, headers: Mapping[str, str], body: bytes, version_header: str = ""
) -> ProbeAnswer:
    """`version_header` names the answer's header that tells which version a write made. Raises Unavailable when nobody
    answers."""
    line = f"{method} {path}"
    connection = _connect(endpoint)
    try:
        connection.putrequest(method, path, skip_host=False, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        if body or method in ("POST", "PUT"):
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body or None)
        answer = connection.getresponse()
        data = answer.read(_BODY_BYTES_MAX)
        version = (answer.getheader(version_header) or "") if version_header else ""
        return ProbeAnswer(answer.status, line, _note(data), version, data)
    except http.client.InvalidURL as error:
        raise Invalid(f"{line}: {error}") from error
    except http.client.HTTPException as error:
        return ProbeAnswer(None, line, f"no HTTP answer: {type(error).__name__}")
    except OSError as error:
        raise Unavailable(f"{line}: {error}") from error
    finally:
        connection.close()


def post_form(url: str, form: Mapping[str, str]) -> str:
    """The `access_token` of an OAuth 2.0 token endpoint (RFC 6749 section 4.4). The answer is never shown."""
    split = urlsplit(url)
    data = urlencode({name: value for name, value in form.items() if value}).encode()
    connection = _connect(f"{split.scheme}://{split.netloc}")
    try:
        connection.request("POST", split.path, data, {"Content-Type": "application/x-www-form-urlencoded"})
        answer = connection.getresponse()
        raw = answer.read(_BODY_BYTES_MAX)
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"POST {split.path}: {error}") from error
    finally:
        connection.close()
    if answer.status != 200:
        raise NotSignedIn(f"POST {split.path}: HTTP {answer.status}")
    return str(json.loads(raw)["access_token"])


def _connect(endpoint: str) -> http.client.HTTPConnection:
    split = urlsplit(endpoint)
    kind = http.client.HTTPSConnection if split.scheme == "https" else http.client.HTTPConnection
    return kind(split.hostname or "", split.port, timeout=_SECONDS_MAX)


def _note(data: bytes) -> str:
    """The server's own words, one line."""
    try:
        return str(json.loads(data)["error"]["message"])[:160]
    except (ValueError, KeyError, TypeError):
        found = _XML_MESSAGE.search(data)
        if found:
            return found.group(1).decode("utf-8", "replace")[:160]
        return " ".join(data[:120].decode("utf-8", "replace").split())
