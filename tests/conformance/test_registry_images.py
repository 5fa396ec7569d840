"""Images between two registries over HTTP: the strict server of these tests, and Debian's docker-registry if there."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from oci_samples import INDEX, MANIFEST, image, layer, multi_arch
from oci_server import Manners, OciServer, Request, serve
from test_registry_oci import USERS, docker_registry, registry_at

from crossload.engines.mover.images import ImageOptions, move_image, move_repository
from crossload.ports.errors import DigestMismatch, Invalid, NotFound, Refused, Unsupported
from crossload.ports.registry import referrers_tag
from crossload.ports.retrying import RetryPolicy

QUICK = ImageOptions(retry=RetryPolicy(base_seconds=0.01, delay_seconds_max=0.05, give_up_seconds=3.0))
SMALL = replace(QUICK, piece_bytes=100_000, workers=2)


@pytest.fixture
def source() -> Iterator[OciServer]:
    with serve() as server:
        yield server


@pytest.fixture
def target() -> Iterator[OciServer]:
    with serve() as server:
        yield server


def move(source: OciServer, target: OciServer, reference: str = "v1", **more: Any) -> Any:
    more.setdefault("options", SMALL)
    return move_image(registry_at(source.url), registry_at(target.url), "team/app", reference, **more)


def same(source: OciServer, target: OciServer, name: str = "team/app") -> None:
    """Everything of the source's repository is at the target, byte by byte."""
    ours, theirs = source.of(name), target.of(name)
    assert {d: data for d, data in theirs.manifests.items() if d in ours.manifests} == ours.manifests
    assert theirs.blobs == ours.blobs
    assert {tag: digest for tag, digest in theirs.tags.items() if tag in ours.tags} == ours.tags


def writes(server: OciServer) -> list[Request]:
    return [one for one in server.log if one.method in ("POST", "PUT", "PATCH", "DELETE")]


def test_everything_comes_over_by_digest(source: OciServer, target: OciServer) -> None:
    sample = multi_arch(source, "team/app", "v1", "other-tag")
    heard: list[tuple[int, int]] = []
    report = move(source, target, moved=lambda blobs, size: heard.append((blobs, size)))
    del source.of("team/app").tags["other-tag"]  # not asked for
    same(source, target)
    assert report.digests == {"v1": sample.root}
    assert target.of("team/app").tags["v1"] == sample.root
    assert "other-tag" not in target.of("team/app").tags
    assert {sample.signature, sample.attestation, sample.companion} <= set(report.referrers)
    assert (report.manifests, report.manifests_found) == (7, 0)
    assert report.blobs == report.blobs_sent == len(source.of("team/app").blobs)
    total = sum(map(len, source.of("team/app").blobs.values()))
    assert report.sent_bytes == total == sum(size for _, size in heard)
    assert sum(blobs for blobs, _ in heard) == report.blobs
    assert json.loads(json.dumps(report.to_json()))["trust"] == "sent"
    assert writes(source) == []
    assert target.uploads == {}


def test_blobs_go_before_manifests_children_before_indexes_and_tags_last(source: OciServer, target: OciServer) -> None:
    sample = multi_arch(source, "team/app", "v1")
    move(source, target)
    order = [one.path.rpartition("/")[2].partition("?")[0] for one in writes(target) if "/manifests/" in one.path]
    kinds = ["blob" if "/blobs/" in one.path else "manifest" for one in writes(target)]
    assert kinds == sorted(kinds)
    assert max(order.index(one) for one in sample.platforms) < order.index(sample.root)
    assert order[-1] == "v1"
    assert order[-2].endswith(".sig")
    assert [one for one in order if not one.startswith("sha256")] == ["v1"]


def test_a_second_move_sends_nothing(source: OciServer, target: OciServer) -> None:
    multi_arch(source, "team/app", "v1")
    move(source, target)
    target.log.clear()
    report = move(source, target)
    assert writes(target) == []
    assert (report.blobs_found, report.manifests_found, report.sent_bytes) == (report.blobs, report.manifests, 0)


