"""The SDK's errors in our words, and ours in the server's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from temporalio.client import RPCTimeoutOrCancelledError, WorkflowFailureError, WorkflowQueryFailedError
from temporalio.exceptions import ActivityError, ApplicationError, CancelledError, TimeoutError, TimeoutType
from temporalio.service import RPCError, RPCStatusCode

from crossload.ports import errors

_BY_STATUS: dict[RPCStatusCode, type[errors.CrossloadError]] = {
    RPCStatusCode.UNAUTHENTICATED: errors.NotSignedIn,
    RPCStatusCode.PERMISSION_DENIED: errors.AccessDenied,
    RPCStatusCode.NOT_FOUND: errors.NotFound,
    RPCStatusCode.RESOURCE_EXHAUSTED: errors.Throttled,
    RPCStatusCode.INVALID_ARGUMENT: errors.Invalid,
    RPCStatusCode.UNIMPLEMENTED: errors.Unsupported,
}


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    try:
        yield
    except RPCTimeoutOrCancelledError as error:
        raise errors.Unavailable(
            f"{what}: no answer in time", hint="does a worker serve this task queue? a migration is asked through one"
        ) from error
    except RPCError as error:
        kind = _BY_STATUS.get(error.status, errors.Unavailable)
        raise kind(f"{what}: {error.message}", hint="check the fleet's connection") from error
    except WorkflowQueryFailedError as error:
        raise errors.Invalid(f"{what}: {error}") from error
    except (RuntimeError, OSError, ValueError) as error:
        # The SDK raises RuntimeError when it cannot connect, ValueError for an address it cannot read.
        raise errors.Unavailable(f"{what}: {error}", hint="check `address` and the TLS settings") from error


def told_to_server(error: errors.CrossloadError) -> ApplicationError:
    """A worker's failure. What is not retryable would meet every other worker, and ends the move."""
    return ApplicationError(str(error), error.hint, type=error.code, non_retryable=not error.retryable)


def trouble_of(error: WorkflowFailureError) -> tuple[str, str, str]:
    """(code, message, hint) of what ended a move."""
    cause: BaseException | None = error.cause
    if isinstance(cause, ActivityError):
        cause = cause.cause
    if isinstance(cause, ApplicationError):
        hint = str(cause.details[0]) if cause.details else ""
        return cause.type or "error", cause.message, hint
    if isinstance(cause, TimeoutError):
        silent = cause.type is TimeoutType.HEARTBEAT
        why = "worker after worker fell silent over one shard" if silent else "one shard took too long, again and again"
        return "unavailable", why, "look at the workers' machines and their memory"
    if isinstance(cause, CancelledError):
        return "unavailable", "the move was cancelled at the server", ""
    return "error", str(cause or error), ""
