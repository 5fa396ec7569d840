"""The lab's clouds as places of a migration file: references only, so that the file can go to git."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

MODEL_ID = "meta.llama3-1-8b-instruct-v1:0"
TARGET_MODEL = "smollm2-135m-instruct"


def source_place(home: Path) -> dict[str, Any]:
    """Cloud A as a place section; `home` is the lab's folder, for `file:` references."""
    del home
    connection = {
        "config_file": "env:CROSSLOAD_LAB_AWS_CONFIG",
        "credentials_file": "env:CROSSLOAD_LAB_AWS_CREDENTIALS",
        "profile": "lab-a-mover",
        "profile@return": "lab-a-returner",
        "profile@freeze": "lab-a-freezer",
        "profile@app": "lab-a-app",
        "profile@audit": "lab-a-auditor",
        "profile@stranger": "lab-a-stranger",
    }
    return {
        "id": "cloud-a",
        "provider": "aws",
        "region": "eu-central-1",
        "country": "DE",
        "connection": connection,
        "services": {
            "vectors": {"provider": "postgres", "connection": {"url": "env:CROSSLOAD_LAB_PG_A"}},
            "models": {"provider": "aws", "connection": {**connection, "model": MODEL_ID}},
        },
    }


def target_places(home: Path, env: Mapping[str, str]) -> list[dict[str, Any]]:
    """Cloud B in three regions, of which residency rules one out. All answer from the same servers."""
    del env

    def place(name: str, region: str, country: str) -> dict[str, Any]:
        store = {
            "endpoint": "env:CROSSLOAD_LAB_GCS_ENDPOINT",
            "project": "env:CROSSLOAD_LAB_GCS_PROJECT",
            "issuer": "env:CROSSLOAD_LAB_OIDC_ISSUER",
            "audience": "env:CROSSLOAD_LAB_OIDC_AUDIENCE",
            "versioning": "off",
        }
        for suffix, who in (("", "mover"), ("@app", "app"), ("@audit", "auditor"), ("@stranger", "stranger")):
            store[f"client_id{suffix}"] = who
            store[f"client_secret{suffix}"] = f"file:{home / 'secrets' / f'oidc-{who}'}"
        models = {
            "base_url": "env:CROSSLOAD_LAB_LLM_B",
            "repository": "env:CROSSLOAD_LAB_LLM_B_REPOSITORY",
            "key": f"file:{home / 'secrets' / 'llm-b'}",
            "model": TARGET_MODEL,
        }
        return {
            "id": name,
            "provider": "gcp",
            "region": region,
            "country": country,
            "connection": store,
            "services": {
                "vectors": {"provider": "postgres", "connection": {"url": "env:CROSSLOAD_LAB_PG_B"}},
                "models": {"provider": "openai", "connection": models},
            },
        }

    return [
        place("cloud-b", "europe-west3", "DE"),
        place("cloud-b-berlin", "europe-west10", "DE"),
        place("cloud-b-us", "us-central1", "US"),
    ]
