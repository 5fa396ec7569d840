"""Each attack on a store that is safe and on one with exactly its hole; and what the runner must never do."""

from __future__ import annotations

import re
from typing import Any

import pytest

from crossload.engines.checks.access import who_may
from crossload.engines.checks.attack import PREFIX, REQUESTS_MAX, run_attacks
from crossload.engines.checks.catalog import attacks
from crossload.engines.checks.model import BLOCKED, ERROR, NOT_RUN, OPEN, AttackResult, Scene
from crossload.ports.probe import DELETE, EXPIRED, FORGED, LIST, NONE, OWN, READ, UNSIGNED, WRITE, WRONG_AUDIENCE

# attack -> the credential and operation whose leak it must find
HOLES = {
    "anonymous-list": (NONE, LIST),
    "anonymous-read": (NONE, READ),
    "anonymous-write": (NONE, WRITE),
    "auditor-writes": ("audit", WRITE),
    "expired-token": (EXPIRED, READ),
    "forged-token": (FORGED, WRITE),
    "stranger-identity": ("stranger", READ),
    "unsigned-token": (UNSIGNED, LIST),
    "wrong-audience": (WRONG_AUDIENCE, READ),
}


def run(name: str, probe: Any, scene: Scene, requests_max: int = REQUESTS_MAX) -> AttackResult:
    return run_attacks([item for item in attacks() if item.id == name], probe, scene, requests_max)[0]


def test_all_attacks_are_blocked_by_a_safe_store(safe_probe: Any, scene: Scene) -> None:
    results = run_attacks(attacks(), safe_probe, scene)
    assert {item.id: item.verdict for item in results} == dict.fromkeys((item.id for item in attacks()), BLOCKED)
    assert all(item.control for item in results), "an attack without a control proves nothing"
    assert sum(item.requests for item in results) == len(safe_probe.log) + len(safe_probe.removed)
    assert safe_probe.objects == {("docs", "a.txt"), ("models", "m.gguf")}, "controls took back what they wrote"


@pytest.mark.parametrize(("attack", "hole"), HOLES.items())
def test_each_attack_finds_its_hole(safe_probe: Any, scene: Scene, attack: str, hole: tuple[str, str]) -> None:
    credential, operation = hole
    safe_probe.rights.setdefault(credential, set()).add(operation)
    result = run(attack, safe_probe, scene)
    assert result.verdict == OPEN
    assert result.hint
    assert f"{operation} " in result.detail
    assert safe_probe.objects == {("docs", "a.txt"), ("models", "m.gguf")}, "what it wrote is gone again"


@pytest.mark.parametrize(
    ("credential", "operation", "attack"),
    [(NONE, DELETE, "anonymous-write"), ("audit", DELETE, "auditor-writes"), ("stranger", DELETE, "stranger-identity")],
)
def test_deletes_are_tried_without_deleting(
    safe_probe: Any, scene: Scene, credential: str, operation: str, attack: str
) -> None:
    safe_probe.rights.setdefault(credential, set()).add(operation)
    assert run(attack, safe_probe, scene).verdict == OPEN
    assert ("docs", "a.txt") in safe_probe.objects


def test_path_traversal_by_a_detour(safe_probe: Any, scene: Scene) -> None:
    assert run("path-traversal", safe_probe, scene).verdict == BLOCKED
    safe_probe.open_detours.add("/detour/%2e/models/m.gguf")
    result = run("path-traversal", safe_probe, scene)
    assert result.verdict == OPEN
    assert "models" in result.detail


def test_path_traversal_by_a_key_that_climbs(safe_probe: Any, scene: Scene) -> None:
    """A store that takes `..` as a plain name is safe; one that lets it climb is not, and is cleaned on both ends."""
    before = set(safe_probe.objects)
    assert run("path-traversal", safe_probe, scene).verdict == BLOCKED
    safe_probe.climbs = True
    assert run("path-traversal", safe_probe, scene).verdict == OPEN
    assert safe_probe.objects == before