@pytest.mark.parametrize("ours, theirs", [(True, False), (False, True), (False, False)])
def test_referrers_come_over_with_and_without_the_api(ours: bool, theirs: bool) -> None:
    with serve(OciServer(Manners())) as source, serve(OciServer(Manners(referrers_api=theirs))) as target:
        sample = multi_arch(source, "team/app", "v1")
        if not ours:  # as clients keep the list where there is no API
            for subject in [digest for digest in source.of("team/app").manifests]:
                found = registry_at(source.url).referrers("team/app", subject)
                if found:
                    entries = [{"mediaType": MANIFEST, "digest": one.digest, "size": one.size_bytes} for one in found]
                    listed = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
                    source.put_manifest("team/app", listed, referrers_tag(subject))
            source.manners.referrers_api = False
        move(source, target)
        registry = registry_at(target.url)
        assert [one.digest for one in registry.referrers("team/app", sample.root)] == [sample.signature]
        signed = registry.referrers("team/app", sample.platforms[0])
        assert [one.digest for one in signed] == [sample.attestation]
        assert len(registry.referrers("team/app", sample.attestation)) == 1
        tagged = referrers_tag(sample.root) in target.of("team/app").tags
        assert tagged is not theirs
        if not ours and not theirs:  # the list itself is the same bytes, too
            same(source, target)
        target.log.clear()
        assert move(source, target).sent_bytes == 0
        assert writes(target) == []


def test_a_list_of_referrers_at_the_target_is_added_to(source: OciServer) -> None:
    with serve(OciServer(Manners(referrers_api=False))) as target:
        sample = multi_arch(source, "team/app", "v1")
        theirs = image(target, "team/app", 77, 100)
        listed = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [theirs]}
        target.put_manifest("team/app", listed, referrers_tag(sample.root))
        move(source, target)
        found = registry_at(target.url).referrers("team/app", sample.root)
        assert [one.digest for one in found] == [theirs["digest"], sample.signature]
        assert found[1].artifact_type == "application/vnd.example.signature"
        assert found[1].annotations == {"org.example.note": "signed"}


def test_a_damaged_blob_makes_nothing(source: OciServer, target: OciServer) -> None:
    sample = multi_arch(source, "team/app", "v1")
    held = source.of("team/app").blobs
    victim = max(held, key=lambda digest: len(held[digest]))
    held[victim] = held[victim][:-1] + bytes([held[victim][-1] ^ 1])
    with pytest.raises(DigestMismatch):
        move(source, target)
    assert victim not in target.of("team/app").blobs
    assert not target.of("team/app").manifests
    assert sample.root not in target.of("team/app").tags.values()
    assert target.uploads == {}


def test_a_blob_of_another_size_is_not_taken_for_the_same(source: OciServer, target: OciServer) -> None:
    multi_arch(source, "team/app", "v1")
    held = source.of("team/app").blobs
    victim = max(held, key=lambda digest: len(held[digest]))
    target.of("team/app").blobs[victim] = b"short"
    with pytest.raises(DigestMismatch, match="5 bytes"):
        move(source, target)


def test_rereading_finds_what_a_target_lost(source: OciServer, target: OciServer) -> None:
    multi_arch(source, "team/app", "v1")
    assert move(source, target, options=replace(SMALL, reread=True)).trust == "reread"
    held = target.of("team/app").blobs
    victim = max(held, key=lambda digest: len(held[digest]))
    held[victim] = bytes(len(held[victim]))
    move(source, target)  # same size: a HEAD cannot tell
    with pytest.raises(DigestMismatch):
        move(source, target, options=replace(SMALL, reread=True))


def test_connections_that_break_are_gone_on_with(source: OciServer, target: OciServer) -> None:
    multi_arch(source, "team/app", "v1", large=900_000)
    source.cut_blob_at, target.cut_patch_at = 50_000, 70_000
    move(source, target)
    assert source.cut_blob_at == target.cut_patch_at == 0, "nothing broke"
    same(source, target)
    sent = sum(one.sent_bytes for one in target.log if one.method == "PATCH")
    total = sum(map(len, source.of("team/app").blobs.values()))
    assert total <= sent <= total + 2 * SMALL.piece_bytes


