"""Is a token the issuer's own? Checks signature, issuer, audience and times; no claim is believed before."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from crossload.lab.loopback import direct


def is_genuine(token: str, issuer: str, audience: str) -> bool:
    """True when `issuer` (asked for its keys now) signed this RS256 token for `audience` and it is valid now."""
    try:
        signed, _, signature = token.rpartition(".")
        header, claims = (json.loads(_decode(part)) for part in signed.split("."))
        if header["alg"] != "RS256" or claims["iss"] != issuer:
            return False
        _key(issuer, header["kid"]).verify(_decode(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        now = time.time()
        audiences = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
        return audience in audiences and claims.get("nbf", 0) <= now + 1 and now < claims["exp"]
    except (InvalidSignature, ValueError, KeyError, TypeError, OSError):
        return False


def _key(issuer: str, key_id: str) -> rsa.RSAPublicKey:
    with direct.open(f"{issuer}/jwks", timeout=5) as answer:
        keys: list[dict[str, Any]] = json.load(answer)["keys"]
    (key,) = (key for key in keys if key["kid"] == key_id)
    return rsa.RSAPublicNumbers(
        int.from_bytes(_decode(key["e"]), "big"), int.from_bytes(_decode(key["n"]), "big")
    ).public_key()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
