"""Which calls a scan finds: one small program a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from crossload.engines.convert import scan
from crossload.ports.code import Reading

Project = Callable[[Mapping[str, str]], Path]
GET = "s3.get_object(Bucket='b', Key='k')"

# name -> (files, calls found as service.method/evidence)
TRACED: dict[str, tuple[dict[str, str], list[str]]] = {
    "module client": ({"a.py": "import boto3\ns3 = boto3.client('s3')\n" + GET}, ["s3.get_object/flow"]),
    "aliases": (
        {"a.py": "import boto3 as b\nfrom boto3 import client as make\nx = b.client('sqs')\ny = make('s3')\n"
                 "x.send_message(QueueUrl='q', MessageBody='m')\ny.head_object(Bucket='b', Key='k')"},
        ["s3.head_object/flow", "sqs.send_message/flow"],
    ),
    "session": (
        {"a.py": "import boto3\ns = boto3.session.Session(profile_name='p')\ns3 = s.client(service_name='s3')\n" + GET},
        ["s3.get_object/flow"],
    ),
    "factory with a service parameter": (
        {"c.py": "import boto3\ndef make(service, **more):\n    return boto3.client(service, **more)\n",
         "a.py": "from c import make\nmake('s3').put_object(Bucket='b', Key='k')\n"
                 "make(service='bedrock-runtime').converse(modelId='m', messages=[])"},
        ["bedrock-runtime.converse/flow", "s3.put_object/flow"],
    ),
    "factory with a cache": (
        {"a.py": "import boto3\n_c = {}\ndef make(n):\n    if n not in _c:\n"
                 "        _c[n] = boto3.client(n)\n    return _c[n]\n"
                 "make('s3').get_object(Bucket='b', Key='k')"},
        ["s3.get_object/flow"],
    ),
    "default service of a factory": (
        {"a.py": "import boto3\ndef make(n='s3'):\n    return boto3.client(n)\nmake().get_object(Bucket='b', Key='k')"},
        ["s3.get_object/flow"],
    ),
    "self attribute": (
        {"a.py": "import boto3\nclass A:\n    def __init__(self):\n        self.s3 = boto3.client('s3')\n"
                 "    def go(self):\n        return self.s3.get_object(Bucket='b', Key='k')"},
        ["s3.get_object/flow"],
    ),
    "base class, service of the subclass": (
        {"base.py": "import boto3\nclass Base:\n    service = ''\n    def __init__(self, client=None):\n"
                    "        self.client = client or boto3.client(self.service)\n",
         "a.py": "from base import Base\nclass Store(Base):\n    service = 's3'\n    def go(self):\n"
                 "        return self.client.get_object(Bucket='b', Key='k')\n"
                 "class Queue(Base):\n    service = 'sqs'\n    def go(self):\n"
                 "        self.client.delete_message(QueueUrl='q', ReceiptHandle='r')"},
        ["s3.get_object/flow", "sqs.delete_message/flow"],
    ),
    "super().__init__ with a client": (
        {"a.py": "import boto3\nclass Base:\n    def __init__(self, c):\n        self.c = c\n"
                 "class Sub(Base):\n    def __init__(self):\n        super().__init__(boto3.client('s3'))\n"
                 "    def go(self):\n        self.c.get_object(Bucket='b', Key='k')"},
        ["s3.get_object/flow"],
    ),
    "parameter, from its caller": (
        {"a.py": "import boto3\ndef go(x):\n    x.get_object(Bucket='b', Key='k')\ngo(boto3.client('s3'))"},
        ["s3.get_object/flow"],
    ),
    "parameter of a method in a file without the SDK": (
        {"a.py": "class Reader:\n    def __init__(self, c):\n        self.c = c\n    def go(self):\n"
                 "        return self.c.get_object(Bucket='b', Key='k')",
         "main.py": "import boto3\nfrom a import Reader\nReader(boto3.client('s3')).go()"},
        ["s3.get_object/flow"],
    ),
    "property and lru_cache": (
        {"a.py": "import boto3, functools\n@functools.lru_cache(maxsize=None)\n"
                 "def c():\n    return boto3.client('s3')\n"
                 "class A:\n    @property\n    def s3(self):\n        return c()\n    def go(self):\n"
                 "        self.s3.get_object(Bucket='b', Key='k')"},
        ["s3.get_object/flow"],
    ),
    "dataclass field": (
        {"a.py": "import boto3\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    name: str\n    c: object\n"
                 "    def go(self):\n        self.c.get_object(Bucket='b', Key='k')\nA('x', boto3.client('s3')).go()"},
        ["s3.get_object/flow"],
    ),
    "dict of clients": (
        {"a.py": "import boto3\nC = {'s': boto3.client('s3'), 'q': boto3.client('sqs')}\n"
                 "C['s'].get_object(Bucket='b', Key='k')\nC.get('q').delete_message(QueueUrl='q', ReceiptHandle='r')"},
        ["s3.get_object/flow", "sqs.delete_message/flow"],
    ),
    "two at once": (
        {"a.py": "import boto3\ndef both():\n    return boto3.client('s3'), boto3.client('sqs')\ns, q = both()\n"
                 "s.get_object(Bucket='b', Key='k')\nq.send_message(QueueUrl='q', MessageBody='m')"},
        ["s3.get_object/flow", "sqs.send_message/flow"],
    ),
    "partial": (
        {"a.py": "import boto3\nfrom functools import partial\nmake = partial(boto3.client, region_name='x')\n"
                 "make('s3').get_object(Bucket='b', Key='k')"},
        ["s3.get_object/flow"],
    ),
    "lambda, walrus and conditional": (
        {"a.py": "import boto3, os\nf = lambda: boto3.client('s3') if os.name else None\n"
                 "if (c := f()):\n    c.get_object(Bucket='b', Key='k')"},
        ["s3.get_object/flow"],
    ),
    "global in a function": (
        {"a.py": "import boto3\nc = None\ndef start():\n    global c\n    c = boto3.client('s3')\n"
                 "def go():\n    c.get_object(Bucket='b', Key='k')"},
        ["s3.get_object/flow"],
    ),
    "package, relative and star imports": (
        {"p/__init__.py": "", "p/c.py": "import boto3\ns3 = boto3.client('s3')\n",
         "p/a.py": f"from .c import s3\n{GET}", "p/b.py": f"from .c import *\n{GET}",
         "p/d.py": "from . import c\nc." + GET},
        ["s3.get_object/flow"] * 3,
    ),
    "bound method under another name": (
        {"a.py": "import boto3\nread = boto3.client('s3').get_object\nread(Bucket='b', Key='k')"},
        ["s3.get_object/flow", "s3.get_object/flow"],
    ),
    "method handed to a pool": (
        {"a.py": "import boto3\ndef go(pool):\n    s3 = boto3.client('s3')\n"
                 "    pool.submit(s3.get_object, Bucket='b', Key='k')"},
        ["s3.get_object/flow"],
    ),
    "paginator": (
        {"a.py": "import boto3\np = boto3.client('s3').get_paginator('list_objects_v2')\n"
                 "for page in p.paginate(Bucket='b'):\n    pass"},
        ["s3.list_objects_v2/flow"],
    ),
    "type annotation only": (
        {"a.py": "def go(c: 'S3Client | None', d: SQSClient):\n    d.delete_message(QueueUrl='q', ReceiptHandle='r')"},
        ["sqs.delete_message/annotation"],
    ),
    "names only": ({"a.py": "def go(s3, cache):\n    s3.get_object(Bucket='b', Key='k')"}, ["s3.get_object/name"]),
    "pytest fixture": (
        {"tests/conftest.py": "import boto3, pytest\n@pytest.fixture\ndef store():\n    yield boto3.client('s3')\n",
         "tests/test_a.py": "def test_a(store):\n    store.get_object(Bucket='b', Key='k')"},
        ["s3.get_object/flow"],
    ),
    "syntax of later Pythons": (
        {"a.py": "import boto3\ntype X = int\ndef f[T](x: T) -> T:\n    return f\"{x!r:>{'4'}} {'a'}\"\n"
                 "boto3.client('s3').get_object(Bucket='b', Key='k')"},
        ["s3.get_object/flow"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TRACED)
def test_calls_are_traced(name: str, project: Project, reading: Reading) -> None:
    files, wanted = TRACED[name]
    found = scan(project(files), reading)
    assert sorted(f"{call.service}.{call.method}/{call.evidence}" for call in found.calls) == sorted(wanted)
    assert not found.problems


# Things that look like cloud calls and are none.
LOOK_ALIKES = {
    "pydantic secret": "from pydantic import SecretStr\nkey = SecretStr('x')\nkey.get_secret_value()",
    "session credentials": "def go(session):\n    return session.get_credentials()",
    "own class": "class Box:\n    def get_object(self, name):\n        return name\nBox().get_object('x')",
    "dict": "d = {}\nd.get('Bucket')\nd.update(Bucket='b')",
    "own client function": "def client(name):\n    return name\nclient('s3').upper()",
    "comment and string": "# boto3.client('s3').get_object(Bucket='b')\nx = \"boto3.client('s3').get_object()\"",
}


@pytest.mark.parametrize("name", LOOK_ALIKES)
def test_look_alikes_are_left_alone(name: str, project: Project, reading: Reading) -> None:
    assert scan(project({"a.py": LOOK_ALIKES[name]}), reading).calls == ()


def test_a_vendored_sdk_does_not_hide_the_real_one(project: Project, reading: Reading) -> None:
    files = {
        "boto3/__init__.py": "def client(name):\n    return object()\n",
        "vendor/thing.py": f"import boto3\ns3 = boto3.client('s3')\n{GET}",
        "third_party/boto3/__init__.py": f"{GET}",
        "a.py": f"import boto3\ns3 = boto3.client('s3')\n{GET}",
    }
    found = scan(project(files), reading)
    assert [(call.path, call.evidence) for call in found.calls] == [("a.py", "flow")]
    assert set(found.index.files) == {"a.py"}


def test_endless_inference_ends(project: Project, reading: Reading) -> None:
    """Functions that call each other with ever new arguments, each reaching the others."""
    many = [
        f"def f{n}(x, y):\n    return " + " or ".join(f"f{m}(y, f{(m + n) % 30}(x, y))" for m in range(30))
        for n in range(30)
    ]
    program = "import boto3\n" + "\n".join(many) + "\nf0(1, 2).get_object(Bucket='b', Key='k')\n"
    program += "boto3.client('s3').get_object(Bucket='b', Key='k')\n"
    found = scan(project({"a.py": program}), reading)
    assert "XL713" in {item.code for item in found.problems}
    assert [call.method for call in found.calls if call.evidence == "flow"] == ["get_object"]


def test_a_small_budget_says_so(project: Project, reading: Reading) -> None:
    root = project({"a.py": f"import boto3\ndef make():\n    return boto3.client('s3')\ns3 = make()\n{GET}"})
    assert [item.code for item in scan(root, reading, steps_per_site=2).problems] == ["XL713"]
    assert scan(root, reading).problems == ()


def test_deep_code_does_not_overflow(project: Project, reading: Reading) -> None:
    root = project({"a.py": "import boto3\nx = " + "(" * 400 + "1" + ")" * 400 + "\ny = " + "+".join(["1"] * 3000)})
    assert scan(root, reading).calls == ()


def test_keywords_of_mappings(project: Project, reading: Reading) -> None:
    program = """
        import boto3
        s3 = boto3.client("s3")
        def put(b, k, extra, author):
            args = {"Bucket": b, "Key": k, "Body": b""}
            if author:
                args["Metadata"] = {"a": author}
            s3.put_object(**args)
            s3.put_object(Bucket=b, **extra)
            s3.put_object(**{"Bucket": b, "Key": k}, Body=b"")
    """
    calls = scan(project({"a.py": program}), reading).calls
    seen = [([argument.keyword for argument in call.arguments], call.untraced) for call in calls]
    assert sorted(seen[0][0]) == ["Body", "Bucket", "Key", "Metadata"] and not seen[0][1]
    assert seen[1] == (["Bucket"], True)
    assert sorted(seen[2][0]) == ["Body", "Bucket", "Key"] and not seen[2][1]


def test_places_count_from_one_and_broken_files_are_named(project: Project, reading: Reading) -> None:
    found = scan(
        project({"a.py": f"import boto3\ns3 = boto3.client('s3')\n  \nx = {GET}\n", "b.py": "def (:\n"}), reading
    )
    assert [(call.line, call.column) for call in found.calls] == [(4, 5)]
    assert [(item.code, item.subject, item.line) for item in found.problems] == [("XL710", "b.py", 1)]


def test_scan_of_no_folder(tmp_path: Path, reading: Reading) -> None:
    with pytest.raises(FileNotFoundError):
        scan(tmp_path / "nothing", reading)