def test_a_server_that_forgets_uploads_gets_the_blob_again(source: OciServer, target: OciServer) -> None:
    multi_arch(source, "team/app", "v1")
    target.cut_patch_at = 150_000 // 2

    def forget(request: Request) -> int:
        if request.method == "GET" and "/uploads/" in request.path:
            target.uploads.clear()
        return 0

    target.faults.append(forget)
    move(source, target, options=replace(SMALL, workers=1))
    same(source, target)


def test_an_upload_that_was_spoilt_is_begun_anew(source: OciServer, target: OciServer) -> None:
    multi_arch(source, "team/app", "v1")
    target.cut_patch_at = 70_000
    spoilt: list[bool] = []

    def spoil(request: Request) -> int:
        if request.method == "GET" and "/uploads/" in request.path:
            for _, data in target.uploads.values():
                if len(data) >= 70_000 and not spoilt:
                    data[5] ^= 1
                    spoilt.append(True)
        return 0

    target.faults.append(spoil)
    move(source, target, options=replace(SMALL, workers=1))
    assert spoilt
    same(source, target)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_servers_that_are_busy_are_waited_for(source: OciServer, target: OciServer, status: int) -> None:
    multi_arch(source, "team/app", "v1")
    left = {"GET": 2, "HEAD": 2, "PATCH": 2, "PUT": 2, "POST": 2}

    def busy(request: Request) -> int:
        left[request.method] = left.get(request.method, 0) - 1
        return status if left[request.method] >= 0 else 0

    source.faults.append(busy)
    target.faults.append(busy)
    move(source, target, options=replace(SMALL, workers=1))
    same(source, target)


def test_a_target_without_chunks_is_found_out(source: OciServer) -> None:
    with serve(OciServer(Manners(chunks=False))) as target:
        multi_arch(source, "team/app", "v1")
        said: list[str] = []
        move(source, target, say=said.append)
        same(source, target)
        assert any("takes no chunks" in line for line in said)


def test_a_target_that_wants_larger_chunks_gets_them(source: OciServer) -> None:
    with serve(OciServer(Manners(chunk_bytes_min=300_000))) as target:
        multi_arch(source, "team/app", "v1")
        move(source, target)
        same(source, target)
        chunks = [one.sent_bytes for one in target.log if one.method == "PATCH" and "content-range" in one.headers]
        assert 300_000 in chunks


def test_blobs_of_another_repository_are_mounted(source: OciServer, target: OciServer) -> None:
    multi_arch(source, "team/app", "v1")
    move(source, target, target_repository="base/app")
    report = move(source, target, options=replace(SMALL, mount_from=("absent/one", "base/app")))
    assert (report.blobs_mounted, report.sent_bytes) == (report.blobs, 0)
    same(source, target)


def test_a_tag_of_somebody_else_is_not_moved(source: OciServer, target: OciServer, tmp_path: Path) -> None:
    multi_arch(source, "team/app", "v1")
    theirs = image(target, "team/app", 50, 100)
    target.of("team/app").tags["v1"] = theirs["digest"]
    with pytest.raises(Refused, match="v1"):
        move(source, target)
    assert writes(target) == []
    report = move(source, target, options=replace(SMALL, replace_tags=True), notes=tmp_path / "notes.json")
    assert target.of("team/app").tags["v1"] == report.digests["v1"]


def test_our_own_tag_moves_with_the_source(source: OciServer, target: OciServer, tmp_path: Path) -> None:
    notes = tmp_path / "deep" / "notes.json"
    first = image(source, "team/app", 60, 500)
    source.of("team/app").tags["latest"] = first["digest"]
    move(source, target, "latest", notes=notes)
    second = image(source, "team/app", 61, 500)
    source.of("team/app").tags["latest"] = second["digest"]
    with pytest.raises(Refused):
        move(source, target, "latest")  # without notes nobody knows whose it is
    move(source, target, "latest", notes=notes)
    assert target.of("team/app").tags["latest"] == second["digest"]


def test_a_tag_that_moves_meanwhile_is_reported(source: OciServer, target: OciServer) -> None:
    first, second = image(source, "team/app", 60, 500), image(source, "team/app", 61, 500)
    source.of("team/app").tags["latest"] = first["digest"]

    def change(request: Request) -> int:
        if request.method == "PATCH":
            source.of("team/app").tags["latest"] = second["digest"]
        return 0

    target.faults.append(change)
    report = move(source, target, "latest")
    assert report.changed_meanwhile == ["latest"]
    assert target.of("team/app").tags["latest"] == first["digest"]


