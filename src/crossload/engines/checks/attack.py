"""Run attacks on one place: controls first, every write cleaned up, never more than a fixed number of requests."""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from crossload.engines.checks.access import shown
from crossload.engines.checks.model import (
    BLOCKED,
    ERROR,
    NOT_RUN,
    OPEN,
    Attack,
    AttackResult,
    AttackTools,
    Scene,
    Try,
)
from crossload.ports.errors import CrossloadError
from crossload.ports.probe import OWN, READ, WRITE, Probe, ProbeAnswer

REQUESTS_MAX = 200
PREFIX = ".crossload/attack/"
_BODY = b"Written by a Crossload attack check. Safe to delete.\n"


class OutOfRequests(Exception):
    """The ceiling was reached; what has not run is told as not run."""


class _Counted:
    """The probe with a ceiling. Cleanup is counted and never refused: what was written must go."""

    def __init__(self, probe: Probe, requests_max: int) -> None:
        self.probe = probe
        self.sent = 0
        self._max = requests_max

    def send(self, item: Try) -> ProbeAnswer:
        if self.sent >= self._max:
            raise OutOfRequests
        self.sent += 1
        return self.probe.request(
            item.operation, item.bucket, item.key, item.credential, raw_path=item.raw_path,
            body=_BODY if item.operation == WRITE and not item.harmless else b"", harmless=item.harmless,
        )  # fmt: skip

    def remove(self, bucket: str, key: str, version: str) -> bool:
        self.sent += 1
        try:
            return self.probe.remove(bucket, key, version)
        except CrossloadError:
            return False


def fresh_key(label: str) -> str:
    return f"{PREFIX}{label}-{secrets.token_hex(6)}"


def run_attacks(
    attacks: Iterable[Attack], probe: Probe, scene: Scene, requests_max: int = REQUESTS_MAX
) -> list[AttackResult]:
    """One result for each attack, in order."""
    counted = _Counted(probe, requests_max)
    able = probe.credentials()
    tools = AttackTools(probe.doors, probe.detours, fresh_key)
    results: list[AttackResult] = []
    for attack in attacks:
        missing = [f"{name}: {able.get(name, 'no such identity here')}" for name in attack.needs if able.get(name, "-")]
        if missing:
            results.append(AttackResult(attack.id, attack.title, NOT_RUN, attack.tags, "; ".join(missing)))
            continue
        usable = {name for name, reason in able.items() if not reason}
        results.append(_run(attack, counted, scene, tools, usable))
    return results


def _run(attack: Attack, counted: _Counted, scene: Scene, tools: AttackTools, usable: set[str]) -> AttackResult:
    before = counted.sent
    left: list[str] = []

    def result(verdict: str, detail: str, control: str = "", answers: tuple[str, ...] = ()) -> AttackResult:
        hint = attack.hint if verdict == OPEN else ""
        return AttackResult(
            attack.id,
            attack.title,
            verdict,
            attack.tags,
            detail,
            control,
            answers,
            counted.sent - before,
            tuple(left),
            hint,
        )

    control = ""
    answers: list[str] = []
    got: list[str] = []
    silent: list[str] = []
    try:
        for item in attack.controls(scene, tools):
            answer, good = _send(counted, item, left)
            control = shown(answer)
            if not good:
                return result(ERROR, f"the control failed: our own credential got {control}", control)
        tries = [item for item in attack.tries(scene, tools) if item.credential in usable]
        if not tries:
            return result(NOT_RUN, "nothing here to attack this way", control)
        for item in tries:
            answer, reached = _send(counted, item, left)
            answers.append(shown(answer))
            if reached:
                got.append(f"{shown(answer)}{f' ({item.aim})' if item.aim else ''}")
            elif answer.status is None or answer.status >= 500 or answer.status == 429:
                silent.append(shown(answer))
    except OutOfRequests:
        return result(
            OPEN if got else NOT_RUN, got[0] if got else "the ceiling of requests was reached", control, tuple(answers)
        )
    except CrossloadError as error:
        return result(OPEN if got else ERROR, got[0] if got else str(error), control, tuple(answers))
    if got:
        return result(OPEN, f"{len(got)} of {len(answers)} requests went through: {got[0]}", control, tuple(answers))
    if silent:
        # A server that fell over has not said no.
        return result(ERROR, f"no refusal but {silent[0]}", control, tuple(answers))
    return result(BLOCKED, f"none of {len(answers)} requests got through", control, tuple(answers))


def _granted(item: Try, answer: ProbeAnswer) -> bool:
    """For a harmless request: would have been granted."""
    return answer.passed if item.harmless else answer.granted


def _send(counted: _Counted, item: Try, left: list[str]) -> tuple[ProbeAnswer, bool]:
    """(answer, did it reach its aim). What the request wrote is taken back, whatever it came to: but only after looking
    where it landed, because removing a key that climbs removes what it climbed to."""
    answer = counted.send(item)
    reached = _granted(item, answer)
    try:
        if item.lands is not None:
            # A store may take `..` as a plain name, which harms nobody. Only what shows up elsewhere is an escape.
            reached = answer.granted and counted.send(Try(READ, OWN, *item.lands)).granted
    finally:
        if item.operation == WRITE and answer.granted:
            places = [(item.bucket, item.key, answer.version), *([(*item.lands, "")] if item.lands else [])]
            left += [f"{bucket}/{key}" for bucket, key, version in places if not counted.remove(bucket, key, version)]
    return answer, reached
