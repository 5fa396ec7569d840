"""One table of failures, told in the words of whichever door the client came through."""

from __future__ import annotations

from typing import NamedTuple


class Code(NamedTuple):
    """`retry_after_seconds` is sent as Retry-After; None sends none."""

    status: int
    chat_type: str
    converse_type: str
    retry_after_seconds: int | None = None


CODES: dict[str, Code] = {
    "invalid": Code(400, "invalid_request_error", "ValidationException"),
    "unsupported": Code(400, "invalid_request_error", "ValidationException"),
    "not_signed_in": Code(401, "authentication_error", "UnrecognizedClientException"),
    "denied": Code(403, "permission_error", "AccessDeniedException"),
    "not_found": Code(404, "not_found_error", "ResourceNotFoundException"),
    "method": Code(405, "invalid_request_error", "ValidationException"),
    "request_timeout": Code(408, "invalid_request_error", "ModelTimeoutException"),
    "conflict": Code(409, "conflict_error", "ConflictException"),
    "too_large": Code(413, "invalid_request_error", "ValidationException"),
    "headers_too_large": Code(431, "invalid_request_error", "ValidationException"),
    "throttled": Code(429, "rate_limit_error", "ThrottlingException", 1),
    "internal": Code(500, "server_error", "InternalServerException"),
    "bad_upstream": Code(502, "server_error", "ModelErrorException"),
    "unavailable": Code(503, "server_error", "ServiceUnavailableException", 1),
    "timeout": Code(504, "server_error", "ModelTimeoutException"),
}


class GatewayError(Exception):
    """A request that ends here. `param` names the field at fault where there is one."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


def from_status(status: int) -> str:
    """The code for an upstream's HTTP status.

    401 and 403 from upstream are our own credentials at fault: told to the client as 502, or it would throw away a
    good key of its own."""
    if status in (401, 403):
        return "bad_upstream"
    exact = {400: "invalid", 404: "not_found", 408: "timeout", 413: "too_large", 422: "invalid", 429: "throttled"}
    if status in exact:
        return exact[status]
    if status in (502, 503, 529):
        return "unavailable"
    if status in (504, 424):
        return "timeout"
    return "bad_upstream" if status >= 500 else "invalid"
