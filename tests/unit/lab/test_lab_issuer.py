"""The issuer's tokens, checked by another library than the one that made them."""

from __future__ import annotations

from pathlib import Path

import jwt
import pytest

from crossload.lab.programs.issuer import Issuer


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    (tmp_path / "oidc-mover").write_text("s3cret\n")
    return Issuer("http://127.0.0.1:1", tmp_path, tmp_path, "crossload-lab")


def _read(issuer: Issuer, token: str, audience: str = "crossload-lab") -> dict[str, object]:
    key = jwt.PyJWKSet.from_dict(issuer.jwks)[jwt.get_unverified_header(token)["kid"]]
    claims: dict[str, object] = jwt.decode(token, key, algorithms=["RS256"], audience=audience, issuer=issuer.url)
    return claims


def test_a_token_is_signed_for_its_subject_and_audience(issuer: Issuer) -> None:
    assert _read(issuer, issuer.token("mover", None, 60))["sub"] == "mover"
    with pytest.raises(jwt.InvalidAudienceError):
        _read(issuer, issuer.token("mover", "somebody-else", 60))


def test_an_expired_token_can_be_made_and_is_expired(issuer: Issuer) -> None:
    with pytest.raises(jwt.ExpiredSignatureError):
        _read(issuer, issuer.token("mover", None, -1))


def test_the_key_survives_a_restart(issuer: Issuer, tmp_path: Path) -> None:
    again = Issuer(issuer.url, tmp_path, tmp_path, "crossload-lab")
    assert _read(again, issuer.token("mover", None, 60))["sub"] == "mover"
    assert (tmp_path / "key.pem").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("client", "secret", "known"),
    [
        ("mover", "s3cret", True),
        ("mover", "wrong", False),
        ("mover", "", False),
        ("nobody", "s3cret", False),
        ("../oidc-mover", "s3cret", False),
        ("", "", False),
    ],
)
def test_only_the_right_secret_is_known(issuer: Issuer, client: str, secret: str, known: bool) -> None:
    assert issuer.knows(client, secret) is known
