"""Our signer and our verifier against the official SDK's own signer."""

from __future__ import annotations

import time
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from crossload.engines.gateway.keys import KeyRing, signing_pair
from crossload.engines.gateway.wire.sigv4 import SignatureWrong, SigningCredentials, sign, verify

SECRETS = {"AKID": "secret"}
# A model called "." or ".." would be a path segment the SDK folds away; no host has one.
segments = st.text(alphabet="abcXYZ019-._~", min_size=1, max_size=8).filter(lambda text: text.strip("."))


def signed_by_sdk(path: str, body: bytes, token: str | None = None, headers: dict[str, str] | None = None) -> Any:
    request = AWSRequest("POST", f"http://gateway.test:8080{path}", headers=headers or {}, data=body)
    SigV4Auth(Credentials("AKID", "secret", token), "bedrock", "eu-west-1").add_auth(request)
    found = {name.lower(): str(value) for name, value in request.headers.items()}
    return {"host": "gateway.test:8080", **found}


@given(st.lists(segments, min_size=1, max_size=4), st.binary(max_size=60), st.sampled_from((None, "token")))
def test_verifies_what_the_sdk_signs(parts: list[str], body: bytes, token: str | None) -> None:
    path = "/model/" + "%3A".join(parts) + "/converse"
    headers = signed_by_sdk(path, body, token, {"content-type": "application/json", "x-odd": " a   b "})
    assert verify(SECRETS, "POST", path, headers, body, time.time()) == "AKID"


@given(st.lists(segments, min_size=1, max_size=4), st.binary(max_size=60), st.sampled_from(("", "token")))
def test_verifies_what_we_sign(parts: list[str], body: bytes, token: str) -> None:
    path = "/model/" + "%2F".join(parts) + "/converse"
    headers = sign(SigningCredentials("AKID", "secret", token), "POST", "h", path, body)
    assert verify(SECRETS, "POST", path, {"host": "h", **headers}, body, time.time()) == "AKID"


def test_everything_that_is_signed_is_protected() -> None:
    path, body = "/model/a%3A0/converse", b'{"x":1}'
    headers = signed_by_sdk(path, body)
    now = time.time()
    cases: list[tuple[str, str, dict[str, str], bytes]] = [
        ("denied", path, headers, b'{"x":2}'),
        ("denied", "/model/b%3A0/converse", headers, body),
        ("denied", path, {**headers, "host": "elsewhere"}, body),
        ("denied", f"{path}?a=1", headers, body),
        ("not_signed_in", path, {**headers, "authorization": headers["authorization"].replace("AKID", "AKIE")}, body),
        ("not_signed_in", path, {"host": "h"}, body),
        ("not_signed_in", path, {**headers, "authorization": "AWS4-HMAC-SHA256 rubbish"}, body),
        ("not_signed_in", path, {**headers, "x-amz-date": "yesterday"}, body),
        ("not_signed_in", path, {**headers, "x-amz-date": "20269901T000000Z"}, body),
    ]
    for code, target, changed, content in cases:
        with pytest.raises(SignatureWrong) as caught:
            verify(SECRETS, "POST", target, changed, content, now)
        assert caught.value.code == code
    for late in (now + 901, now - 901):
        with pytest.raises(SignatureWrong):
            verify(SECRETS, "POST", path, headers, body, late)


def test_credentials_do_not_print_their_secret() -> None:
    assert "secret" not in repr(SigningCredentials("AKID", "secret"))


def test_pair_is_stable_and_the_ring_admits_both_forms() -> None:
    from crossload.engines.gateway.errors import GatewayError
    from crossload.engines.gateway.keys import Client

    key = "cl_0123456789abcdef"
    key_id, secret = signing_pair(key)
    assert (key_id, secret) == signing_pair(key)
    assert len(key_id) == 20
    assert len(secret) == 40
    assert key not in key_id + secret
    ring = KeyRing([(Client("app"), key)])
    headers = sign(SigningCredentials(key_id, secret), "POST", "h", "/x", b"")
    assert ring.admit("POST", "/x", {"host": "h", **headers}, b"", time.time()).name == "app"
    assert ring.admit("POST", "/x", {"authorization": f"Bearer {key}"}, b"", 0).name == "app"
    for wrong in ({}, {"authorization": "Bearer nope"}, {"authorization": "Basic eA=="}):
        with pytest.raises(GatewayError):
            ring.admit("POST", "/x", wrong, b"", 0)
