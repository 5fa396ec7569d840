"""Run-time errors. Foreign errors are translated into these at the door, in `providers/`.

CrossloadError
├── AccessDenied          the identity is known and may not
├── NotSignedIn           no, wrong or expired credentials
├── NotFound              the object, bucket, table, model is not there
├── PreconditionFailed    somebody changed or created it meanwhile (HTTP 412, 409)
├── DigestMismatch        bytes are not the bytes we sent or expected
├── Unsupported           this provider cannot do that; the message names what it can
├── Throttled             slow down (retryable)
├── Unavailable           server down, connection lost, 5xx (retryable)
├── Invalid               the request or the answer makes no sense
├── Locked                somebody else holds the lock
├── Stale                 the saved plan no longer fits the world
└── Refused               a check or a person said no
"""

from __future__ import annotations


class CrossloadError(Exception):
    """`code` is stable for scripts; `hint` says what to do next; `retryable` says whether trying again can help."""

    code = "error"
    retryable = False

    def __init__(self, message: str, *, hint: str = "", retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.hint = hint
        self.retry_after_seconds = retry_after_seconds


class AccessDenied(CrossloadError):
    code = "access-denied"


class NotSignedIn(CrossloadError):
    code = "not-signed-in"


class NotFound(CrossloadError):
    code = "not-found"


class PreconditionFailed(CrossloadError):
    code = "precondition-failed"


class DigestMismatch(CrossloadError):
    code = "digest-mismatch"


class Unsupported(CrossloadError):
    code = "unsupported"


class Throttled(CrossloadError):
    code = "throttled"
    retryable = True


class Unavailable(CrossloadError):
    code = "unavailable"
    retryable = True


class Invalid(CrossloadError):
    code = "invalid"


class Locked(CrossloadError):
    code = "locked"


class Stale(CrossloadError):
    code = "stale"


class Refused(CrossloadError):
    code = "refused"
