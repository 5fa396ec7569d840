"""What both ends of the relay call things: version 1 of the protocol. docs/relay.md draws it."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from crossload.estate.digest import Digest
from crossload.ports import errors
from crossload.ports.store import BucketInfo, ObjectInfo, ObjectMeta, Part, StoreFeatures

ROOT = "/v1"
TOLD = "x-crossload-told"  # base64 of a JSON object: what goes with a body
ZSTD = "zstd"
TOLD_BYTES_MAX = 40 * 1024
USER_METADATA_BYTES_MAX = 16 * 1024  # user metadata travel in a header
_NO_FEATURES = StoreFeatures()
_STATUS = {
    "access-denied": 403, "not-signed-in": 401, "not-found": 404, "precondition-failed": 412, "digest-mismatch": 422,
    "unsupported": 501, "throttled": 503, "unavailable": 502, "invalid": 400, "refused": 403,
}  # fmt: skip
_ERRORS: dict[str, type[errors.CrossloadError]] = {
    kind.code: kind
    for kind in (
        errors.AccessDenied, errors.NotSignedIn, errors.NotFound, errors.PreconditionFailed, errors.DigestMismatch,
        errors.Unsupported, errors.Throttled, errors.Unavailable, errors.Invalid, errors.Refused,
    )
}  # fmt: skip


def to_header(told: Mapping[str, Any]) -> str:
    """Raises Invalid for more than a header may hold, or for text that is no Unicode."""
    try:
        text = json.dumps(told, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise errors.Invalid(f"text that is no Unicode: {error.reason}", hint="rename it at the source") from None
    if len(text) > TOLD_BYTES_MAX:
        raise errors.Invalid(f"{len(text)} bytes of metadata are more than a relay carries ({TOLD_BYTES_MAX})")
    return base64.b64encode(text).decode()


def from_header(text: str) -> dict[str, Any]:
    """Raises Invalid when it is not what `to_header` gives."""
    try:
        told = json.loads(base64.b64decode(text, validate=True)) if text else {}
    except (binascii.Error, ValueError, RecursionError) as error:
        raise errors.Invalid(f"the header {TOLD} makes no sense: {error}") from error
    if not isinstance(told, dict):
        raise errors.Invalid(f"the header {TOLD} is no object")
    return told  # pyright: ignore[reportUnknownVariableType]


def digests_to_json(digests: Iterable[Digest]) -> list[str]:
    return [str(item) for item in digests]


def digests_from_json(told: Iterable[Any]) -> tuple[Digest, ...]:
    return tuple(Digest.parse(str(item)) for item in told)


def info_to_json(info: ObjectInfo) -> dict[str, Any]:
    return {**asdict(info), "digests": digests_to_json(info.digests)}


def info_from_json(told: Mapping[str, Any]) -> ObjectInfo:
    return ObjectInfo(
        str(told["key"]), int(told["size_bytes"]), str(told["etag"]), str(told.get("version", "")),
        float(told.get("modified_at", 0.0)), digests_from_json(told.get("digests", ())),
        bool(told.get("is_latest", True)), bool(told.get("is_delete_marker", False)),
    )  # fmt: skip


def meta_to_json(meta: ObjectMeta) -> dict[str, Any]:
    """Only what is set."""
    told = {field.name: getattr(meta, field.name) for field in fields(meta)}
    return {name: dict(value) if isinstance(value, Mapping) else value for name, value in told.items() if value}


def meta_from_json(told: Mapping[str, Any]) -> ObjectMeta:
    values: dict[str, Any] = {}
    for field in fields(ObjectMeta):
        if field.name in ("user", "tags"):
            values[field.name] = {str(key): str(value) for key, value in told.get(field.name, {}).items()}
        else:
            values[field.name] = str(told.get(field.name, ""))
    return ObjectMeta(**values)


def part_to_json(part: Part) -> dict[str, Any]:
    return asdict(part)


def part_from_json(told: Mapping[str, Any]) -> Part:
    return Part(int(told["number"]), int(told["offset_bytes"]), int(told["size_bytes"]), str(told["etag"]))


def bucket_from_json(told: Mapping[str, Any]) -> BucketInfo:
    versioning = told.get("versioning")
    return BucketInfo(
        str(told["name"]), str(told.get("region", "")), None if versioning is None else bool(versioning),
        str(told.get("encryption", "unknown")),
    )  # fmt: skip


def features_to_json(features: StoreFeatures) -> dict[str, Any]:
    told = asdict(features)
    return {name: sorted(value) if isinstance(value, frozenset) else value for name, value in told.items()}


def features_from_json(told: Mapping[str, Any]) -> StoreFeatures:
    """Of the store behind the agent; user metadata are limited by what a header carries. What an older agent does not
    say, or a newer one says besides, is left at the default."""
    values: dict[str, Any] = {}
    for field in fields(StoreFeatures):
        if field.name in told:
            kind, value = type(getattr(_NO_FEATURES, field.name)), told[field.name]
            values[field.name] = kind(value)
    features = StoreFeatures(**values)
    most = min(features.user_metadata_bytes_max, USER_METADATA_BYTES_MAX)
    return replace(features, user_metadata_bytes_max=most)


def error_to_json(error: errors.CrossloadError) -> tuple[int, dict[str, Any]]:
    """(HTTP status, body). An error that this protocol has no word for is `invalid`."""
    code = error.code if error.code in _STATUS else next(
        (kind.code for kind in type(error).__mro__ if issubclass(kind, errors.CrossloadError) and kind.code in _STATUS),
        "invalid",
    )  # fmt: skip
    told: dict[str, Any] = {"code": code, "message": str(error), "hint": error.hint}
    if error.retry_after_seconds is not None:
        told["retry_after_seconds"] = error.retry_after_seconds
    return _STATUS[code], told


def error_from_answer(status: int, content: bytes, line: str) -> errors.CrossloadError:
    """The agent's own error again; by the status where something else answered."""
    told: Any = None
    try:
        told = json.loads(content)
    except ValueError:
        pass
    if isinstance(told, dict) and told.get("code") in _ERRORS:  # pyright: ignore[reportUnknownMemberType]
        wait: Any = told.get("retry_after_seconds")  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        return _ERRORS[told["code"]](
            str(told.get("message", line)),  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
            hint=str(told.get("hint", "")),  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
            retry_after_seconds=float(wait) if isinstance(wait, int | float) else None,
        )
    text = f"{line}: HTTP {status}"
    if status in (401, 407):
        return errors.NotSignedIn(text)
    if status == 403:
        return errors.AccessDenied(text)
    if status == 429:
        return errors.Throttled(text)
    if status >= 500:
        return errors.Unavailable(text)
    return errors.Invalid(text, hint="is `url` the address of a Crossload agent?")
