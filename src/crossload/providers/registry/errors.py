"""A registry's answers in our words."""

from __future__ import annotations

import json

from crossload.ports import errors
from crossload.providers.registry.wire import Reply

_BY_CODE: dict[str, type[errors.CrossloadError]] = {
    "BLOB_UNKNOWN": errors.NotFound,
    "BLOB_UPLOAD_UNKNOWN": errors.NotFound,
    "DENIED": errors.AccessDenied,
    "DIGEST_INVALID": errors.DigestMismatch,
    "MANIFEST_BLOB_UNKNOWN": errors.Invalid,
    "MANIFEST_UNKNOWN": errors.NotFound,
    "NAME_UNKNOWN": errors.NotFound,
    "TOOMANYREQUESTS": errors.Throttled,
    "UNSUPPORTED": errors.Unsupported,
}
_BY_STATUS: dict[int, type[errors.CrossloadError]] = {
    401: errors.NotSignedIn,
    403: errors.AccessDenied,
    404: errors.NotFound,
    405: errors.Unsupported,
    408: errors.Unavailable,
    409: errors.PreconditionFailed,
    412: errors.PreconditionFailed,
    416: errors.PreconditionFailed,
    429: errors.Throttled,
    501: errors.Unsupported,
}


def translate(reply: Reply) -> errors.CrossloadError:
    """Ends the reply. The registry's own code counts before the status; a 416 to a read is Invalid: a range beyond the
    end, while to an upload it says that the server goes on at another byte."""
    status = reply.status_code
    codes, message = _said(reply)
    text = f"{reply.what}: HTTP {status} {message}".strip()
    after = reply.headers.get("retry-after", "")
    wait = float(after) if after.isdigit() else None
    if status == 416 and reply.what.startswith("GET"):
        return errors.Invalid(text)
    if status == 401 and 'error="insufficient_scope"' in " ".join(reply.challenges):
        return errors.AccessDenied(text)
    kind = _BY_STATUS.get(status) or (errors.Unavailable if status >= 500 else errors.Invalid)
    if 400 <= status < 500 and status not in (401, 403, 416, 429):
        kind = next((_BY_CODE[code] for code in codes if code in _BY_CODE), kind)
    hint = ""
    if kind is errors.NotSignedIn:
        hint = "check username and the reference password of this place"
    return kind(text, hint=hint, retry_after_seconds=wait)


def _said(reply: Reply) -> tuple[list[str], str]:
    """(codes, one line) of the error body; a HEAD has none."""
    try:
        data = reply.read()
    except errors.CrossloadError:
        return [], ""
    try:
        listed = json.loads(data)["errors"]
        codes = [str(item.get("code", "")) for item in listed]
        return codes, "; ".join(f"{item.get('code', '')} {item.get('message', '')}".strip() for item in listed)[:300]
    except (ValueError, KeyError, TypeError, AttributeError):
        return [], data[:200].decode("utf-8", "replace").strip()
