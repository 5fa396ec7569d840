"""What a harmless call says of a permission: refused, let through, or nothing at all."""

from __future__ import annotations

import pytest

from crossload.ports.errors import (
    AccessDenied,
    CrossloadError,
    Invalid,
    NotFound,
    NotSignedIn,
    PreconditionFailed,
    Throttled,
    Unavailable,
)
from crossload.ports.identity import Permission, judged

READ = Permission("objects.read", "docs")


@pytest.mark.parametrize(
    "kind, verdict",
    [
        (AccessDenied, "denied"), (NotSignedIn, "denied"), (NotFound, "allowed"), (PreconditionFailed, "allowed"),
        (Unavailable, "unknown"), (Throttled, "unknown"), (Invalid, "unknown"),
    ],
)  # fmt: skip
def test_an_error_is_a_verdict_only_where_it_is_about_the_right(kind: type[CrossloadError], verdict: str) -> None:
    def ask() -> str:
        raise kind("in the server's words")

    found = judged(READ, ask)
    assert (found.permission, found.verdict) == (READ, verdict)
    assert "in the server's words" in found.how


@pytest.mark.parametrize("how, verdict", [("GetObject answered", "allowed"), ("", "unknown")])
def test_an_answer_allows_and_no_call_tells_nothing(how: str, verdict: str) -> None:
    found = judged(READ, lambda: how)
    assert (found.verdict, found.how) == (verdict, how or "no harmless call tells")


def test_a_mistake_of_ours_is_no_verdict() -> None:
    def ask() -> str:
        raise KeyError("x")

    with pytest.raises(KeyError):
        judged(READ, ask)
