"""The list of objects of the sample workload: what is in `helpdesk-docs`, and why it is awkward (docs/helpdesk.md)."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from crossload.lab.seed_clients import SeedError
from crossload.lab.seed_content import KIB, MIB, SeedObject, number_of

ROUTER_KEY = "router/topic-router.json"
MULTIPART_KEY = "recordings/town-hall.mp4"
VERSIONED_KEY = "policies/refunds.md"
RETIRED_KEY = "policies/faxes.md"
VERSIONED_PREFIX = "policies/"

_TEXT = "text/plain; charset=utf-8"
_ATTACHMENTS = (
    (".png", "image/png"), (".pdf", "application/pdf"), (".jpg", "image/jpeg"), (".zip", "application/zip"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Amounts:
    """How many objects of each shape; of `recordings` and the one upload in `parts` (whole, part) the MiB."""

    tickets: int
    attachments: int
    logs: int
    exports: int
    recordings: tuple[int, ...]
    parts: tuple[int, int]


_FULL = _Amounts(tickets=1000, attachments=820, logs=120, exports=48, recordings=(5, 9, 14, 22, 38), parts=(64, 8))
_SMALL = _Amounts(tickets=24, attachments=8, logs=4, exports=1, recordings=(1,), parts=(6, 5))


def docs_objects(small: bool = False) -> list[SeedObject]:
    """All objects that have one version, sorted by key."""
    listed = [*_manual(), *_generated(_SMALL if small else _FULL), *awkward_objects()]
    return sorted(listed, key=lambda item: item.key)


def versions_of_docs() -> dict[str, list[SeedObject | None]]:
    """Key -> its versions, oldest first; None is a delete marker."""
    days = (14, 30, 60)
    policy: list[SeedObject | None] = [
        SeedObject(
            VERSIONED_KEY, "text", text=f"# Refunds\n\nBooks can be returned within {count} days.\n",
            content_type="text/markdown; charset=utf-8", metadata={"revision": str(number)}, tags={"team": "support"},
        )
        for number, count in enumerate(days, 1)
    ]  # fmt: skip
    faxes = SeedObject(
        RETIRED_KEY, "text", text="# Faxes\n\nOrders by fax are answered in 5 days.\n", content_type="text/markdown"
    )
    return {VERSIONED_KEY: policy, RETIRED_KEY: [faxes, None]}


def router_object(workload: Path) -> SeedObject:
    """The classifier that the workload ships: from a question's vector to one of 8 topics."""
    path = workload / "data" / "topic_router.json"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SeedError(f"the workload's {path.name} cannot be read: {error}") from error
    metadata = {"input": "all-minilm-l6-v2", "dimension": "384"}
    return SeedObject(ROUTER_KEY, "text", text=text, content_type="application/json", metadata=metadata)


def _manual() -> Iterator[SeedObject]:
    # The manual of the interpreter that runs: another Python release has other bytes, and the seed then has them too.
    from pydoc_data.topics import topics

    for name, text in sorted(topics.items()):
        yield SeedObject(
            f"topics/{name}.txt", "text", text=text, content_type=_TEXT, cache_control="max-age=3600",
            content_language="en", metadata={"source": "python-manual", "topic": name, "licence": "PSF"},
            tags={"team": "docs", "sensitivity": "public"},
        )  # fmt: skip


def _generated(amounts: _Amounts) -> Iterator[SeedObject]:
    for number in range(amounts.tickets):
        key = f"tickets/2026/{number % 12 + 1:02}/ticket-{number:05}.json"
        yield SeedObject(
            key, "tickets", number_of(key, 400, 3 * KIB), content_type="application/json",
            metadata={"channel": ("mail", "chat", "phone")[number % 3]}, tags={"team": "support"},
        )  # fmt: skip
    for number in range(amounts.attachments):
        suffix, content_type = _ATTACHMENTS[number % len(_ATTACHMENTS)]
        key = f"attachments/{number % 32:02x}/scan-{number:05}{suffix}"
        yield SeedObject(key, "noise", number_of(key, 4 * KIB, 256 * KIB), content_type=content_type)
    for number in range(amounts.logs):
        key = f"logs/service-{number % 6}/2026-{number % 12 + 1:02}-{number % 28 + 1:02}.{number:03}.jsonl"
        yield SeedObject(key, "lines", number_of(key, 60 * KIB, 300 * KIB), content_type="application/x-ndjson")
    for number in range(amounts.exports):
        key = f"exports/orders/part-{number:04}.parquet"
        size = number_of(key, MIB, 3 * MIB)
        yield SeedObject(
            key, "noise", size, content_type="application/vnd.apache.parquet", tags={"sensitivity": "internal"}
        )
    for number, size in enumerate(amounts.recordings):
        yield SeedObject(f"recordings/call-{number:03}.ogg", "noise", size * MIB, content_type="audio/ogg")
    whole, part = amounts.parts
    yield SeedObject(
        MULTIPART_KEY, "noise", whole * MIB, content_type="video/mp4", metadata={"minutes": "42"},
        tags={"team": "people"}, part_size_bytes=part * MIB,
    )  # fmt: skip


