"""The source-shaped front of a generated adapter: boto3's shapes and errors over a neutral back.

The convert engine cuts what an application uses out of this file and writes it into that application's package. So
this is product code and generated code at once: it imports only the SDK, the standard library and `ports.portable`."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import boto3
from botocore.exceptions import ClientError, EndpointConnectionError
from botocore.response import StreamingBody

from crossload.ports.portable import Answer, Chat, Headers, Objects, Question, Stored, Trouble

CLOUD = "CROSSLOAD_CLOUD"
BUCKETS = "CROSSLOAD_BUCKETS"

# (operation, neutral trouble) -> the code that callers compare with; operation "" stands for all of its front.
OBJECT_ERRORS: Mapping[tuple[str, str], str] = {
    ("HeadObject", "absent"): "404",
    ("HeadObject", "no-place"): "404",
    ("HeadObject", "denied"): "403",
    ("", "absent"): "NoSuchKey",
    ("", "no-place"): "NoSuchBucket",
    ("", "denied"): "AccessDenied",
    ("", "unsigned"): "InvalidToken",
    ("", "changed"): "PreconditionFailed",
    ("", "throttled"): "SlowDown",
    ("", "invalid"): "InvalidArgument",
    ("", "range"): "InvalidRange",
    ("", "unavailable"): "ServiceUnavailable",
}
CHAT_ERRORS: Mapping[tuple[str, str], str] = {
    ("", "absent"): "ResourceNotFoundException",
    ("", "no-place"): "ResourceNotFoundException",
    ("", "denied"): "AccessDeniedException",
    ("", "unsigned"): "UnrecognizedClientException",
    ("", "throttled"): "ThrottlingException",
    ("", "invalid"): "ValidationException",
    ("", "unavailable"): "ServiceUnavailableException",
}
STOP_REASONS: Mapping[str, str] = {"stop": "end_turn", "length": "max_tokens", "filtered": "content_filtered"}


class NoSuchKey(ClientError):
    pass


class NoSuchBucket(ClientError):
    pass


class ObjectExceptions:
    """What `client.exceptions` offers."""

    ClientError = ClientError
    NoSuchKey = NoSuchKey
    NoSuchBucket = NoSuchBucket


class ChatExceptions:
    """What `client.exceptions` offers; a ClientError's code tells the kinds apart."""

    ClientError = ClientError


def sdk_error(trouble: Trouble, operation: str, codes: Mapping[tuple[str, str], str]) -> Exception:
    """The SDK's exception for a neutral trouble, so that `except ClientError` goes on working."""
    if trouble.kind == "unreachable":
        return EndpointConnectionError(endpoint_url=trouble.endpoint, error=str(trouble))
    code = codes.get((operation, trouble.kind)) or codes.get(("", trouble.kind)) or "InternalError"
    answer: Any = {
        "Error": {"Code": code, "Message": str(trouble)},
        "ResponseMetadata": {"HTTPStatusCode": trouble.status or 500, "HTTPHeaders": {}, "RetryAttempts": 0},
    }
    kinds: dict[str, type[ClientError]] = {"NoSuchKey": NoSuchKey, "NoSuchBucket": NoSuchBucket}
    return kinds.get(code, ClientError)(answer, operation)


def bucket_name(name: str) -> str:
    """The target's name of a source bucket: CROSSLOAD_BUCKETS holds a JSON object of those that differ."""
    return str(json.loads(os.environ.get(BUCKETS) or "{}").get(name, name))


def byte_range(text: str) -> tuple[int, int | None]:
    """`bytes=a-b` as (start, length); `bytes=-n` as (-n, None)."""
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", text.strip())
    if found is None or not (found[1] or found[2]):
        raise Trouble("invalid", f"not a byte range: {text}", 400)
    if not found[1]:
        return -int(found[2]), None
    return int(found[1]), int(found[2]) - int(found[1]) + 1 if found[2] else None


def described(stored: Stored) -> dict[str, Any]:
    """The fields that head_object and get_object share."""
    fields: dict[str, Any] = {
        "ETag": etag(stored),
        "ContentLength": stored.size_bytes,
        "ContentType": stored.content_type or "binary/octet-stream",
        "LastModified": datetime.fromtimestamp(stored.modified_at, UTC),
        "Metadata": {name.lower(): value for name, value in stored.metadata.items()},
        "AcceptRanges": "bytes",
        "ResponseMetadata": {"HTTPStatusCode": 200, "HTTPHeaders": {}, "RetryAttempts": 0},
    }
    optional = {
        "ContentEncoding": stored.content_encoding,
        "ContentLanguage": stored.content_language,
        "ContentDisposition": stored.content_disposition,
        "CacheControl": stored.cache_control,
    }
    return fields | {name: value for name, value in optional.items() if value}


