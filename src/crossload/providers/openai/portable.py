"""The back of a generated adapter that asks any OpenAI-compatible endpoint, with the standard library alone.

The convert engine cuts what an application uses out of this file and writes it into that application's package."""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from crossload.ports.portable import Answer, Question, Trouble

CHAT_STATUS: Mapping[int, str] = {
    400: "invalid",
    401: "unsigned",
    403: "denied",
    404: "no-place",
    408: "unavailable",
    413: "invalid",
    422: "invalid",
    429: "throttled",
}
FINISH: Mapping[str, str] = {"stop": "stop", "length": "length", "content_filter": "filtered"}
ATTEMPTS = 4


def reference(name: str) -> str:
    """The setting `name`, which may be `file:PATH` or `env:NAME`: secrets are read when used and never copied."""
    text = os.environ.get(name, "")
    if text.startswith("file:"):
        return Path(text[5:]).expanduser().read_text(encoding="utf-8").strip()
    if text.startswith("env:"):
        return os.environ[text[4:]]
    return text


def web_address(name: str) -> str:
    """The setting `name` as an http address: urllib would open files as well."""
    text = os.environ.get(name, "").rstrip("/")
    if not text.startswith(("http://", "https://")):
        raise ValueError(f"{name} must be an http or https address")
    return text


class Chat:
    """Chat completions. Settings: CROSSLOAD_CHAT_URL (ends in /v1), _KEY, _MODEL (else the caller's model id)."""

    def __init__(self) -> None:
        self._url = web_address("CROSSLOAD_CHAT_URL") + "/chat/completions"

    def ask(self, question: Question) -> Answer:
        began = time.monotonic()
        with self._open(self._body(question)) as answer, chat_errors(self._url):
            reply: dict[str, Any] = json.load(answer)
        choice = reply["choices"][0]
        counts = reply.get("usage") or {}
        return Answer(
            choice["message"].get("content") or "",
            finish_of(choice.get("finish_reason")),
            counts.get("prompt_tokens"),
            counts.get("completion_tokens"),
            time.monotonic() - began,
        )

    def ask_stream(self, question: Question) -> Iterator[str | Answer]:
        began = time.monotonic()
        body = {**self._body(question), "stream": True, "stream_options": {"include_usage": True}}
        text, finish = "", None
        counts: dict[str, int] = {}
        with self._open(body) as answer, chat_errors(self._url):
            for event in server_events(answer):
                if event.get("error"):
                    raise Trouble("unavailable", str(event["error"]), 500)
                counts = event.get("usage") or counts
                for choice in event.get("choices", ()):
                    finish = choice.get("finish_reason") or finish
                    piece = (choice.get("delta") or {}).get("content")
                    if piece:
                        text += piece
                        yield piece
        if finish is None:
            raise Trouble("unavailable", "the stream ended before the answer did", 502)
        seconds = time.monotonic() - began
        yield Answer(text, finish_of(finish), counts.get("prompt_tokens"), counts.get("completion_tokens"), seconds)

    def _body(self, question: Question) -> dict[str, Any]:
        turns = [("system", question.system)] if question.system else []
        settings = {
            "max_tokens": question.max_tokens,
            "temperature": question.temperature,
            "top_p": question.top_p,
            "stop": question.stop,
        }
        return {
            "model": os.environ.get("CROSSLOAD_CHAT_MODEL") or question.model,
            "messages": [{"role": role, "content": text} for role, text in turns + question.turns],
            **{name: value for name, value in settings.items() if value is not None},
        }

    def _open(self, body: dict[str, Any]) -> Any:
        """The answer's stream; throttled and failed requests are tried again, as the SDK's standard mode does."""
        headers = {"Content-Type": "application/json"}
        key = reference("CROSSLOAD_CHAT_KEY")
        if key:
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self._url, json.dumps(body).encode(), headers)  # noqa: S310
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with chat_errors(self._url):
                    return urllib.request.urlopen(request, timeout=120)  # noqa: S310
            except Trouble as trouble:
                if trouble.kind not in ("throttled", "unavailable", "unreachable") or attempt == ATTEMPTS:
                    raise
                time.sleep(0.2 * 2**attempt)
        raise AssertionError("the last attempt returns or raises")


@contextmanager
def chat_errors(endpoint: str) -> Iterator[None]:
    """HTTP's errors as neutral trouble. The request's body is not in the message: it may be confidential."""
    try:
        yield
    except urllib.error.HTTPError as error:
        with error:
            said = error.read(500).decode("utf-8", "replace")
        kind = CHAT_STATUS.get(error.code) or ("unavailable" if error.code >= 500 else "invalid")
        raise Trouble(kind, f"HTTP {error.code}: {said}", error.code) from None
    except (OSError, http.client.HTTPException) as error:
        raise Trouble("unreachable", str(error), endpoint=endpoint) from error
    except ValueError as error:
        raise Trouble("unavailable", f"the answer is not JSON: {error}", 502) from error


def server_events(stream: Any) -> Iterator[dict[str, Any]]:
    """The data of server-sent events, up to `[DONE]`."""
    for line in stream:
        data = line.strip().removeprefix(b"data:").strip() if line.startswith(b"data:") else b""
        if data == b"[DONE]":
            return
        if data:
            yield json.loads(data)


def finish_of(reason: Any) -> str:
    return FINISH.get(str(reason), "stop")
