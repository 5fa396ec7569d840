"""The modules as written: right by three providers' real schemas, read alike by an independent parser, never moving."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import hcl2
import pytest

from crossload.engines.infra.check import check_files
from crossload.engines.infra.hcl import render
from crossload.engines.infra.module import check_module, compose, schemas_of
from crossload.engines.infra.parse import ParsedBlock, parse
from crossload.engines.infra.syntax import Interpolated, ListNode, Literal, Node, ObjectNode, Traversal
from crossload.ports.infra import Foundations

Modules = Callable[[str], dict[str, str]]
VERSIONS = {"aws": "hashicorp/aws 6.69.1", "azure": "hashicorp/azurerm 5.10.0", "gcp": "hashicorp/google 8.7.0"}


def infra_of(provider: str) -> Any:
    from crossload.estate.place import Place
    from crossload.ports.provider import Settings

    module = import_module(f"crossload.providers.{provider}.infra")
    return module.open_infra(Settings(Place("target", provider, "europe-west3", "DE"), {}, {}))


@pytest.mark.parametrize("provider", VERSIONS)
def test_module_is_right_by_the_providers_own_schema(module_of: Modules, provider: str) -> None:
    report = check_module(module_of(provider), infra_of(provider))
    assert [str(item) for item in report.diagnostics] == []
    assert report.against == (VERSIONS[provider],)
    assert not report.unchecked
    assert report.resource_count >= 15
    assert report.statement == f"checked against {VERSIONS[provider]} schema: {report.resource_count} resources"


@pytest.mark.parametrize("provider", VERSIONS)
def test_same_foundations_same_bytes(module_of: Modules, foundations: Foundations, provider: str) -> None:
    assert module_of(provider) == compose(foundations, infra_of(provider))
    assert set(module_of(provider)) == {"collector.yaml", "main.tf", "outputs.tf", "variables.tf"}


def _theirs(text: str) -> Any:
    return hcl2.loads(text)


def _count_ours(block: ParsedBlock) -> tuple[int, int]:
    arguments, blocks = len(block.attributes), len(block.blocks)
    for inner in block.blocks:
        more = _count_ours(inner)
        arguments, blocks = arguments + more[0], blocks + more[1]
    return arguments, blocks


def _resources_of(value: Any) -> dict[tuple[str, str], Any]:
    """python-hcl2's resources; it may keep the quotes of labels."""
    out: dict[tuple[str, str], Any] = {}
    for item in value.get("resource", []):
        for kind, named in item.items():
            if kind.startswith("__"):
                continue
            for name, body in named.items():
                if not name.startswith("__"):
                    out[kind.strip('"'), name.strip('"')] = body
    return out


@pytest.mark.parametrize("provider", VERSIONS)
def test_independent_parser_reads_the_same_resources(module_of: Modules, provider: str) -> None:
    text = module_of(provider)["main.tf"]
    ours = {block.labels: block for block in parse(text).blocks if block.kind == "resource"}
    theirs = _resources_of(_theirs(text))
    assert set(theirs) == set(ours)
    for key, block in ours.items():
        body = {name: value for name, value in theirs[key].items() if not name.startswith("__")}
        assert set(body) == set(block.attributes) | {inner.kind for inner in block.blocks}, key
        for name, node in block.attributes.items():
            if isinstance(node, Literal) and isinstance(node.value, str):
                assert str(body[name]).strip('"') == node.value.replace('"', '\\"') or '\\"' in str(body[name])
            elif isinstance(node, Literal):
                assert body[name] == node.value, (key, name)
            elif isinstance(node, ListNode):
                assert len(body[name]) == len(node.items)


def test_bucket_is_private_versioned_encrypted(module_of: Modules) -> None:
    bucket = _resources_of(_theirs(module_of("gcp")["main.tf"]))["google_storage_bucket", "helpdesk_docs"]
    assert bucket["uniform_bucket_level_access"] is True
    assert "enforced" in bucket["public_access_prevention"]
    assert bucket["force_destroy"] is False
    assert bucket["versioning"][0]["enabled"] is True
    assert "google_kms_crypto_key.data.id" in bucket["encryption"][0]["default_kms_key_name"]


@pytest.mark.parametrize("provider", VERSIONS)
def test_no_secret_no_address_no_wildcard(module_of: Modules, provider: str) -> None:
    text = "\n".join(module_of(provider).values())
    assert "secret_version" not in text
    assert "secret_string" not in text
    assert not re.search(r"allUsers|allAuthenticatedUsers", text)
    assert not re.search(r"https?://(?!\", \"\")", text), "an address of somebody's machine or issuer"
    assert "staying" not in text, "a bucket that stays got foundations"
    assert not re.search(r'Action\s*=\s*"\*"', text)


