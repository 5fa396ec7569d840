"""Edges from the team's own code."""

from __future__ import annotations

from crossload.engines.planner.mentions import language_of, mentions, through_roles
from crossload.estate.asset import Asset, Edge, Kind


def asset(kind: Kind, name: str) -> Asset:
    return Asset(f"{kind}:{name}", kind, name, "a", name)


ASSETS = [
    asset(Kind.DATASET, "helpdesk-docs"), asset(Kind.DATASET, "docs"), asset(Kind.QUEUE, "jobs"),
    asset(Kind.ENDPOINT, "meta.llama3-8b-instruct-v1:0"), asset(Kind.ENDPOINT, "meta.llama3-70b-instruct-v1:0"),
    asset(Kind.SECRET, "helpdesk/api-key"), asset(Kind.ROLE, "helpdesk-app"), asset(Kind.MODEL, "model-file"),
]  # fmt: skip


def test_literals_and_names_with_separators_are_found_with_their_line() -> None:
    files = {
        "config.py": 'bucket = "helpdesk-docs"\nmodel: str = "meta.llama3-8b-instruct-v1:0"\n',
        "deploy.env": "SECRET=helpdesk/api-key\n",
    }
    found = {edge.target: edge for edge in mentions("app:x", files, ASSETS)}
    assert set(found) == {"dataset:helpdesk-docs", "endpoint:meta.llama3-8b-instruct-v1:0", "secret:helpdesk/api-key"}
    assert found["dataset:helpdesk-docs"].evidence == "config.py:1 names helpdesk-docs"
    assert found["endpoint:meta.llama3-8b-instruct-v1:0"].relation == "calls"
    assert found["secret:helpdesk/api-key"].relation == "reads"


def test_plain_words_count_only_as_literals() -> None:
    prose = {"a.py": "# the docs of all jobs\n"}
    assert mentions("app:x", prose, ASSETS) == []
    assert [e.target for e in mentions("app:x", {"a.py": "Q = 'jobs'\n"}, ASSETS)] == ["queue:jobs"]


def test_part_of_a_longer_name_is_no_mention() -> None:
    assert mentions("app:x", {"a.py": "'helpdesk-docs-archive' 'my-helpdesk-docs'"}, ASSETS) == []


def test_the_first_place_is_the_evidence_whatever_the_order() -> None:
    files = {"b.py": "'helpdesk-docs'", "a.py": "\n'helpdesk-docs'"}
    assert mentions("app:x", files, ASSETS)[0].evidence == "a.py:2 names helpdesk-docs"


def test_roles_of_the_app_lend_it_their_edges() -> None:
    edges = [
        Edge("role:helpdesk-app", "writes", "dataset:helpdesk-docs", "p"),
        Edge("role:other", "reads", "queue:jobs", ""),
    ]
    found = through_roles("app:helpdesk", "helpdesk", [*ASSETS, asset(Kind.ROLE, "helpdesker")], edges)
    assert [(e.relation, e.target) for e in found] == [
        ("runs-as", "role:helpdesk-app"),
        ("writes", "dataset:helpdesk-docs"),
    ]


def test_language() -> None:
    assert language_of(["a.py", "b.py", "c.js", "d.toml"]) == "python"
    assert language_of(["a.toml"]) == "unknown"
