"""Cloud B's front is as strict as the real service where the server behind it is not."""

from __future__ import annotations

import concurrent.futures
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from crossload.lab import Lab

pytestmark = pytest.mark.usefixtures("lab")


@pytest.mark.parametrize("kind", ["media", "multipart"])
def test_create_only_if_absent(front: Any, kind: str) -> None:
    write = getattr(front, kind)
    assert write("a", b"1", ifGenerationMatch=0).status_code == 200
    refused = write("a", b"2", ifGenerationMatch=0)
    assert refused.status_code == 412
    assert front.read("a", alt="media").content == b"1"
    current = front.generation("a")
    assert write("a", b"3", ifGenerationMatch=current).status_code == 200
    assert write("a", b"4", ifGenerationMatch=current).status_code == 412
    assert front.read("a", alt="media").content == b"3"


def test_resumable_uploads_keep_their_condition_until_the_last_byte(front: Any) -> None:
    assert front.media("there", b"1").status_code == 200
    assert front.session("there", ifGenerationMatch=0).status_code == 412
    started = front.session("raced", ifGenerationMatch=0)
    assert started.status_code == 200
    assert front.media("raced", b"somebody was faster").status_code == 200
    first = front.http.put(
        started.headers["location"], content=b"x" * 262144, headers={"Content-Range": "bytes 0-262143/262154"}
    )
    assert first.status_code == 308
    late = front.http.put(
        started.headers["location"], content=b"x" * 10, headers={"Content-Range": "bytes 262144-262153/262154"}
    )
    assert late.status_code == 412
    assert front.read("raced", alt="media").content == b"somebody was faster"
    alone = front.session("alone", ifGenerationMatch=0)
    assert front.http.put(alone.headers["location"], content=b"12345").status_code == 200
    assert front.read("alone", alt="media").content == b"12345"


def test_reads_and_deletes_with_a_stale_generation_are_refused(front: Any) -> None:
    front.media("a", b"1")
    old = front.generation("a")
    front.media("a", b"2")
    new = front.generation("a")
    assert old != new
    for query in ({"alt": "media"}, {}):
        assert front.read("a", ifGenerationMatch=old, **query).status_code == 412
        assert front.read("a", ifGenerationMatch=new, **query).status_code == 200
    assert front.read("a", ifGenerationNotMatch=new).status_code == 304
    download = f"/download/storage/v1/b/{front.bucket}/o/a"
    assert front.http.get(download, params={"alt": "media", "ifGenerationMatch": old}).status_code == 412
    assert front.http.delete(f"/storage/v1/b/{front.bucket}/o/a", params={"ifGenerationMatch": old}).status_code == 412
    copied = f"/storage/v1/b/{front.bucket}/o/a/rewriteTo/b/{front.bucket}/o/a"
    assert front.http.post(copied, params={"ifGenerationMatch": 0}).status_code == 412
    assert front.http.post(copied, params={"ifSourceGenerationMatch": old}).status_code == 412
    gone = front.http.delete(f"/storage/v1/b/{front.bucket}/o/a", params={"ifGenerationMatch": new})
    assert gone.status_code in (200, 204)
    assert front.read("a").status_code == 404


def test_of_many_writers_that_want_to_be_first_exactly_one_is(front: Any) -> None:
    for number in range(5):
        name = f"race-{number}"
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            writes = [pool.submit(front.media, name, str(writer).encode(), ifGenerationMatch=0) for writer in range(8)]
            answers = [write.result().status_code for write in writes]
        assert answers.count(200) == 1, answers
        assert set(answers) <= {200, 412, 429}
        assert front.read(name, alt="media").content == str(answers.index(200)).encode()


@pytest.mark.parametrize("name", ["../x", "a/../../x", "..", "a//b", "/a", "./a", "a/./b", "x" * 300])
def test_keys_the_store_would_bend_are_refused_on_every_road(front: Any, name: str) -> None:
    for answer in (
        front.media(name, b"1"),
        front.multipart(name, b"1"),
        front.session(name),
        front.http.post(
            f"/upload/storage/v1/b/{front.bucket}/o",
            params={"uploadType": "resumable"},
            content=('{"name":"' + "".join(f"\\u{ord(mark):04x}" for mark in name) + '"}').encode(),
            headers={"Content-Type": "application/json"},
        ),
        # ".." as a whole key never leaves the client: it is taken out of the address there.
        front.read(name if name != ".." else "../y", alt="media"),
    ):
        assert answer.status_code == 400, (answer.request.url, answer.text)


