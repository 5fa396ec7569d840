"""The client's errors in our words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import httpx
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from crossload.ports import errors


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """HTTP answers by their status; the local mode raises built-in exceptions, told apart by their words."""
    try:
        yield
    except errors.CrossloadError:
        raise
    except UnexpectedResponse as error:
        raise _by_status(error.status_code or 0, _words(error)) from error
    except (ResponseHandlingException, httpx.TransportError) as error:
        raise errors.Unavailable(f"the server does not answer: {error}") from error
    except ApiException as error:
        raise errors.Invalid(str(error)) from error
    except (ValueError, RuntimeError, OSError) as error:
        text = str(error)
        if "not found" in text.lower():
            raise errors.NotFound(text) from error
        if "already accessed by another instance" in text:
            raise errors.Unavailable(text, hint="the local mode serves one process at a time") from error
        raise errors.Invalid(text) from error


def _by_status(status: int, text: str) -> errors.CrossloadError:
    if status == 401:
        return errors.NotSignedIn(text, hint="check `key` of this place")
    if status == 403:
        return errors.AccessDenied(text)
    if status == 404:
        return errors.NotFound(text)
    if status == 429:
        return errors.Throttled(text)
    return errors.Unavailable(text) if status >= 500 else errors.Invalid(text)


def _words(error: UnexpectedResponse) -> str:
    return f"HTTP {error.status_code}: {error.content[:300].decode('utf-8', 'replace')}"
