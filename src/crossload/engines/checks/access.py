"""Who may do what, asked of the server itself: one harmless request for each identity and operation."""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from crossload.engines.checks.model import Access, AccessTable
from crossload.ports.errors import CrossloadError
from crossload.ports.probe import DELETE, LIST, NONE, OPERATIONS, OWN, READ, WRITE, Probe, ProbeAnswer


def who_may(probe: Probe, bucket: str, key: str, identities: Iterable[str]) -> AccessTable:
    """`key` must exist in the bucket ("" when it has none): reading a key that is not there is answered 404 by some
    servers and 403 by others, so that it tells nothing."""
    table: dict[tuple[str, str], Access] = {}
    able = probe.credentials()
    for identity in (NONE, OWN, *sorted(set(identities) - {NONE, OWN})):
        for operation in OPERATIONS:
            reason = able.get(identity, "no such identity here")
            table[identity, operation] = (
                Access(None, reason) if reason else _ask(probe, bucket, key, identity, operation)
            )
    return table


def _ask(probe: Probe, bucket: str, key: str, identity: str, operation: str) -> Access:
    if operation == READ and not key:
        return Access(None, "the bucket holds no object to read")
    # A key of its own for each request: two conditional writes of one key would answer for each other.
    name = key if operation == READ else f".crossload/may-{secrets.token_hex(6)}"
    try:
        answer = probe.request(operation, bucket, name, identity, harmless=True)
    except CrossloadError as error:
        return Access(None, str(error))
    if operation == WRITE and answer.granted:
        # The server ignored the condition: the object is there now, and must not stay.
        gone = probe.remove(bucket, name, answer.version)
        return Access(True, f"{shown(answer)}, {'removed again' if gone else f'LEFT BEHIND: {bucket}/{name}'}")
    return Access(_allowed(operation, answer), shown(answer))


def _allowed(operation: str, answer: ProbeAnswer) -> bool | None:
    if operation in (LIST, READ):
        return True if answer.granted else False if answer.refused else None
    if operation in (WRITE, DELETE):
        return True if answer.passed else False if answer.refused else None
    return None


def shown(answer: ProbeAnswer) -> str:
    """One line for the evidence: what was asked, what came back."""
    status = "no answer" if answer.status is None else str(answer.status)
    return f"{answer.line} -> {status}"