def test_no_key_leaves_the_folder_of_the_store(lab: Lab, front: Any) -> None:
    front.media("../../escaped", b"1")
    front.multipart("../../escaped", b"1")
    assert list(lab.home.rglob("escaped")) == []
    assert not (lab.home / "fake-gcs" / "escaped").exists()
    (lab.home / "fake-gcs" / "beside.txt").write_text("outside of the store")
    assert front.read("../../beside.txt", alt="media").status_code == 400


def test_keys_it_can_hold_keep_every_byte(front: Any) -> None:
    for name in ("plain", "deep/er/key", "ü☃/日本", "a b+c%d&e=f?g#h", "dots..in.name", "trailing./x", "~_-!*'()"):
        assert front.media(name, name.encode()).status_code == 200, name
        assert front.read(name, alt="media").content == name.encode()
    listed = front.http.get(f"/storage/v1/b/{front.bucket}/o").json()["items"]
    assert len(listed) == 7


def test_a_folder_marker_is_kept_and_content_under_it_is_refused(front: Any) -> None:
    assert front.media("folder/", b"").status_code == 200
    assert front.multipart("folder2/", b"").status_code == 200
    assert front.media("folder/", b"lost").status_code == 400
    assert front.multipart("folder/", b"lost").status_code == 400


def test_a_key_below_another_is_refused_for_good_and_not_as_an_outage(front: Any) -> None:
    front.media("a", b"1")
    answer = front.media("a/b", b"2")
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == 400


def test_large_bodies_stream_through(lab: Lab, front: Any, tmp_path: Path) -> None:
    size_bytes = 100_000_000
    before = _resident_bytes(lab.pid("envoy"))

    def blocks() -> Any:
        for _ in range(size_bytes // 1_000_000):
            yield b"x" * 1_000_000

    begun = time.monotonic()
    answer = front.http.post(
        f"/upload/storage/v1/b/{front.bucket}/o",
        params={"uploadType": "media", "name": "large", "ifGenerationMatch": 0},
        content=blocks(),
        headers={"Content-Length": str(size_bytes)},
        timeout=60,
    )
    assert answer.status_code == 200
    assert answer.json()["size"] == str(size_bytes)
    assert _resident_bytes(lab.pid("envoy")) - before < 30_000_000
    assert size_bytes / (time.monotonic() - begun) > 5_000_000
    front.http.delete(f"/storage/v1/b/{front.bucket}/o/large")


def _resident_bytes(pid: int) -> int:
    for line in (Path("/proc") / str(pid) / "status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


def test_metadata_and_generation_survive_a_crash_of_the_store(lab: Lab, front: Any) -> None:
    started = front.http.post(
        f"/upload/storage/v1/b/{front.bucket}/o",
        params={"uploadType": "resumable"},
        json={"name": "kept", "contentType": "text/x-lab", "metadata": {"owner": "lab"}},
    )
    front.http.put(started.headers["location"], content=b"kept", headers={"Content-Type": "text/x-lab"})
    before = front.read("kept").json()
    lab.kill("fake-gcs")
    with pytest.raises(httpx.HTTPStatusError):
        front.read("kept").raise_for_status()
    lab.start("fake-gcs")
    after = front.read("kept").json()
    assert {key: after[key] for key in ("generation", "metadata", "contentType", "crc32c", "size")} == {
        "generation": before["generation"],
        "metadata": {"owner": "lab"},
        "contentType": "text/x-lab",
        "crc32c": before["crc32c"],
        "size": "4",
    }


def test_googles_own_client_meets_the_same_answers(lab: Lab, token: Any, front: Any) -> None:
    from google.api_core.exceptions import Forbidden, PreconditionFailed
    from google.cloud import storage
    from google.oauth2.credentials import Credentials

    def client(bearer: str) -> Any:
        address = {"api_endpoint": lab.env()["CROSSLOAD_LAB_GCS_ENDPOINT"]}
        return storage.Client(project="p", credentials=Credentials(token=bearer), client_options=address)

    bucket = client(token("mover")).bucket(front.bucket)
    bucket.blob("a").upload_from_string("1", if_generation_match=0)
    with pytest.raises(PreconditionFailed):
        bucket.blob("a").upload_from_string("2", if_generation_match=0)
    large = bucket.blob("large")
    large.chunk_size = 256 * 1024
    large.upload_from_string(b"x" * 700_000, if_generation_match=0)
    assert bucket.blob("large").download_as_bytes() == b"x" * 700_000
    with pytest.raises(PreconditionFailed):
        bucket.blob("large").upload_from_string(b"y" * 700_000, if_generation_match=0)
    assert [blob.name for blob in bucket.list_blobs()] == ["a", "large"]
    with pytest.raises(Forbidden):
        list(client(token("stranger")).bucket(front.bucket).list_blobs())