def etag(stored: Stored) -> str:
    """The MD5 in quotes, as a single-part upload has it; the version where the target keeps no MD5."""
    return f'"{stored.md5_hex or stored.version}"'


def headers(arguments: Mapping[str, Any]) -> Headers:
    return Headers(
        arguments.get("ContentType") or "",
        arguments.get("ContentEncoding") or "",
        arguments.get("ContentLanguage") or "",
        arguments.get("ContentDisposition") or "",
        arguments.get("CacheControl") or "",
        arguments.get("Metadata"),
    )


class ObjectsClient:
    """The methods of the object store's client that this application calls."""

    exceptions = ObjectExceptions

    def __init__(self, back: Objects) -> None:
        self._back = back

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{name} has no portable form: convert again, or call it at the source only")

    def get_object(self, *, Bucket: str, Key: str, Range: str = "") -> dict[str, Any]:
        try:
            start, length = byte_range(Range) if Range else (0, None)
            stored, stream, size_bytes = self._back.read_object(bucket_name(Bucket), Key, start, length)
        except Trouble as trouble:
            raise sdk_error(trouble, "GetObject", OBJECT_ERRORS) from trouble
        body = StreamingBody(stream, size_bytes)
        return {**described(stored), "Body": body, "ContentLength": size_bytes}

    def put_object(
        self,
        *,
        Bucket: str,
        Key: str,
        Body: bytes | BinaryIO = b"",
        ContentType: str = "",
        ContentEncoding: str = "",
        ContentLanguage: str = "",
        ContentDisposition: str = "",
        CacheControl: str = "",
        Metadata: Mapping[str, str] | None = None,
        ContentLength: int | None = None,
        ServerSideEncryption: str = "",
        StorageClass: str = "",
    ) -> dict[str, Any]:
        given = Headers(ContentType, ContentEncoding, ContentLanguage, ContentDisposition, CacheControl, Metadata)
        try:
            stored = self._back.write_object(bucket_name(Bucket), Key, Body, given)
        except Trouble as trouble:
            raise sdk_error(trouble, "PutObject", OBJECT_ERRORS) from trouble
        return {"ETag": etag(stored), "ResponseMetadata": {"HTTPStatusCode": 200, "HTTPHeaders": {}}}

    def head_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:
        try:
            return described(self._back.describe_object(bucket_name(Bucket), Key))
        except Trouble as trouble:
            raise sdk_error(trouble, "HeadObject", OBJECT_ERRORS) from trouble

    def delete_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:
        try:
            self._back.remove_object(bucket_name(Bucket), Key)
        except Trouble as trouble:
            raise sdk_error(trouble, "DeleteObject", OBJECT_ERRORS) from trouble
        return {"ResponseMetadata": {"HTTPStatusCode": 204, "HTTPHeaders": {}}}

    def delete_objects(self, *, Bucket: str, Delete: Mapping[str, Any]) -> dict[str, Any]:
        deleted: list[dict[str, str]] = []
        failed: list[dict[str, str]] = []
        for item in Delete["Objects"]:
            try:
                self._back.remove_object(bucket_name(Bucket), item["Key"])
                deleted.append({"Key": item["Key"]})
            except Trouble as trouble:
                if trouble.kind in ("unreachable", "no-place"):
                    raise sdk_error(trouble, "DeleteObjects", OBJECT_ERRORS) from trouble
                code = OBJECT_ERRORS.get(("", trouble.kind), "InternalError")
                failed.append({"Key": item["Key"], "Code": code, "Message": str(trouble)})
        answer: dict[str, Any] = {"ResponseMetadata": {"HTTPStatusCode": 200, "HTTPHeaders": {}}}
        if deleted and not Delete.get("Quiet"):
            answer["Deleted"] = deleted
        if failed:
            answer["Errors"] = failed
        return answer

    def copy_object(self, *, Bucket: str, Key: str, CopySource: str | Mapping[str, str]) -> dict[str, Any]:
        if isinstance(CopySource, str):
            from_bucket, _, from_key = CopySource.lstrip("/").partition("/")
        else:
            from_bucket, from_key = CopySource["Bucket"], CopySource["Key"]
        try:
            stored = self._back.duplicate_object(bucket_name(from_bucket), from_key, bucket_name(Bucket), Key)
        except Trouble as trouble:
            raise sdk_error(trouble, "CopyObject", OBJECT_ERRORS) from trouble
        when = datetime.fromtimestamp(stored.modified_at, UTC)
        return {"CopyObjectResult": {"ETag": etag(stored), "LastModified": when}}

    def list_objects_v2(
        self,
        *,
        Bucket: str,
        Prefix: str = "",
        Delimiter: str = "",
        StartAfter: str = "",
        ContinuationToken: str = "",
        MaxKeys: int = 1000,
    ) -> dict[str, Any]:
        try:
            page = self._back.list_page(
                bucket_name(Bucket), Prefix, Delimiter, StartAfter, ContinuationToken, min(MaxKeys, 1000)
            )
        except Trouble as trouble:
            raise sdk_error(trouble, "ListObjectsV2", OBJECT_ERRORS) from trouble
        answer: dict[str, Any] = {
            "Name": Bucket,
            "Prefix": Prefix,
            "MaxKeys": MaxKeys,
            "KeyCount": len(page.objects) + len(page.prefixes),
            "IsTruncated": bool(page.next_token),
            "ResponseMetadata": {"HTTPStatusCode": 200, "HTTPHeaders": {}},
        }
        if page.objects:
            answer["Contents"] = [
                {
                    "Key": item.key,
                    "Size": item.size_bytes,
                    "ETag": etag(item),
                    "LastModified": datetime.fromtimestamp(item.modified_at, UTC),
                    "StorageClass": "STANDARD",
                }
                for item in page.objects
            ]
        if page.prefixes:
            answer["CommonPrefixes"] = [{"Prefix": prefix} for prefix in page.prefixes]
        if page.next_token:
            answer["NextContinuationToken"] = page.next_token
        return answer

    def get_paginator(self, operation_name: str) -> ListPaginator:
        if operation_name != "list_objects_v2":
            raise AttributeError(f"a paginator of {operation_name} has no portable form")
        return ListPaginator(self)

    def upload_file(
        self, Filename: str, Bucket: str, Key: str, ExtraArgs: Mapping[str, Any] | None = None, Config: Any = None
    ) -> None:
        with Path(Filename).open("rb") as stream:
            self.upload_fileobj(stream, Bucket, Key, ExtraArgs)

    def upload_fileobj(
        self, Fileobj: BinaryIO, Bucket: str, Key: str, ExtraArgs: Mapping[str, Any] | None = None, Config: Any = None
    ) -> None:
        try:
            self._back.write_object(bucket_name(Bucket), Key, Fileobj, headers(ExtraArgs or {}))
        except Trouble as trouble:
            raise sdk_error(trouble, "PutObject", OBJECT_ERRORS) from trouble

    def download_file(self, Bucket: str, Key: str, Filename: str, Config: Any = None) -> None:
        # Beside the file and then renamed, as the SDK does: a broken download must not leave half a file behind.
        part = Path(f"{Filename}.crossload-part")
        try:
            with part.open("wb") as stream:
                self.download_fileobj(Bucket, Key, stream)
            part.replace(Filename)
        finally:
            part.unlink(missing_ok=True)

    def download_fileobj(self, Bucket: str, Key: str, Fileobj: BinaryIO, Config: Any = None) -> None:
        try:
            _, stream, _ = self._back.read_object(bucket_name(Bucket), Key, 0, None)
            while block := stream.read(1 << 20):
                Fileobj.write(block)
        except Trouble as trouble:
            # The SDK's transfer methods ask for the size first, so a missing object is a failed HeadObject there.
            raise sdk_error(trouble, "HeadObject", OBJECT_ERRORS) from trouble


