"""Images for tests, put behind a server's back: multi-arch, signed, attested, as tools write them."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from oci_server import OciServer

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
EMPTY = "application/vnd.oci.empty.v1+json"


@dataclass(slots=True)
class Sample:
    """`root` is the index; `manifests` all digests, `blobs` likewise."""

    root: str
    platforms: list[str] = field(default_factory=list)
    signature: str = ""
    attestation: str = ""
    companion: str = ""


def layer(seed: int, size_bytes: int) -> bytes:
    return random.Random(seed).randbytes(size_bytes)


def image(server: OciServer, name: str, seed: int, *sizes: int) -> dict[str, Any]:
    """One platform's image; returns its descriptor."""
    config = server.put_blob(name, f'{{"architecture":"a{seed}"}}'.encode())
    layers = [server.put_blob(name, layer(seed * 100 + n, size)) for n, size in enumerate(sizes)]
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, **config},
        "layers": [{"mediaType": LAYER, **one} for one in layers],
    }
    return server.put_manifest(name, document)


def referrer(server: OciServer, name: str, subject: dict[str, Any], kind: str, text: str) -> dict[str, Any]:
    """A manifest that names `subject` in its subject field."""
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": kind,
        "config": {"mediaType": EMPTY, **server.put_blob(name, b"{}")},
        "layers": [{"mediaType": kind, **server.put_blob(name, text.encode())}],
        "subject": subject,
        "annotations": {"org.example.note": text},
    }
    return server.put_manifest(name, document)


def multi_arch(server: OciServer, name: str, *tags: str, large: int = 700_000) -> Sample:
    """An index of two platforms that share a layer; a signature of the index, an attestation of one platform's image
    and a signature of that attestation by subject, and one signature by tag."""
    shared = layer(7, 90_000)
    descriptors: list[dict[str, Any]] = []
    for number in (1, 2):
        one = image(server, name, number, large, 3000)
        held = server.of(name).manifests.pop(one["digest"])
        document = _loads(held[1])
        document["layers"].append({"mediaType": LAYER, **server.put_blob(name, shared)})
        made = server.put_manifest(name, document)
        descriptors.append({**made, "platform": {"os": "linux", "architecture": ("amd64", "arm64")[number - 1]}})
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": descriptors}
    root = server.put_manifest(name, index, *tags, indent=3)
    signature = referrer(server, name, root, "application/vnd.example.signature", "signed")
    first = {name: value for name, value in descriptors[0].items() if name != "platform"}
    attestation = referrer(server, name, first, "application/vnd.example.attestation", "built here")
    referrer(server, name, attestation, "application/vnd.example.signature", "signed too")
    companion = image(server, name, 9, 400)
    server.of(name).tags[root["digest"].replace(":", "-") + ".sig"] = companion["digest"]
    return Sample(
        root["digest"], [one["digest"] for one in descriptors], signature["digest"], attestation["digest"],
        companion["digest"],
    )  # fmt: skip


def _loads(data: bytes) -> dict[str, Any]:
    import json

    return json.loads(data)