# Key -> what goes wrong with it in programs that are careless.
_KEYS: tuple[tuple[str, str], ...] = (
    ("a b", "a space, and no folder"),
    ("a/b", "a folder beside a key that differs by one byte"),
    ("awkward/with space.txt", "a space must not become a plus"),
    ("awkward/plus+sign.txt", "a plus must not become a space"),
    ("awkward/percent%20literal.txt", "an escape that is not one"),
    ("awkward/100% sure.txt", "a percent sign that escapes nothing"),
    ("awkward/%2F.txt", "not a folder"),
    ('awkward/double"quote.txt', "breaks naive CSV and JSON"),
    ("awkward/it's.txt", "breaks naive shell and SQL"),
    ("awkward/amp&equals=semi;.txt", "query string characters"),
    ("awkward/hash#question?.txt", "a fragment and a query that are not"),
    ("awkward/star*[set]{x,y}|pipe.txt", "globs"),
    ("awkward/$dollar`tick`!.txt", "shell expansion"),
    ("awkward/colon:at@comma,.txt", "looks like a host and a port"),
    ("awkward/<angle>.txt", "XML listings must escape it"),
    ("awkward/ leading and trailing ", "spaces that trimming would lose"),
    ("awkward/...", "dots only"),
    ("awkward/.hidden", "hidden from a shell's star"),
    ("awkward/-rf", "looks like an option"),
    ("awkward/Case.txt", "differs from the next by case only"),
    ("awkward/case.txt", "differs from the one before by case only"),
    ("awkward/tab\there.txt", "a tab"),
    ("awkward/" + unicodedata.normalize("NFC", "café.txt"), "composed"),
    ("awkward/" + unicodedata.normalize("NFD", "café.txt"), "decomposed: looks the same, is another key"),
    ("awkward/日本語/文書.txt", "three bytes a letter"),
    ("awkward/emoji-🐍.txt", "four bytes, beyond the basic plane"),
    ("awkward/עברית.txt", "written from right to left"),
    ("awkward/" + "/".join(["d" * 60] * 15) + "/deep.txt", "long, in many short folders"),
    ("awkward/" + "x" * 200 + ".txt", "one very long name"),
)


def awkward_objects() -> Iterator[SeedObject]:
    """Keys, headers, tags and contents that careless copies get wrong."""
    for key, why in _KEYS:
        yield SeedObject(
            key, "text", text=f"{why}\n", content_type=_TEXT, metadata={"why": why}, tags={"awkward": "key"}
        )
    yield SeedObject("awkward/empty", "text", text="", content_type="application/x-empty", metadata={"why": "no bytes"})
    yield SeedObject("awkward/untyped", "noise", 777, content_type="binary/octet-stream")
    yield SeedObject(
        "awkward/latin-1.txt", "text", text="Grüße aus Köln\n", charset="iso-8859-1",
        content_type="text/plain; charset=iso-8859-1", content_language="de",
    )  # fmt: skip
    yield SeedObject(
        "awkward/stored.json", "gzip", text='{"why": "readers that decompress on the way see other bytes"}\n',
        content_type="application/json", content_encoding="gzip",
    )  # fmt: skip
    yield SeedObject(
        "awkward/attachment.csv", "text", text="id,city\n1,Zürich\n", content_type="text/csv",
        cache_control="private, no-store", content_disposition="attachment; filename*=UTF-8''r%C3%A9sum%C3%A9.csv",
        content_language="de, en",
    )  # fmt: skip
    yield SeedObject(
        "awkward/heavy-metadata.txt", "text", text="user metadata close to the limit of 2 KB\n", content_type=_TEXT,
        metadata={f"field-{number:02}": "v" * 80 for number in range(20)} | {"x": "a, b; c=d"},
    )  # fmt: skip
    yield SeedObject(
        "awkward/ten-tags.txt", "text", text="as many tags as a store may hold\n", content_type=_TEXT,
        tags={"path": "a/b", "sum": "1+1=2", "mail": "docs@example.org", "team": "Unterstützung"}
        | {f"tag {number}": f"value: {number}" for number in range(6)},
    )  # fmt: skip
