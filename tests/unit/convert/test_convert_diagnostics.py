"""Nothing is dropped in silence: one row for each thing that cannot be carried."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from crossload.engines.convert import convert
from crossload.ports.code import Reading, Writing

Project = Callable[[Mapping[str, str]], Path]
S3 = "import boto3\ns3 = boto3.client('s3')\n"
CHAT = "import boto3\nb = boto3.client('bedrock-runtime')\n"

# program -> (severity, code, words in the summary, line)
ROWS: dict[str, tuple[str, str, str, str, int]] = {
    "no row at all": (S3 + "s3.get_bucket_policy(Bucket='b')", "error", "XL701", "s3.get_bucket_policy", 3),
    "row that says why not": (CHAT + "b.invoke_model(modelId='m', body='')", "error", "XL701", "invoke_model", 3),
    "service without a target": (
        "import boto3\nboto3.client('sqs').send_message(QueueUrl='q', MessageBody='m')",
        "warning", "XL702", "queue.send", 2,
    ),
    "keyword without a form": (
        S3 + "s3.get_object(Bucket='b', Key='k', VersionId='1')", "error", "XL703", "VersionId", 3,
    ),
    "keyword of a traced mapping": (
        S3 + "a = {'Bucket': 'b', 'Key': 'k', 'ACL': 'private'}\ns3.put_object(**a)", "error", "XL703", "ACL", 4,
    ),
    "positional argument without a form": (
        S3 + "s3.upload_file('f', 'b', 'k', None, print)", "error", "XL703", "Callback", 3,
    ),
    "keyword that is lost": (
        S3 + "s3.put_object(Bucket='b', Key='k', Body=b'', StorageClass='GLACIER')",
        "warning", "XL704", "StorageClass", 3,
    ),
    "loss of the target": (
        S3 + "s3.delete_objects(Bucket='b', Delete={'Objects': []})", "note", "XL704", "one object a request", 3,
    ),
    "keywords known at run time": (S3 + "def f(**more):\n    s3.get_object(**more)", "warning", "XL705", "run time", 4),
    "key of the answer": (
        S3 + "r = s3.head_object(Bucket='b', Key='k')\nprint(r['VersionId'])", "warning", "XL706", "VersionId", 3,
    ),
    "key of the answer, at once": (
        S3 + "s3.put_object(Bucket='b', Key='k', Body=b'').get('Expiration')", "warning", "XL706", "Expiration", 3,
    ),
    "options of the client": (
        "import boto3\ns3 = boto3.client('s3', region_name='x')\ns3.head_object(Bucket='b', Key='k')",
        "note", "XL707", "region_name", 2,
    ),
    "only a name": ("def f(s3):\n    s3.get_object(Bucket='b', Key='k')", "warning", "XL709", "only names", 2),
    "only a type": (
        "def f(c: S3Client):\n    c.get_object(Bucket='b', Key='k')", "warning", "XL709", "nothing here makes", 2,
    ),
    "resource interface": (
        "import boto3\nboto3.resource('s3').Bucket('b').upload_file('f', 'k')", "error", "XL712", "resource", 2,
    ),
    "paginator without a row": (
        S3 + "s3.get_paginator('list_object_versions').paginate(Bucket='b')",
        "error", "XL701", "list_object_versions", 3,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_what_is_not_carried_is_said(name: str, project: Project, reading: Reading, writings: list[Writing]) -> None:
    program, severity, code, words, line = ROWS[name]
    said = convert(project({"a.py": program, "requirements.txt": ""}), reading, writings).diagnostics
    assert [(str(item.severity), item.code, item.line) for item in said] == [(severity, code, line)]
    assert words in said[0].summary and said[0].subject == "a.py"


def test_a_clean_program_has_none(project: Project, reading: Reading, writings: list[Writing]) -> None:
    program = S3 + "r = s3.get_object(Bucket='b', Key='k', Range='bytes=0-1')\nprint(r['Body'].read(), r['ETag'])\n"
    assert convert(project({"a.py": program, "requirements.txt": ""}), reading, writings).diagnostics == ()


def test_without_a_target_everything_stays(project: Project, reading: Reading) -> None:
    conversion = convert(project({"a.py": S3 + "s3.head_object(Bucket='b', Key='k')"}), reading, [])
    assert conversion.after == {} and conversion.carried == ()
    assert [item.code for item in conversion.diagnostics] == ["XL702"]


def test_every_row_of_the_dialects_meets(reading: Reading, writings: list[Writing]) -> None:
    """Every op that a target writes has a source row, a front method of that name, and a back method."""
    import ast

    offered = {op for writing in writings for op in writing.rows}
    read = {row.op for row in reading.rows.values() if row.op}
    assert offered <= read

    def methods(text: str, name: str) -> set[str]:
        found = next(item for item in ast.parse(text).body if isinstance(item, ast.ClassDef) and item.name == name)
        return {item.name for item in found.body if isinstance(item, ast.FunctionDef)}

    for (service, method), row in reading.rows.items():
        group = row.op.partition(".")[0]
        if row.op in offered:
            assert reading.fronts[group].service == service
            assert method in methods(reading.part(), reading.fronts[group].class_name)
    for writing in writings:
        backs = methods(writing.part(), writing.class_name)
        assert {row.method for row in writing.rows.values()} <= backs


def test_every_neutral_trouble_has_a_code(reading: Reading, writings: list[Writing]) -> None:
    """What a target can report, the source's errors can say."""
    for writing in writings:
        for trouble in {*writing.errors().values(), "absent", "no-place", "unavailable"}:
            assert (f"{writing.group}:", trouble) in reading.errors(), f"{writing.group}: {trouble}"


def test_front_signatures_are_the_rows(reading: Reading) -> None:
    """A keyword that a row accepts is a keyword of the method, and the other way round."""
    import inspect

    from crossload.providers.aws import portable

    for (_, method), row in reading.rows.items():
        front = getattr(portable, reading.fronts.get(row.op.partition(".")[0], reading.fronts["chat"]).class_name)
        if hasattr(front, method):
            accepted = set(inspect.signature(getattr(front, method)).parameters) - {"self"}
            rows = {*row.arguments, *row.losses} - {"PaginationConfig"}
            assert accepted == rows, method