def test_a_failed_control_is_an_error_and_never_blocked(safe_probe: Any, scene: Scene) -> None:
    """A store that refuses everybody has blocked no attack."""
    safe_probe.rights = {name: set() for name in safe_probe.rights}
    results = run_attacks(attacks(), safe_probe, scene)
    assert {item.verdict for item in results} == {ERROR}
    assert all("control" in item.detail for item in results)


def test_the_control_of_a_read_needs_an_object_that_is_there(safe_probe: Any) -> None:
    assert run("anonymous-read", safe_probe, Scene("docs", "gone.txt")).verdict == ERROR


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_that_falls_over_has_not_said_no(safe_probe: Any, scene: Scene, status: int) -> None:
    safe_probe.status_refused = status
    assert run("anonymous-read", safe_probe, scene).verdict == ERROR


def test_a_credential_that_cannot_be_made_is_not_run_with_the_reason(safe_probe: Any, scene: Scene) -> None:
    safe_probe.missing[EXPIRED] = "no issuer of our own"
    result = run("expired-token", safe_probe, scene)
    assert result.verdict == NOT_RUN
    assert "no issuer of our own" in result.detail
    assert result.requests == 0


def test_an_identity_the_place_does_not_have_is_not_run(safe_probe: Any, scene: Scene) -> None:
    del safe_probe.rights["audit"]
    assert run("auditor-writes", safe_probe, scene).verdict == NOT_RUN


def test_never_more_requests_than_the_ceiling(safe_probe: Any, scene: Scene) -> None:
    results = run_attacks(attacks(), safe_probe, scene, requests_max=10)
    assert len(safe_probe.log) + len(safe_probe.removed) == 10
    assert NOT_RUN in {item.verdict for item in results}
    assert len(run_attacks(attacks(), safe_probe, scene)) == len(attacks())
    assert len(safe_probe.log) <= 10 + REQUESTS_MAX


def test_nobody_answers(safe_probe: Any, scene: Scene) -> None:
    safe_probe.down = True
    assert run("anonymous-list", safe_probe, scene).verdict == ERROR


def test_what_cannot_be_removed_is_named(safe_probe: Any, scene: Scene) -> None:
    safe_probe.sticky = True
    safe_probe.rights[NONE] = {WRITE}
    left = run("anonymous-write", safe_probe, scene).left_behind
    assert left
    assert all(name.startswith(f"docs/{PREFIX}") for name in left)


def test_every_attack_is_tagged() -> None:
    for attack in attacks():
        assert any(re.fullmatch(r"T\d{4}(\.\d{3})?", tag) for tag in attack.tags), attack.id
        assert OWN in attack.needs, "without our own credential there is no control"
        assert attack.hint


def test_who_may_asks_everybody_and_leaves_nothing(safe_probe: Any) -> None:
    before = set(safe_probe.objects)
    table = who_may(safe_probe, "docs", "a.txt", ["app", "audit", "stranger", "unheard-of"])
    assert table["app", READ].allowed is True
    assert table["app", WRITE].allowed is False
    assert table["audit", READ].allowed is False
    assert table[OWN, DELETE].allowed is True
    assert table[NONE, LIST].allowed is False
    assert table["unheard-of", READ].allowed is None
    assert safe_probe.objects == before
    assert not safe_probe.removed, "conditions kept every write from happening"


def test_who_may_cleans_up_behind_a_store_that_ignores_conditions(safe_probe: Any) -> None:
    safe_probe.ignores_conditions = True
    before = set(safe_probe.objects)
    table = who_may(safe_probe, "docs", "a.txt", [])
    assert table[OWN, WRITE].allowed is True
    assert "removed again" in table[OWN, WRITE].how
    assert safe_probe.objects == before
    safe_probe.sticky = True
    assert "LEFT BEHIND" in who_may(safe_probe, "docs", "a.txt", [])[OWN, WRITE].how


def test_who_may_does_not_guess(safe_probe: Any) -> None:
    assert who_may(safe_probe, "docs", "", ["app"])["app", READ].allowed is None, (
        "an empty bucket tells nothing of reading"
    )
    safe_probe.status_refused = 503
    assert who_may(safe_probe, "docs", "a.txt", ["stranger"])["stranger", LIST].allowed is None
    assert who_may(safe_probe, "docs", "gone.txt", ["app"])["app", READ].allowed is None