class ListPaginator:
    """Pages of a listing, as the SDK's paginator gives them."""

    def __init__(self, front: ObjectsClient) -> None:
        self._front = front

    def paginate(
        self, *, PaginationConfig: Mapping[str, Any] | None = None, **arguments: Any
    ) -> Iterator[dict[str, Any]]:
        settings = PaginationConfig or {}
        left = int(settings["MaxItems"]) if settings.get("MaxItems") is not None else None
        if settings.get("PageSize"):
            arguments["MaxKeys"] = int(settings["PageSize"])
        if settings.get("StartingToken"):
            arguments["ContinuationToken"] = settings["StartingToken"]
        while True:
            page = self._front.list_objects_v2(**arguments)
            if left is not None:
                for name in ("Contents", "CommonPrefixes"):
                    if name in page:
                        page[name] = page[name][:left]
                        left -= len(page[name])
            yield page
            if not page["IsTruncated"] or left == 0:
                return
            arguments["ContinuationToken"] = page["NextContinuationToken"]


def question(
    model: str, messages: list[dict[str, Any]], system: list[dict[str, Any]] | None, config: Mapping[str, Any] | None
) -> Question:
    """Text only: a block of another kind is refused, because dropping it would change what the model is asked."""

    def text_of(blocks: list[dict[str, Any]]) -> str:
        for block in blocks:
            if set(block) != {"text"}:
                raise Trouble("invalid", f"content block {'/'.join(sorted(block))} has no portable form", 400)
        return "".join(block["text"] for block in blocks)

    if not messages:
        raise Trouble("invalid", "a conversation must start with a user message", 400)
    settings = dict(config or {})
    unknown = set(settings) - {"maxTokens", "temperature", "topP", "stopSequences"}
    if unknown:
        raise Trouble("invalid", f"inferenceConfig: no portable form for {', '.join(sorted(unknown))}", 400)
    return Question(
        model,
        text_of(system or []),
        [(message["role"], text_of(message["content"])) for message in messages],
        settings.get("maxTokens"),
        settings.get("temperature"),
        settings.get("topP"),
        settings.get("stopSequences"),
    )


