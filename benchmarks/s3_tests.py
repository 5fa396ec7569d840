"""Those of Ceph's s3-tests that concern what a move relies on, against a server, in an environment of their own.

What they find are facts about the server. None of their code is part of this project: the checkout is the caller's."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree import ElementTree

from peers import python_for_s3_tests
from rows import RESULTS, Row, told
from servers import S3Server

_FILE = "s3tests/functional/test_s3.py"
_SECONDS_MAX = 1800
_NOT = re.compile(r"delimiter|anonymous|unordered|owner|policy|logging|sse|acl|post_object|usage|lifecycle|long_name")
GROUPS = {
    "conditional writes": r"test_(multipart_)?put_(current_)?object_(current_)?if\w+|test_atomic_\w*conditional\w+",
    "conditional deletes": r"test_delete_object_(current_|version_)?if_match",
    "conditional reads": r"test_get_object_if\w+",
    "ranged reads": r"test_ranged_\w+",
    "multipart": r"test_(multipart_upload|abort_multipart|list_multipart)\w*|test_multipart_resend\w+"
    r"|test_atomic_multipart\w+|test_multipart_(single_)?get_part",
    "whole or not at all": r"test_atomic_(read|write|dual_write)_\w+",
    "list order and markers": r"test_bucket_listv?2?_\w+|test_bucket_create_special_key_names",
    "digests": r"test_(object|multipart)\w*(checksum|cksum)\w*|test_get_\w*checksum\w*|test_object_write_check_etag",
    "headers and meta": r"test_object_(set_get|metadata|write_cache|write_expires|head_zero)\w*",
    "tags": r"test_(get|put)_(obj|max|excess|max_kvsize|modify|delete)_?\w*tag\w*|test_set_multipart_tagging",
    "versions": r"test_versioning_(obj|bucket)_\w+|test_bucket_list_return_data_versioning",
}


@dataclass(frozen=True, slots=True)
class Found:
    group: str
    test: str
    outcome: str  # passed | failed | skipped
    why: str = ""
    marked: str = ""  # where its authors say that it fails: Amazon's own S3 among them, or Ceph's


def chosen(checkout: Path) -> dict[str, str]:
    """Group by test."""
    names = re.findall(r"^def (test_\w+)\(", (checkout / _FILE).read_text(), re.MULTILINE)
    found: dict[str, str] = {}
    for group, pattern in reversed(GROUPS.items()):  # the last, most special, gets its tests first
        found |= {
            name: group for name in names if name not in found and re.fullmatch(pattern, name) and not _NOT.search(name)
        }
    return found


def marks(checkout: Path) -> dict[str, str]:
    """What the authors have written above each test of where it fails."""
    blocks = re.findall(r"((?:^@.*\n)+)def (test_\w+)\(", (checkout / _FILE).read_text(), re.MULTILINE)
    return {name: " ".join(re.findall(r"mark\.(fails_on_(?:aws|rgw))\b", block)) for block, name in blocks}


def run(server: S3Server, checkout: Path, folder: Path) -> list[Found]:
    """Raises TimeoutExpired after half an hour, CalledProcessError when the tests could not be begun."""
    config = folder / "s3tests.conf"
    config.write_text(_config(server))
    tests = chosen(checkout)
    report = folder / "s3tests.xml"
    command = [
        python_for_s3_tests(), "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", "--tb=line",
        *(f"{_FILE}::{name}" for name in tests),
    ]  # fmt: skip
    environment = {
        **os.environ, "S3TEST_CONF": str(config), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(checkout),
    }  # fmt: skip
    done = subprocess.run(command, cwd=checkout, env=environment, timeout=_SECONDS_MAX, stdout=sys.stderr)
    if done.returncode not in (0, 1):
        raise subprocess.CalledProcessError(done.returncode, command[:4])
    return sorted(_read(report, tests, marks(checkout)), key=lambda item: (list(GROUPS).index(item.group), item.test))


def rows_of(found: Sequence[Found]) -> list[Row]:
    rows: list[Row] = []
    for group in GROUPS:
        outcomes = [item.outcome for item in found if item.group == group]
        good, bad = outcomes.count("passed"), outcomes.count("failed")
        rows.append(told(f"s3-tests, {group}", good, "passed", "tried", good + bad))
    return rows


def write_found(found: Sequence[Found]) -> None:
    (RESULTS / "s3-tests.json").write_text(json.dumps([asdict(item) for item in found], indent=2) + "\n")


def _read(report: Path, tests: dict[str, str], marked: dict[str, str]) -> list[Found]:
    """A failure counts before an error of the cleaning up after it."""
    found: dict[str, Found] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = case.get("name", "")
        outcome, why = "passed", ""
        for child in case:
            if child.tag in ("failure", "error"):
                outcome, why = "failed", _first_line(child.get("message", ""))
            elif child.tag == "skipped":
                outcome, why = "skipped", _first_line(child.get("message", ""))
        if name not in found or found[name].outcome == "passed":
            found[name] = Found(tests[name], name, outcome, why, marked.get(name, ""))
    return list(found.values())


def _first_line(text: str) -> str:
    line = " ".join(text.split("\n")[0].split())
    return line if len(line) <= 160 else line[:157] + "..."


def _config(server: S3Server) -> str:
    """All users are one: what needs two is not among the tests."""
    there = urlsplit(server.endpoint)
    user = "display_name = a\nuser_id = a\nemail = a@example.com\naccess_key = AK\nsecret_key = SK\n"
    return (
        f"[DEFAULT]\nhost = {there.hostname}\nport = {there.port}\nis_secure = False\nssl_verify = False\n"
        "[fixtures]\nbucket prefix = judge-{random}-\niam name prefix = judge-\niam path prefix = /judge/\n"
        f"[s3 main]\napi_name = default\n{user}[s3 alt]\n{user}[s3 tenant]\ntenant = a\n{user}[iam]\n{user}"
        f"[iam root]\n{user}[iam alt root]\n{user}"
    )