def test_by_digest_no_tag_is_set_unless_named(source: OciServer, target: OciServer) -> None:
    made = image(source, "team/app", 60, 500)
    assert move(source, target, made["digest"]).tags == {}
    assert target.of("team/app").tags == {}
    assert move(source, target, made["digest"], target_tag="pinned").tags == {"pinned": made["digest"]}


def test_a_whole_repository(source: OciServer, target: OciServer) -> None:
    multi_arch(source, "team/app", "v1", "v1.0")
    for number in range(12):
        made = image(source, "team/app", 200 + number, 50)
        source.of("team/app").tags[f"build-{number}"] = made["digest"]
    source.manners.page = target.manners.page = 5
    report = move_repository(registry_at(source.url), registry_at(target.url), "team/app", options=SMALL)
    same(source, target)
    assert len(report.digests) == 14
    with pytest.raises(NotFound):
        move_repository(registry_at(source.url), registry_at(target.url), "team/none", options=SMALL)


def test_content_that_lies_elsewhere_is_left_there(source: OciServer, target: OciServer) -> None:
    made = image(source, "team/app", 60, 500)
    document = json.loads(source.of("team/app").manifests[made["digest"]][1])
    foreign = "sha256:" + "ab" * 32
    kind = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    document["layers"].append({"mediaType": kind, "size": 9, "digest": foreign, "urls": ["https://example.com/x"]})
    source.put_manifest("team/app", document, "v1")
    assert move(source, target).elsewhere == [foreign]
    del document["layers"][-1]["urls"]
    source.put_manifest("team/app", document, "v2")
    with pytest.raises(NotFound):
        move(source, target, "v2")


def test_what_cannot_be_the_same_at_both_ends_is_refused(source: OciServer, target: OciServer) -> None:
    made = image(source, "team/app", 60, 500)
    held = source.of("team/app").manifests
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [made, {**made, "digest": "sha256:" + "cd" * 32}]}
    source.put_manifest("team/app", index, "sparse")
    with pytest.raises(NotFound, match="which the source does not have"):
        move(source, target, "sparse")
    both = {**json.loads(held[made["digest"]][1]), "manifests": []}
    source.put_manifest("team/app", both, "both")
    with pytest.raises(Invalid, match="at once"):
        move(source, target, "both")
    old = {"schemaVersion": 1, "mediaType": "application/vnd.docker.distribution.manifest.v1+prettyjws"}
    source.put_manifest("team/app", old, "old")
    with pytest.raises(Unsupported, match="schema 1"):
        move(source, target, "old")
    assert not target.of("team/app").manifests


def test_a_manifest_that_was_changed_on_its_way_is_seen(source: OciServer, target: OciServer) -> None:
    made = image(source, "team/app", 60, 500)
    kind, data = source.of("team/app").manifests[made["digest"]]
    source.of("team/app").tags["v1"] = made["digest"]
    source.of("team/app").manifests[made["digest"]] = (kind, data + b" ")
    with pytest.raises(DigestMismatch):
        move(source, target)


def test_other_digests_than_sha256(source: OciServer, target: OciServer) -> None:
    made = image(source, "team/app", 60, 500)
    document = json.loads(source.of("team/app").manifests[made["digest"]][1])
    long = source.put_blob("team/app", layer(5, 250_000), "sha512")
    document["layers"].append({"mediaType": document["layers"][0]["mediaType"], **long})
    source.put_manifest("team/app", document, "v1")
    move(source, target)
    assert hashlib.sha512(target.of("team/app").blobs[long["digest"]]).hexdigest() == long["digest"][7:]


