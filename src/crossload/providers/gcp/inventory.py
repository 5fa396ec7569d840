"""The Account port over Google Cloud: its buckets, through the Cloud Storage JSON API.

Other kinds come through Cloud Asset Inventory in a later version; they are reported as not asked, never as none."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from crossload.estate.asset import Asset, Kind, KindReport
from crossload.ports.account import (
    DENIED,
    FAILED,
    FOUND,
    UNSUPPORTED,
    Contents,
    Discovery,
    bucket_assets,
    distinct,
)
from crossload.ports.errors import AccessDenied, CrossloadError
from crossload.ports.provider import Settings
from crossload.providers.gcp.session import access_token, items, request
from crossload.providers.gcp.store import open_store

_THREADS = 8
_NOT_ASKED = (Kind.AGENT, Kind.ENDPOINT, Kind.FUNCTION, Kind.KEY, Kind.QUEUE, Kind.ROLE, Kind.SECRET, Kind.TABLE)


def open_account(settings: Settings) -> GcpAccount:
    return GcpAccount(settings)


class GcpAccount:
    def __init__(self, settings: Settings) -> None:
        self.place = settings.place.id
        self._settings = settings
        self._store = open_store(settings)

    def permissions(self) -> list[str]:
        return ["storage.buckets.list", "storage.objects.list"]

    def discover(self) -> Discovery:
        if not self._settings.identity == "anonymous":
            access_token(self._settings)  # a sign-in that fails is one clear error, not a list of refused kinds
        reports = [
            KindReport(self.place, str(kind), UNSUPPORTED, None, "not asked for at this provider yet")
            for kind in _NOT_ASKED
        ]
        try:
            params = {"project": self._settings.require("project"), "maxResults": "500"}
            buckets = list(items(partial(request, self._settings), "/storage/v1/b", params))
        except AccessDenied as error:
            return Discovery(self.place, (), (), (*reports, KindReport(self.place, "bucket", DENIED, None, str(error))))
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="discover") as pool:
            counted = list(pool.map(self._count, buckets))
        assets: list[Asset] = []
        refused: list[tuple[str, str]] = []
        for bucket, (contents, status, words) in zip(buckets, counted, strict=True):
            assets += _assets(self.place, bucket, contents)
            if contents is None:
                refused.append((status, words))
        reports.append(KindReport(self.place, "bucket", FOUND, len(buckets)))
        for kind in (Kind.DATASET, Kind.MODEL):
            count = sum(1 for asset in assets if asset.kind is kind)
            reports.append(KindReport(self.place, str(kind), FOUND, count, "in the buckets listed"))
        if refused:
            status, words = min(refused)
            reports.append(KindReport(self.place, "bucket.objects", status, len(refused), words))
        reports.sort(key=lambda report: report.kind)
        return Discovery(self.place, tuple(distinct(assets)), (), tuple(reports))

    def _count(self, bucket: dict[str, Any]) -> tuple[Contents | None, str, str]:
        """The bucket's tally by listing it, bounded in memory; or the refusal."""
        contents = Contents()
        try:
            for info in self._store.list(bucket["name"]):
                contents.add(info.key, info.size_bytes)
        except AccessDenied as error:
            return None, DENIED, str(error)
        except CrossloadError as error:
            return None, FAILED, str(error)
        return contents, FOUND, ""


def _assets(place: str, bucket: dict[str, Any], contents: Contents | None) -> list[Asset]:
    key = bucket.get("encryption", {}).get("defaultKmsKeyName", "")
    facts: dict[str, Any] = {
        "versioning": "Enabled" if bucket.get("versioning", {}).get("enabled") else "off",
        # Cloud Storage encrypts everything at rest; without a key of one's own it is Google's.
        "encryption": "customer key" if key else "AES256",
    }
    if bucket.get("location"):
        facts["region"] = str(bucket["location"]).lower()
    if key:
        facts["encryption_key"] = key
    name = str(bucket["name"])
    return bucket_assets(place, name, f"gs://{name}", contents, facts, dict(bucket.get("labels", {})))