def usage(answer: Answer) -> dict[str, int]:
    """Token counts; a server that does not tell gives no counts rather than zeros."""
    if answer.input_tokens is None or answer.output_tokens is None:
        return {}
    return {
        "inputTokens": answer.input_tokens,
        "outputTokens": answer.output_tokens,
        "totalTokens": answer.input_tokens + answer.output_tokens,
    }


class ChatClient:
    """The methods of the model runtime's client that this application calls."""

    exceptions = ChatExceptions

    def __init__(self, back: Chat) -> None:
        self._back = back

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{name} has no portable form: convert again, or call it at the source only")

    def converse(
        self,
        *,
        modelId: str,
        messages: list[dict[str, Any]],
        system: list[dict[str, Any]] | None = None,
        inferenceConfig: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        try:
            answer = self._back.ask(question(modelId, messages, system, inferenceConfig))
        except Trouble as trouble:
            raise sdk_error(trouble, "Converse", CHAT_ERRORS) from trouble
        return {
            "output": {"message": {"role": "assistant", "content": [{"text": answer.text}]}},
            "stopReason": STOP_REASONS[answer.finish],
            "usage": usage(answer),
            "metrics": {"latencyMs": round(answer.seconds * 1000)},
            "ResponseMetadata": {"HTTPStatusCode": 200, "HTTPHeaders": {}, "RetryAttempts": 0},
        }

    def converse_stream(
        self,
        *,
        modelId: str,
        messages: list[dict[str, Any]],
        system: list[dict[str, Any]] | None = None,
        inferenceConfig: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        try:
            pieces = self._back.ask_stream(question(modelId, messages, system, inferenceConfig))
            # The first piece is fetched here, so that a refused request fails at the call, as it does in the SDK.
            first = next(pieces)
        except Trouble as trouble:
            raise sdk_error(trouble, "ConverseStream", CHAT_ERRORS) from trouble
        return {"stream": chat_events(first, pieces), "ResponseMetadata": {"HTTPStatusCode": 200, "HTTPHeaders": {}}}


def chat_events(first: str | Answer, pieces: Iterator[str | Answer]) -> Iterator[dict[str, Any]]:
    """The SDK's events; a broken stream raises its error, so that half an answer never looks whole."""
    yield {"messageStart": {"role": "assistant"}}
    piece: str | Answer = first
    while isinstance(piece, str):
        yield {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"text": piece}}}
        try:
            piece = next(pieces)
        except Trouble as trouble:
            raise sdk_error(trouble, "ConverseStream", CHAT_ERRORS) from trouble
    yield {"contentBlockStop": {"contentBlockIndex": 0}}
    yield {"messageStop": {"stopReason": STOP_REASONS[piece.finish]}}
    yield {"metadata": {"usage": usage(piece), "metrics": {"latencyMs": round(piece.seconds * 1000)}}}


# Service -> what answers for it at the target. Empty here: the engine writes the rows of each application.
PORTABLE: dict[str, Callable[[], Any]] = {}


def at_target() -> bool:
    """Where this process runs: the source, unless CROSSLOAD_CLOUD says otherwise."""
    cloud = os.environ.get(CLOUD, "source")
    if cloud not in ("source", "target"):
        raise ValueError(f"{CLOUD} must be source or target, not {cloud!r}")
    return cloud == "target"


def client(service_name: str, *args: Any, **options: Any) -> Any:
    """`boto3.client`, except that at the target a service with a portable form is answered there.

    `options` (region, retries, timeouts) are the source's; the target has settings of its own."""
    opener = PORTABLE.get(service_name) if at_target() else None
    return opener() if opener is not None else boto3.client(service_name, *args, **options)


class PortableSession:
    """A session whose `client` is the portable one; everything else is the session's own."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def client(self, service_name: str, *args: Any, **options: Any) -> Any:
        opener = PORTABLE.get(service_name) if at_target() else None
        return opener() if opener is not None else self._session.client(service_name, *args, **options)


def of(session: Any) -> PortableSession:
    """Stands in front of a session that the application made itself."""
    return PortableSession(session)
