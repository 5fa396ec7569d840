"""The Azure SDK's errors become ours here, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    IncompleteReadError,
    ServiceRequestError,
    ServiceResponseError,
)

from crossload.ports import errors

_CODES: dict[str, type[errors.CrossloadError]] = {
    "AuthenticationFailed": errors.NotSignedIn,
    "InvalidAuthenticationInfo": errors.NotSignedIn,
    "NoAuthenticationInformation": errors.NotSignedIn,
    "Md5Mismatch": errors.DigestMismatch,
    "Crc64Mismatch": errors.DigestMismatch,
    "BlobArchived": errors.Unsupported,
    "BlobBeingRehydrated": errors.Unsupported,
    "ServerBusy": errors.Throttled,
    "OperationTimedOut": errors.Unavailable,
    "ContainerBeingDeleted": errors.Unavailable,
}
_STATUSES: dict[int, type[errors.CrossloadError]] = {
    401: errors.NotSignedIn,
    403: errors.AccessDenied,
    404: errors.NotFound,
    408: errors.Unavailable,
    409: errors.PreconditionFailed,
    412: errors.PreconditionFailed,
    429: errors.Throttled,
    501: errors.Unsupported,
}


def code_of(error: BaseException) -> str:
    """Azure's own code (`x-ms-error-code`), "" when the error is not an answer of the service."""
    code = getattr(error, "error_code", None)
    return str(getattr(code, "value", code) or "")


def translate(error: BaseException) -> errors.CrossloadError:
    """The error of our tree that says the same; the original stays as its cause."""
    if isinstance(error, ServiceRequestError | ServiceResponseError | IncompleteReadError):
        return errors.Unavailable(_first_line(error))
    if isinstance(error, HttpResponseError) and error.status_code:
        code, status = code_of(error), error.status_code
        kind = _CODES.get(code) or _STATUSES.get(status) or (errors.Unavailable if status >= 500 else errors.Invalid)
        hint = "check account and key, or the identity's roles on the data" if kind is errors.NotSignedIn else ""
        if code in ("BlobArchived", "BlobBeingRehydrated"):
            hint = "the blob is archived: set its tier to Cool at the source, wait for hours, then run this again"
        return kind(f"HTTP {status} {code}: {_first_line(error)}", hint=hint)
    if isinstance(error, ClientAuthenticationError):
        return errors.NotSignedIn(_first_line(error), hint="run `az login`, or give the place a key reference")
    return errors.Invalid(_first_line(error))


@contextmanager
def translated() -> Iterator[None]:
    try:
        yield
    except (AzureError, ValueError, TypeError) as error:  # the SDK checks some arguments itself
        raise translate(error) from error


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0].strip() or type(error).__name__
