"""Invariants 2 and 10: no provider's name outside the rooms that may know it, and no room for junk."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest
from source_tree import PACKAGE, REPOSITORY, Source, functions, said, sources, words

from crossload import wiring

# Products and SDKs of the providers in the table, as people write them. Names of the table itself are added below.
ALIASES = {
    "amazon", "azurite", "bedrock", "boto3", "botocore", "dynamodb", "eks", "gcs", "gke", "google", "kms", "localstack",
    "microsoft", "minio", "ministack", "pgvector", "postgresql", "psycopg", "s3", "sagemaker", "seaweedfs", "sqs",
    "vertex",
}  # fmt: skip
# Names of the table that are ordinary words: `local` is said of anything on this machine, and `registry` is a port's
# own name and that of many things that keep entries. The gateway relays requests, and a relay may be spoken of.
ORDINARY = {"local", "registry", "relay"}
MAY_KNOW = ("providers/", "lab/", "conformance/", "engines/gateway/wire/", "wiring.py", "cli/demo.py")
# (file, enclosing function or class) -> why a provider's name stands there.
ALLOWED = {
    (
        "estate/migration.py",
        "PlaceSection",
    ): "the published schema names examples of providers to people who write the file",
    ("api/project.py", "doctor"): "names the packages of the extras, which are what a person has to install",
}
JUNK = {"util", "utils", "common", "helper", "helpers", "manager", "managers", "misc", "core", "base", "stuff", "lib"}


def provider_names() -> set[str]:
    return (set(wiring.PROVIDERS) | ALIASES) - ORDINARY


def enclosing(source: Source, line: int) -> str:
    """The outermost function or class around a line, "" at module level."""
    for node in source.tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            if node.lineno <= line <= (node.end_lineno or node.lineno):
                return node.name
    return ""


def offences(source: Source) -> Iterator[tuple[tuple[str, str], str]]:
    for line, text in said(source.tree):
        found = words(text) & provider_names()
        if found:
            yield (
                (source.path, enclosing(source, line)),
                f"{source.path}:{line}: {', '.join(sorted(found))} in {text[:60]!r}",
            )


def test_no_providers_name_where_it_does_not_belong() -> None:
    found = [item for source in sources() if not source.path.startswith(MAY_KNOW) for item in offences(source)]
    assert [words for place, words in found if place not in ALLOWED] == []
    used = {place for place, _ in found}
    assert set(ALLOWED) <= used, "an allowance that nothing needs any more"


@pytest.mark.parametrize(
    "code",
    [
        'x = "s3"', 'if place.provider == "aws": pass', "def open_gcs(): pass", "class S3Store: pass", "import boto3",
        "x.bedrock_client", 'f(provider="x", use_vertex=True)', 'f"https://{x}/s3/"', "from google.cloud import x",
        "def f(azure): pass", 'x = {"AWS_PROFILE": 1}',
    ],
)  # fmt: skip
def test_a_planted_name_is_found(code: str) -> None:
    planted = Source("engines/mover/planted.py", "planted", code, ast.parse(code))
    assert list(offences(planted))


@pytest.mark.parametrize(
    "code", ['"""Like S3 and GCS."""', "x = 1  # as aws does", "paws = laws = 'jaws'", "def f():\n    '''aws'''"]
)
def test_prose_and_other_words_may_say_it(code: str) -> None:
    assert not list(offences(Source("engines/x.py", "x", code, ast.parse(code))))


def test_every_provider_of_the_table_is_a_folder_and_the_other_way_round() -> None:
    folders = {path.parent.name for path in (PACKAGE / "providers").glob("*/__init__.py")}
    assert folders == set(wiring.PROVIDERS)
    for name, module in wiring.PROVIDERS.items():
        assert module == f"crossload.providers.{name}"
        assert wiring.provider(name).name == name


def test_no_room_for_junk() -> None:
    parts = {part for source in sources() for part in source.path.removesuffix(".py").split("/")}
    parts |= {path.stem for path in (REPOSITORY / "tests").rglob("*.py")} | {
        path.stem for path in REPOSITORY.glob("scripts/*")
    }
    assert {part for part in parts if part.strip("_") in JUNK} == set()


def test_source_and_target_are_called_so() -> None:
    """One pair of words for the two sides, everywhere."""
    short = {"src", "dst", "dest", "source_", "target_"}
    found = [
        f"{source.path}:{argument.lineno}: {argument.arg}"
        for source in sources()
        for function in functions(source.tree)
        for argument in [*function.args.args, *function.args.kwonlyargs]
        if argument.arg in short
    ]
    assert found == []