@pytest.mark.parametrize("auth", ["bearer", "basic"])
def test_signed_in_at_both_ends_and_no_secret_is_left(
    auth: str, tmp_path: Path, secrets_in: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        serve(OciServer(Manners(auth=auth, users=USERS, token_seconds=1))) as source,
        serve(OciServer(Manners(auth=auth, users=USERS, token_seconds=1))) as target,
    ):
        multi_arch(source, "team/app", "v1")
        target.slow_seconds = 0.01
        target.cut_patch_at = 60_000
        said: list[str] = []
        report = move_image(
            registry_at(source.url, "reader", "read-password"), registry_at(target.url, "writer", "write-password"),
            "team/app", "v1", options=SMALL, notes=tmp_path / "notes.json", say=said.append,
        )  # fmt: skip
        same(source, target)
        (tmp_path / "report").write_text(json.dumps(report.to_json()) + "\n".join(said) + "".join(capsys.readouterr()))
        tokens = {f"token{n}": token for n, token in enumerate([*source.tokens, *target.tokens])}
        passwords = {name: password for name, (password, _) in USERS.items()}
        assert secrets_in(tmp_path, {**tokens, **passwords}) == []


CHILD = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from test_registry_oci import registry_at
from crossload.engines.mover.images import ImageOptions, move_image
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
report = move_image(registry_at(sys.argv[2]), registry_at(sys.argv[3]), "team/app", "v1",
                    options=ImageOptions(piece_bytes=int(sys.argv[5]), workers=2), notes=Path(sys.argv[4]))
print(report.sent_bytes, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def child(source: OciServer, target: OciServer, notes: Path, piece_bytes: int) -> subprocess.Popen[str]:
    package = Path(__file__).resolve().parent.parent.parent / "src"
    arguments = [str(Path(__file__).parent), source.url, target.url, str(notes), str(piece_bytes)]
    environment = {**os.environ, "PYTHONPATH": str(package)}
    command = [sys.executable, "-c", CHILD, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def test_a_killed_move_goes_on_where_it_was(source: OciServer, target: OciServer, tmp_path: Path) -> None:
    """kill -9 in the middle of large blobs, three times; nothing torn is ever visible, and little is sent again."""
    multi_arch(source, "team/app", "v1", large=3_000_000)
    total, piece = sum(map(len, source.of("team/app").blobs.values())), 200_000
    target.slow_seconds = 0.01
    notes = tmp_path / "notes.json"
    for goal in (600_000, 1_900_000, 3_300_000):
        process = child(source, target, notes, piece)
        until = time.monotonic() + 60
        while sum(one.sent_bytes for one in list(target.log) if one.method == "PATCH") < goal:
            assert process.poll() is None and time.monotonic() < until, "it ended before it could be killed"
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        held = target.of("team/app")
        for digest, data in list(held.blobs.items()):
            assert digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
        assert not held.tags
    target.slow_seconds = 0.0
    process = child(source, target, notes, piece)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    same(source, target)
    sent = sum(one.sent_bytes for one in target.log if one.method == "PATCH")
    assert sent <= total + 3 * 2 * piece, "more than a piece per worker and kill was sent again"
    assert int(out.split()[0]) < total // 2, "the last run began anew"
    assert target.uploads == {}


def test_memory_does_not_grow_with_the_blob(source: OciServer, target: OciServer, tmp_path: Path) -> None:
    made = image(source, "team/app", 60, 96 * 2**20)
    source.of("team/app").tags["v1"] = made["digest"]
    out, _ = child(source, target, tmp_path / "notes.json", 1 << 40).communicate(timeout=120)
    sent, grown_kib = map(int, out.split())
    assert sent > 96 * 2**20
    assert grown_kib < 40 * 1024


def test_to_a_real_registry_and_back(source: OciServer, target: OciServer, tmp_path: Path) -> None:
    """Ours -> Debian's -> Debian's -> ours: the same digests everywhere."""
    sample = multi_arch(source, "team/app", "v1", large=2_500_000)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with docker_registry(tmp_path / "a") as first, docker_registry(tmp_path / "b") as second:
        ways = [(source.url, first), (first, second), (second, target.url)]
        for theirs, ours in ways:
            report = move_image(registry_at(theirs), registry_at(ours), "team/app", "v1", options=SMALL)
            assert report.digests == {"v1": sample.root}
            assert len(report.referrers) == 4
            again = move_image(registry_at(theirs), registry_at(ours), "team/app", "v1", options=SMALL)
            assert (again.sent_bytes, again.manifests_found) == (0, 7)
    same(source, target)
