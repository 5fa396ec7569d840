"""Edits change their spans and nothing else; a second conversion changes nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossload.engines.convert import convert
from crossload.engines.convert.edit import Edit, apply, changed_outside, unified_diff
from crossload.estate.digest import sha256_of
from crossload.ports.code import Reading, Writing
from crossload.ports.errors import Stale

Project = Callable[[Mapping[str, str]], Path]
USE = "\n\ndef go():\n    return s3.get_object(Bucket='b', Key='k')\n"


@given(
    st.binary(max_size=60),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 8), st.binary(max_size=5)), max_size=6),
)
def test_apply_keeps_everything_else(source: bytes, raw: list[tuple[int, int, bytes]]) -> None:
    edits: list[Edit] = []
    at = 0
    for gap, length, text in raw:
        start, end = at + gap % 7, at + gap % 7 + length
        if end > len(source):
            break
        edits.append(Edit(start, end, text))
        at = end + 1
    result = apply(source, reversed(edits))
    assert changed_outside(source, result, edits) == 0
    # Undoing every edit on the result gives the source back.
    back, shift = bytearray(result), 0
    for edit in edits:
        start = edit.start + shift
        back[start : start + len(edit.text)] = source[edit.start : edit.end]
        shift += (edit.end - edit.start) - len(edit.text)
        shift += len(edit.text) - (edit.end - edit.start)
    assert bytes(back) == source


def test_a_changed_byte_is_counted() -> None:
    edits = [Edit(2, 4, b"XYZ")]
    assert apply(b"0123456789", edits) == b"01XYZ456789"
    assert changed_outside(b"0123456789", b"01XYZ456789", edits) == 0
    assert changed_outside(b"0123456789", b"01XYZ4_6789", edits) == 1
    assert changed_outside(b"0123456789", b"01XYZ45678", edits) > 0
    assert changed_outside(b"0123456789", b"01XYZ456789!", edits) == 1


@pytest.mark.parametrize("edits", [[Edit(0, 3, b""), Edit(2, 4, b"")], [Edit(8, 12, b"")], [Edit(4, 2, b"")]])
def test_impossible_edits_are_refused(edits: list[Edit]) -> None:
    with pytest.raises(ValueError, match="overlaps"):
        apply(b"0123456789", edits)


# name -> (source, what the converted file must be)
SITES = {
    "import that is not needed any more": (
        'import boto3\ns3 = boto3.client("s3", region_name="x")' + USE,
        'import crossload_portable\ns3 = crossload_portable.client("s3", region_name="x")' + USE,
    ),
    "import that is still needed": (
        'import os\n\nimport boto3\n\ns3 = boto3.client("s3")\nec2 = boto3.resource("ec2")' + USE,
        "import os\n\nimport boto3\nimport crossload_portable\n\n"
        's3 = crossload_portable.client("s3")\nec2 = boto3.resource("ec2")' + USE,
    ),
    "imported function": (
        '"""Text."""\nfrom boto3 import client\n\ns3 = client(\n    "s3",\n)' + USE,
        '"""Text."""\nfrom boto3 import client\nimport crossload_portable\n\n'
        's3 = crossload_portable.client(\n    "s3",\n)' + USE,
    ),
    "session": (
        'from boto3 import Session\ns3 = Session(profile_name="p").client("s3")' + USE,
        "from boto3 import Session\nimport crossload_portable\n"
        's3 = crossload_portable.of(Session(profile_name="p")).client("s3")' + USE,
    ),
    "import in a function": (
        '"""Text."""\n\n\ndef make():\n    import boto3\n\n    return boto3.client("s3")\n\n\ns3 = make()' + USE,
        '"""Text."""\n\nimport crossload_portable\n\n\ndef make():\n    import boto3\n\n'
        '    return crossload_portable.client("s3")\n\n\ns3 = make()' + USE,
    ),
    "partial": (
        'import boto3\nfrom functools import partial\n\nmake = partial(boto3.client, region_name="x")\ns3 = make("s3")'
        + USE,
        "from functools import partial\nimport crossload_portable\n\n"
        'make = partial(crossload_portable.client, region_name="x")\ns3 = make("s3")' + USE,
    ),
    "umlauts and odd spacing before it": (
        "# größer 🦊\nimport boto3 # SDK\nx = '''\t🦊'''\ns3   =  boto3 . client( 's3' )" + USE,
        "# größer 🦊\nimport crossload_portable # SDK\nx = '''\t🦊'''\ns3   =  crossload_portable.client( 's3' )" + USE,
    ),
    "Windows line ends": (
        ('import os\nimport boto3\ns3 = boto3.client("s3")\nq = boto3.client("sqs")' + USE).replace("\n", "\r\n"),
        (
            "import os\nimport boto3\nimport crossload_portable\n"
            's3 = crossload_portable.client("s3")\nq = boto3.client("sqs")' + USE
        ).replace("\n", "\r\n"),
    ),
}


@pytest.mark.parametrize("name", SITES)
def test_only_the_constructor_and_its_import_change(
    name: str, project: Project, reading: Reading, writings: list[Writing]
) -> None:
    before, after = SITES[name]
    root = project({"a.py": ""})
    (root / "a.py").write_bytes(before.encode())
    conversion = convert(root, reading, writings)
    assert conversion.after["a.py"].decode() == after
    assert conversion.changed_outside == 0
    compile(conversion.after["a.py"], "a.py", "exec")
    conversion.write(root)
    again = convert(root, reading, writings)
    assert again.after == {} and again.diff == ""
    assert len(again.carried) == len(conversion.carried) == 1


PACKAGE = {
    "app/__init__.py": "",
    "app/clients.py": "import boto3\n\n\ndef make(service):\n    return boto3.client(service)\n",
    "app/deep/__init__.py": "",
    "app/deep/store.py": "import boto3\n\nfrom ..clients import make\n\ns3 = boto3.client('s3')\nq = make('sqs')\n"
    "s3.head_object(Bucket='b', Key='k')\nmake('s3').get_object(Bucket='b', Key='k')\n"
    "q.send_message(QueueUrl='q', MessageBody='')\n",
    "app/queue.py": "import boto3\nq = boto3.client('sqs')\nq.send_message(QueueUrl='q', MessageBody='')\n",
    "tests/test_store.py": "import boto3\nfrom app.deep import store\n\ndef test_it():\n"
    "    boto3.client('s3').put_object(Bucket='b', Key='k', Body=b'')\n",
    "requirements.txt": "boto3",
}


def test_a_package_gets_one_adapter(project: Project, reading: Reading, writings: list[Writing]) -> None:
    root = project(PACKAGE)
    before = {path: sha256_of(path.read_bytes()) for path in root.rglob("*") if path.is_file()}
    conversion = convert(root, reading, writings)
    assert set(conversion.after) == {
        "app/clients.py",
        "app/deep/store.py",
        "app/crossload_portable.py",
        "requirements.txt",
    }
    assert conversion.after["app/clients.py"].startswith(b"from . import crossload_portable\n")
    store = conversion.after["app/deep/store.py"].decode()
    assert "from ..clients import make\nfrom .. import crossload_portable\n" in store and "import boto3" not in store
    assert conversion.after["requirements.txt"] == b"boto3\ngoogle-cloud-storage>=3.4\n"
    # Nothing is written by convert itself, and the test's own client is named instead of edited.
    assert before == {path: sha256_of(path.read_bytes()) for path in root.rglob("*") if path.is_file()}
    assert [(item.code, item.subject) for item in conversion.diagnostics if item.code == "XL711"] == [
        ("XL711", "tests/test_store.py")
    ]


def test_no_adapter_method_for_what_only_tests_call(
    project: Project, reading: Reading, writings: list[Writing]
) -> None:
    adapter = convert(project(PACKAGE), reading, writings).after["app/crossload_portable.py"].decode()
    assert "def get_object" in adapter and "def head_object" in adapter
    for absent in ("def put_object", "def converse", "class ChatClient", "class Chat", "def copy_object", "SQS"):
        assert absent not in adapter


def test_the_diff_is_one_that_git_applies(
    project: Project, reading: Reading, writings: list[Writing], tmp_path: Path
) -> None:
    root = project(PACKAGE)
    conversion = convert(root, reading, writings)
    (tmp_path / "it.diff").write_text(conversion.diff, encoding="utf-8")
    subprocess.run(["git", "apply", "--check", str(tmp_path / "it.diff")], cwd=root, check=True)
    subprocess.run(["git", "apply", str(tmp_path / "it.diff")], cwd=root, check=True)
    for path, data in conversion.after.items():
        assert (root / path).read_bytes() == data


def test_diff_of_files_without_a_last_line_end() -> None:
    diff = unified_diff({"a": b"x\ny", "b": None}, {"a": b"x\nz", "b": b"n"})
    assert diff.count("\\ No newline at end of file") == 3
    assert "--- /dev/null\n+++ b/b\n" in diff


def test_writing_is_refused_when_a_file_changed(project: Project, reading: Reading, writings: list[Writing]) -> None:
    root = project(PACKAGE)
    conversion = convert(root, reading, writings)
    path = root / "app/deep/store.py"
    path.write_bytes(path.read_bytes() + b"# mine\n")
    kept = (root / "app/clients.py").read_bytes()
    with pytest.raises(Stale, match=r"app/deep/store\.py"):
        conversion.write(root)
    assert (root / "app/clients.py").read_bytes() == kept
    assert not (root / "app/crossload_portable.py").exists()


def test_an_import_that_tests_patch_stays(project: Project, reading: Reading, writings: list[Writing]) -> None:
    files = {
        "app/__init__.py": "",
        "app/c.py": "import boto3\ns3 = boto3.client('s3')\ns3.head_object(Bucket='b', Key='k')\n",
        "tests/test_c.py": "def test_it(monkeypatch):\n    monkeypatch.setattr('app.c.boto3', None)\n",
    }
    conversion = convert(project(files), reading, writings)
    assert conversion.after["app/c.py"].startswith(b"import boto3\n\nfrom . import crossload_portable\n")


def test_requirements_that_are_there_already(project: Project, reading: Reading, writings: list[Writing]) -> None:
    files = {**PACKAGE, "requirements.txt": "boto3\nGoogle_Cloud.Storage==3.5\n"}
    assert "requirements.txt" not in convert(project(files), reading, writings).after


def test_without_a_list_of_requirements_they_are_named(
    project: Project, reading: Reading, writings: list[Writing]
) -> None:
    files = {name: text for name, text in PACKAGE.items() if name != "requirements.txt"}
    conversion = convert(project(files), reading, writings)
    assert any(item.code == "XL708" and "google-cloud-storage" in item.summary for item in conversion.diagnostics)
    assert conversion.requirements == ("google-cloud-storage>=3.4",)
