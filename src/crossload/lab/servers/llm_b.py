"""Cloud B's model host: up from the start with no model; serves what it is told to fetch from cloud B's own bucket."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from crossload.lab.cloud_b import client_secrets, issuer_url
from crossload.lab.site import Site
from crossload.lab.spec import HttpProbe, Server


def _prep(site: Site) -> None:
    site.secret("llm-b")
    client_secrets(site)


def _exports(site: Site) -> Mapping[str, str]:
    return {"CROSSLOAD_LAB_LLM_B": site.url("api") + "/v1", "CROSSLOAD_LAB_LLM_B_REPOSITORY": site.url("admin")}


SERVER = Server(
    name="llm-b",
    cloud="b",
    about="model host: llama.cpp on a model from the bucket",
    port_names=("admin", "api"),
    argv=lambda site: [
        sys.executable, "-m", "crossload.lab.programs.model_host", "--admin-port", str(site.port("admin")),
        "--port", str(site.port("api")), "--folder", site.folder, "--key-file", site.secret_path("llm-b"),
        "--issuer", issuer_url(site), "--client", "model-host",
        "--client-secret-file", site.secret_path("oidc-model-host"),
        "--store", site.url("gcs", "envoy"),
    ],
    ready=lambda site: HttpProbe(site.url("admin") + "/v2/health/ready"),
    hint="pip install xllamacpp==2026.10.11549",
    modules=("xllamacpp",),
    exports=_exports,
    prep=_prep,
    # A restored model is served again before the host calls itself ready.
    start_seconds_max=90.0,
    proves="a moved model is started from the bytes in the bucket, and refused when their sha256 is another",
)  # fmt: skip
