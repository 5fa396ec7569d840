"""boto3's errors become ours here, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    ResponseStreamingError,
)

from crossload.ports import errors

_CODES: dict[str, type[errors.CrossloadError]] = {
    "AccessDenied": errors.AccessDenied,
    "AccessDeniedException": errors.AccessDenied,
    "UnauthorizedOperation": errors.AccessDenied,
    "AllAccessDisabled": errors.AccessDenied,
    "403": errors.AccessDenied,
    "InvalidAccessKeyId": errors.NotSignedIn,
    "InvalidClientTokenId": errors.NotSignedIn,
    "UnrecognizedClientException": errors.NotSignedIn,
    "SignatureDoesNotMatch": errors.NotSignedIn,
    "ExpiredToken": errors.NotSignedIn,
    "ExpiredTokenException": errors.NotSignedIn,
    "RequestTimeTooSkewed": errors.NotSignedIn,
    "401": errors.NotSignedIn,
    "NoSuchKey": errors.NotFound,
    "NoSuchBucket": errors.NotFound,
    "NoSuchUpload": errors.NotFound,
    "NoSuchEntity": errors.NotFound,
    "ResourceNotFoundException": errors.NotFound,
    "404": errors.NotFound,
    "PreconditionFailed": errors.PreconditionFailed,
    "ConditionalRequestConflict": errors.PreconditionFailed,
    "412": errors.PreconditionFailed,
    "409": errors.PreconditionFailed,
    "InvalidObjectState": errors.Unsupported,
    "BadDigest": errors.DigestMismatch,
    "XAmzContentChecksumMismatch": errors.DigestMismatch,
    "SlowDown": errors.Throttled,
    "ServiceUnavailable": errors.Throttled,  # S3's; other services mean what they say
    "ServiceUnavailableException": errors.Unavailable,
    "503": errors.Throttled,  # an answer to HEAD has no body to say more
    "429": errors.Throttled,
    "Throttling": errors.Throttled,
    "ThrottlingException": errors.Throttled,
    "RequestLimitExceeded": errors.Throttled,
    "TooManyRequestsException": errors.Throttled,
    "NotImplemented": errors.Unsupported,
    "UnsupportedOperation": errors.Unsupported,
    "MethodNotAllowed": errors.Unsupported,
    "ValidationException": errors.Invalid,
}


_CLOCK_SIGNS = ("RequestTimeTooSkewed", "Signature not yet current", "Signature expired")


def translate(error: BaseException) -> errors.CrossloadError:
    """The error of our tree that says the same; the original stays as its cause."""
    if isinstance(error, ClientError):
        answer = error.response
        code = str(answer.get("Error", {}).get("Code", ""))
        status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        text = f"{error.operation_name}: {code or status} {answer.get('Error', {}).get('Message', '')}".strip()
        kind = _CODES.get(code) or _CODES.get(str(status))
        if kind is None:
            kind = errors.Unavailable if status >= 500 else errors.Invalid
        hint = "check the profile and its keys" if kind is errors.NotSignedIn else ""
        if code == "InvalidObjectState":
            hint = "the object is archived: restore it at the source (restore-object), wait, then run this again"
        if any(sign in text for sign in _CLOCK_SIGNS):
            hint = "the clock of this machine is not the server's: set it, then run the same command again"
        after = str(answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("retry-after", ""))
        return kind(text, hint=hint, retry_after_seconds=float(after) if after.isdigit() else None)
    if isinstance(error, NoCredentialsError | PartialCredentialsError | ProfileNotFound):
        return errors.NotSignedIn(str(error), hint="name a profile that exists, or set up the SDK's credential chain")
    if isinstance(error, ConnectionError | HTTPClientError | IncompleteReadError | ResponseStreamingError):
        return errors.Unavailable(str(error))
    return errors.Invalid(str(error))


@contextmanager
def translated() -> Iterator[None]:
    try:
        yield
    except (ClientError, BotoCoreError, IncompleteReadError) as error:
        raise translate(error) from error
