"""The three calls of a storage queue that hints need (REST), signed with the account's key or a token.

The SDK for queues is a package of its own; this is the part of it that is used here."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit
from xml.etree import ElementTree

from crossload.ports import errors
from crossload.ports.provider import Settings
from crossload.providers.azure.session import credential
from crossload.providers.keepalive import Answer, send

_VERSION = "2021-12-02"
_SCOPE = "https://storage.azure.com/.default"
HIDE_SECONDS = 120
_MESSAGES_MAX = 32
_CODES: Mapping[str, type[errors.CrossloadError]] = {
    "AuthenticationFailed": errors.NotSignedIn,
    "ServerBusy": errors.Throttled,
}
_STATUSES: Mapping[int, type[errors.CrossloadError]] = {
    401: errors.NotSignedIn, 403: errors.AccessDenied, 404: errors.NotFound, 429: errors.Throttled,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Message:
    """`receipt` is what `forget` wants; `text` is as it was put."""

    receipt: str
    text: str


class Queue:
    """A queue at its own address, such as https://ACCOUNT.queue.core.windows.net/NAME."""

    def __init__(self, settings: Settings, address: str) -> None:
        self._account = settings.require("account")
        self._key = settings.get("key")
        self._chain: Any = None if self._key else credential(settings)
        self.address = address.rstrip("/")

    def expect(self) -> None:
        """Raises NotFound when there is no such queue."""
        self._ask("GET", "", {"comp": "metadata"})

    def take(self) -> list[Message]:
        """Up to 32 messages, hidden from others for two minutes; it answers at once."""
        asked = {"numofmessages": str(_MESSAGES_MAX), "visibilitytimeout": str(HIDE_SECONDS)}
        answer = self._ask("GET", "/messages", asked)
        try:
            found = ElementTree.fromstring(answer.content)  # noqa: S314  # from the signed-in service, and it has no DTD
        except ElementTree.ParseError as error:
            raise errors.Invalid(f"{answer.path}: the answer is no XML") from error
        return [
            Message(f"{item.findtext('MessageId')} {item.findtext('PopReceipt')}", item.findtext("MessageText") or "")
            for item in found.iter("QueueMessage")
        ]

    def forget(self, receipt: str) -> None:
        """Silent when the message is gone, or was handed out again: then it comes once more."""
        number, _, pop = receipt.partition(" ")
        try:
            self._ask("DELETE", f"/messages/{quote(number, safe='')}", {"popreceipt": pop})
        except (errors.NotFound, errors.Invalid):
            return

    def put(self, text: str) -> None:
        body = ElementTree.Element("QueueMessage")
        ElementTree.SubElement(body, "MessageText").text = text
        self._ask("POST", "/messages", {}, ElementTree.tostring(body, "utf-8"))

    def make(self) -> None:
        self._ask("PUT", "", {})

    def _ask(self, method: str, path: str, asked: Mapping[str, str], content: bytes | None = None) -> Answer:
        url = self.address + path
        headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": _VERSION}
        if content is not None:
            headers["content-type"] = "application/xml"
        headers["authorization"] = self._authorization(method, url, asked, headers, content)
        answer = send(method, f"{url}?{urlencode(asked, quote_via=quote)}" if asked else url, headers, None, content)
        if answer.status_code < 300:
            return answer
        code = answer.headers.get("x-ms-error-code", "")
        kind = _CODES.get(code) or _STATUSES.get(answer.status_code)
        kind = kind or (errors.Unavailable if answer.status_code >= 500 else errors.Invalid)
        raise kind(f"{method} {answer.path}: HTTP {answer.status_code} {code}".strip())

    def _authorization(
        self, method: str, url: str, asked: Mapping[str, str], headers: Mapping[str, str], content: bytes | None
    ) -> str:
        """`Authorize with Shared Key` of the storage services, or a bearer token."""
        if not self._key:
            return f"Bearer {self._chain.get_token(_SCOPE).token}"
        length = str(len(content)) if content else ""
        plain = [method, "", "", length, "", headers.get("content-type", ""), "", "", "", "", "", ""]
        ours = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers) if name.startswith("x-ms-"))
        resource = f"/{self._account}{unquote(urlsplit(url).path)}"
        resource += "".join(f"\n{name}:{value}" for name, value in sorted(asked.items()))
        text = "\n".join(plain) + "\n" + ours + resource
        signed = hmac.new(base64.b64decode(self._key), text.encode(), hashlib.sha256).digest()
        return f"SharedKey {self._account}:{base64.b64encode(signed).decode()}"
