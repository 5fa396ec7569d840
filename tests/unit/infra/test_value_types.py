"""Terraform's own conversions, no more and no fewer; and what the parser refuses."""

from __future__ import annotations

import pytest

from crossload.engines.infra.check import check_files
from crossload.engines.infra.parse import parse, parse_expression
from crossload.engines.infra.syntax import SyntaxProblem
from crossload.engines.infra.types import mismatch

FITS = [
    ('"a"', "string"), ("5", "string"), ("true", "string"), ("5", "number"), ('"5"', "number"), ("-1.5e3", "number"),
    ("true", "bool"), ('"false"', "bool"), ("null", "number"), ('["a", 1]', "list(string)"), ("[]", "set(number)"),
    ('{ a = "b" }', "map(string)"), ("{}", "map(number)"), ("[1, 2]", "set(number)"), ('"x-${var.any}"', "string"),
    ("var.any", "list(string)"), ("upper(var.any)", "string"), ("jsonencode({ a = 1 })", "string"),
    ('var.any == "x" ? "a" : "b"', "string"), ("var.n", "string"),
    ("toset(var.any)", "list(string)"), ("var.any[0].x", "any"),
]  # fmt: skip
MISFITS = [
    ('"yes"', "bool"), ("1", "bool"), ('"five"', "number"), ("true", "number"), ('"a"', "list(string)"),
    ("5", "map(string)"),
    ('["a"]', "string"), ('["a"]', "map(string)"), ('{ a = "b" }', "string"),
    ('["x"]', "list(number)"), ("[[1]]", "list(string)"),
    ('{ a = "b" }', "map(number)"), ("var.l", "string"), ("var.m", "list(string)"), ("var.b", "number"),
    ('"x${var.any}"', "list(string)"),
    ("tolist(var.any)", "string"), ("length(var.any)", "list(string)"),
]  # fmt: skip
KNOWN = {"n": "number", "l": "list(string)", "m": "map(string)", "b": "bool"}


def problem(text: str, wanted: str) -> str:
    return mismatch(parse_expression(text, 1), wanted, lambda found: KNOWN.get(found.path[1], "any"))


@pytest.mark.parametrize(("text", "wanted"), FITS)
def test_fits(text: str, wanted: str) -> None:
    assert problem(text, wanted) == ""


@pytest.mark.parametrize(("text", "wanted"), MISFITS)
def test_does_not_fit(text: str, wanted: str) -> None:
    assert problem(text, wanted)


@pytest.mark.parametrize(
    "text",
    [
        'a = "x', "a = [1, 2", "a = {", "a {", "a = ", "= 1", "a = 1 2", "a = b.", 'resource "x" {', "a = @", "a = (1",
        "a = f(1", '"a" = 1', "a = x[", "}", "a = {\n  1 = 2\n  = 3\n}",
    ],
)  # fmt: skip
def test_not_hcl(text: str) -> None:
    with pytest.raises(SyntaxProblem) as caught:
        parse(text)
    assert caught.value.line >= 1


def test_problems_point_at_their_line() -> None:
    with pytest.raises(SyntaxProblem) as caught:
        parse('a = 1\n# comment\nb = "open\nc = 2\n')
    assert (caught.value.line, caught.value.column) == (3, 5)
    (problem,) = check_files({"m.tf": "a = [1,\n  2\n  3]\n"}, []).diagnostics
    assert (problem.code, problem.subject, problem.line) == ("XL810", "m.tf", 3)


def test_comments_and_one_line_blocks() -> None:
    text = '/* a\n b */ x { y = 1 } // end\n# z\nv "l" w {}\nk = { "a b" = 1, c : 2 }\n'
    body = parse(text)
    assert [(block.kind, block.labels, block.line) for block in body.blocks] == [("x", (), 2), ("v", ("l", "w"), 4)]
    assert set(body.attributes) == {"k"}


def test_locals_may_be_used_and_cycles_are_found() -> None:
    files = {
        "a.tf": 'locals {\n  n = "x"\n}\nresource "a_b" "one" {\n  v = local.n\n  w = a_b.two.id\n}\n',
        "b.tf": 'resource "a_b" "two" {\n  v = a_b.three.id\n}\nresource "a_b" "three" {\n  v = a_b.one.id\n}\n',
    }
    (ring,) = check_files(files, []).diagnostics
    assert ring.code == "XL821"
    assert "a_b.one" in ring.summary
    straight = {**files, "b.tf": 'resource "a_b" "two" {}\n'}
    assert not check_files(straight, []).diagnostics


@pytest.mark.parametrize(
    ("block", "code"),
    [
        ('variable "x" {\n  typ = string\n}\noutput "o" {\n  value = var.x\n}\n', "XL812"),
        ('output "o" {\n  description = "d"\n}\n', "XL813"),
        ('variable "x" {\n  type    = number\n  default = "many"\n}\noutput "o" {\n  value = var.x\n}\n', "XL814"),
        ('output "o" {\n  value = data.a_b.c.id\n}\n', "XL815"),
        ('output "o" {\n  value = path.module\n}\noutput "o" {\n  value = 1\n}\n', "XL819"),
    ],
)
def test_variables_and_outputs(block: str, code: str) -> None:
    assert [item.code for item in check_files({"m.tf": block}, []).diagnostics] == [code]