@pytest.mark.parametrize("provider", VERSIONS)
def test_terraform_would_not_change_the_layout(module_of: Modules, provider: str, tmp_path: Path) -> None:
    binary = shutil.which("terraform") or shutil.which("tofu")
    if binary is None:
        pytest.skip("no terraform or tofu on PATH")
    for name, text in module_of(provider).items():
        if name.endswith(".tf"):
            (tmp_path / name).write_text(text, encoding="utf-8")
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "CHECKPOINT_DISABLE": "1"}
    answer = subprocess.run([binary, "fmt", "-check", "-diff", "-no-color"], cwd=tmp_path, env=environment,
                            capture_output=True, text=True, check=False)  # fmt: skip
    assert (answer.returncode, answer.stdout) == (0, "")


def test_layout_of_neighbours_blocks_and_long_lists() -> None:
    """The rules of `terraform fmt` we rely on, held also where the binary is missing."""
    from crossload.ports.infra import Block, Call, Expression, Template

    inner = Block("rule", (), {"on": True, "longer_name": 5})
    block = Block(
        "resource", ("a", "b"),
        {
            "short": "x", "much_longer": Expression("var.y"), "map": {"k": 1, "a-b": "c", "d.e": "f"}, "after": 1.5,
            "list": tuple(f"item-number-{index}-is-long" for index in range(5)), "empty": (), "none": {},
            "call": Call("jsonencode", {"A": Template("${var.y}/*")}),
        },
        (inner, inner), "Why.",
    )  # fmt: skip
    assert render([block], "Head.") == (
        "# Head.\n\n"
        "# Why.\n"
        'resource "a" "b" {\n'
        '  short       = "x"\n'
        "  much_longer = var.y\n"
        "  map = {\n"
        "    k     = 1\n"
        '    a-b   = "c"\n'
        '    "d.e" = "f"\n'
        "  }\n"
        "  after = 1.5\n"
        "  list = [\n"
        '    "item-number-0-is-long",\n'
        '    "item-number-1-is-long",\n'
        '    "item-number-2-is-long",\n'
        '    "item-number-3-is-long",\n'
        '    "item-number-4-is-long",\n'
        "  ]\n"
        "  empty = []\n"
        "  none  = {}\n"
        "  call = jsonencode({\n"
        '    A = "${var.y}/*"\n'
        "  })\n"
        "\n"
        "  rule {\n    on          = true\n    longer_name = 5\n  }\n"
        "\n"
        "  rule {\n    on          = true\n    longer_name = 5\n  }\n"
        "}\n"
    )


@pytest.mark.parametrize(
    "text",
    ["plain", 'a "quoted" \\ back', "line\nbreak\ttab", "${not.code}", "%{if}", "$${x}", "ü 漢 🚀", "", "$", "{}", "#"],
)
def test_a_literal_is_never_evaluated(text: str) -> None:
    """What comes from a cloud's own names goes through here: a name like `${...}` must not become code."""
    from crossload.ports.infra import Block

    written = render([Block("locals", (), {"x": text})])
    node = parse(written).blocks[0].attributes["x"]
    assert isinstance(node, Literal)
    assert node.value == text


def test_code_inside_templates_is_found() -> None:
    body = parse(
        'locals {\n  a = "x-${var.y["k"]}-${upper(local.z)}"\n  b = [for v in var.l : v.name if v.on]\n}\n'
    ).blocks[0]
    text = body.attributes["a"]
    assert isinstance(text, Interpolated)

    def paths(node: Node) -> set[tuple[str, ...]]:
        if isinstance(node, Traversal):
            return {node.path}
        inner: list[Node] = list(getattr(node, "parts", ())) + list(getattr(node, "items", ()))
        return set().union(*(paths(item) for item in inner)) if inner and not isinstance(node, ObjectNode) else set()

    assert paths(text) == {("var", "y", "[]"), ("local", "z")}
    assert paths(body.attributes["b"]) == {("var", "l")}


def test_the_extract_is_what_it_says(repository: Path) -> None:
    """Every committed schema names its source wheel, and the extractor that made it is in the repository."""
    assert (repository / "scripts" / "extract_terraform_schema.py").is_file()
    for provider, title in VERSIONS.items():
        (schema,) = schemas_of(infra_of(provider))
        assert schema.title == title
        assert re.fullmatch(r"cdktn_provider_\w+-[\d.]+-py3-none-any\.whl", schema.source)
        assert len(schema.kinds) == len(set(schema.kinds)) >= 20
        assert json.dumps(schema.kinds)
    assert check_files({"x.txt": "not hcl"}, []).statement == "not checked against a provider schema"
