"""MiniStack in our own process, so that five of its habits can be made honest.

It forwards Bedrock to a real model without credentials; our model wants a key. When the model does not answer it
invents an answer: here that becomes an error, as it would be on the real service. It says end_turn of an answer that
was cut off: here it says max_tokens. It drops the schema an answer shall fit: here the model gets it. And it believes
the claims of any web identity token: here the token must be signed by the lab's issuer and be valid now.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import threading
import urllib.request
import urllib.response
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crossload.lab.programs.tokens import is_genuine

_wanted = threading.local()  # the schema that the Converse call of this thread asks for
_FINISH = "crossload_finish"  # a key in a message that no model uses


class ModelUnreachable(RuntimeError):
    """The model behind Bedrock did not answer; an invented answer would pass for a real one."""


class _FinishForBedrock(urllib.request.BaseHandler):
    """Puts the model's own finish reason into its message, since MiniStack keeps only the message."""

    def http_response(self, request: urllib.request.Request, response: Any) -> Any:
        if not request.full_url.endswith("/chat/completions") or response.status != 200:
            return response
        body = response.read()
        with contextlib.suppress(ValueError, KeyError, IndexError, TypeError):
            value = json.loads(body)
            choice = value["choices"][0]
            choice["message"][_FINISH] = choice["finish_reason"]
            body = json.dumps(value).encode()
        again: Any = urllib.response.addinfourl(io.BytesIO(body), response.headers, response.url, response.status)
        again.msg = response.msg
        return again


class _KeyForModel(urllib.request.BaseHandler):
    def __init__(self, base: str, key_file: Path) -> None:
        self._base = base
        self._key_file = key_file

    def http_request(self, request: urllib.request.Request) -> urllib.request.Request:
        if request.full_url.startswith(self._base):
            schema = getattr(_wanted, "schema", None)
            if schema is not None and isinstance(request.data, bytes):
                form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
                request.data = json.dumps({**json.loads(request.data), "response_format": form}).encode()
                request.add_unredirected_header("Content-Length", str(len(request.data)))
            request.add_unredirected_header("Authorization", f"Bearer {self._key_file.read_text().strip()}")
        return request


def _never_invent(ask: Callable[..., Any]) -> Callable[..., Any]:
    def asked(*arguments: Any, **named: Any) -> Any:
        reply = ask(*arguments, **named)
        if reply is None or (isinstance(reply, tuple) and reply[0] is None):
            raise ModelUnreachable("the model behind Bedrock did not answer")
        return reply

    return asked


def _with_schema(converse: Callable[..., Any]) -> Callable[..., Any]:
    """Converse's `outputConfig` asks for an answer in a JSON schema; MiniStack drops it, our model understands it."""

    def asked(model_id: str, headers: Any, body: Any) -> Any:
        try:
            form = json.loads(body)["outputConfig"]["textFormat"]["structure"]["jsonSchema"]["schema"]
            _wanted.schema = json.loads(form) if isinstance(form, str) else form
        except (ValueError, KeyError, TypeError):
            _wanted.schema = None
        try:
            return converse(model_id, headers, body)
        finally:
            _wanted.schema = None

    return asked


def _honest_stop(blocks_of: Callable[..., Any]) -> Callable[..., Any]:
    """An answer that was cut off is not one that ended: Bedrock says max_tokens."""

    def asked(message: dict[str, Any]) -> Any:
        blocks, stop = blocks_of(message)
        return blocks, "max_tokens" if stop == "end_turn" and message.get(_FINISH) == "length" else stop

    return asked


def _only_genuine(principal_of: Callable[..., Any], issuer: str, audience: str) -> Callable[..., Any]:
    def checked(token: str, provider: str, role_arn: str) -> Any:
        # No principal and no claims: no trust policy lets that in.
        return principal_of(token, provider, role_arn) if is_genuine(token, issuer, audience) else ("", {})

    return checked


def main() -> None:
    base = os.environ["MINISTACK_BEDROCK_PROXY_URL"]
    key_file = Path(os.environ["CROSSLOAD_LAB_LLM_KEY_FILE"])
    urllib.request.install_opener(
        urllib.request.build_opener(urllib.request.ProxyHandler({}), _KeyForModel(base, key_file), _FinishForBedrock())
    )
    from ministack.services import bedrock_runtime, sts  # pyright: ignore[reportMissingTypeStubs]

    # Named here, so that a release that renames them stops at start and not in the middle of a comparison.
    for name in ("_proxy_openai_chat_message", "_proxy_to_openai_chat", "_proxy_openai_passthrough"):
        setattr(bedrock_runtime, name, _never_invent(getattr(bedrock_runtime, name)))
    for name in ("_converse", "_converse_stream"):
        setattr(bedrock_runtime, name, _with_schema(getattr(bedrock_runtime, name)))
    blocks_of: Any = getattr(bedrock_runtime, "_converse_blocks_from_message")  # noqa: B009  # private there
    setattr(bedrock_runtime, "_converse_blocks_from_message", _honest_stop(blocks_of))  # noqa: B010
    issuer, audience = os.environ["CROSSLOAD_LAB_OIDC_ISSUER"], os.environ["CROSSLOAD_LAB_OIDC_AUDIENCE"]
    principal_of: Any = getattr(sts, "_web_identity_principal")  # noqa: B009  # private there
    setattr(sts, "_web_identity_principal", _only_genuine(principal_of, issuer, audience))  # noqa: B010
    from ministack.app import main as serve  # pyright: ignore[reportMissingTypeStubs]

    serve()


if __name__ == "__main__":
    main()
