"""Models made by hand from their formats' documentation: a hub cache, a tracking store, a packed model."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping

ROOT = "file:///home/ana/mlruns"
RUN = "73ed5776f5e04e23be739d46812cb6bd"


def safetensors(tensors: Mapping[str, bytes]) -> bytes:
    """Eight bytes of length (little-endian), a JSON header with offsets, the tensors' bytes."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, data in tensors.items():
        header[name] = {"dtype": "U8", "shape": [len(data)], "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(tensors.values())


def git_name(data: bytes) -> str:
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def shards() -> dict[str, bytes]:
    """A plain repository of a model in two shards."""
    first, second = safetensors({"a": b"A" * 100, "b": b"B" * 50}), safetensors({"c": b"C" * 70})
    placed = {"a": "model-00001-of-00002.safetensors", "b": "model-00001-of-00002.safetensors"}
    placed["c"] = "model-00002-of-00002.safetensors"
    index = {"metadata": {"total_size": 220}, "weight_map": placed}
    return {
        "config.json": b'{"model_type": "bert"}\n',
        "model-00001-of-00002.safetensors": first,
        "model-00002-of-00002.safetensors": second,
        "model.safetensors.index.json": json.dumps(index).encode(),
    }


def hub_cache() -> dict[str, bytes]:
    """As a bucket holds it: links were followed, so that snapshots have the bytes of their blobs once more."""
    commit, older = "bbc77c8132af1cc5cf678da3f1ddf2de43606d48", "2439f60ef33a0d46d85da5001d52aeda5b00ce9f"
    folder = "hub/models--julien-c--EsperBERTo-small"
    files: dict[str, bytes] = {}
    for name, data in shards().items():
        blob = sha256(data) if name.endswith(".safetensors") else git_name(data)
        files[f"{folder}/blobs/{blob}"] = data
        files[f"{folder}/snapshots/{commit}/{name}"] = data
        files[f"{folder}/snapshots/{older}/{name}"] = data
    readme = b"# older\n"
    files[f"{folder}/blobs/{git_name(readme)}"] = readme
    files[f"{folder}/snapshots/{older}/README.md"] = readme
    files[f"{folder}/refs/main"] = commit.encode()
    files[f"{folder}/refs/refs/pr/1"] = older.encode()
    files[f"{folder}/.no_exist/{older}/absent.json"] = b""
    files[f"{folder}/blobs/{'e' * 64}.incomplete"] = b"half"
    files["hub/.locks/models--julien-c--EsperBERTo-small/x.lock"] = b""
    return files


def tracking_store(root: str = ROOT) -> dict[str, bytes]:
    """An experiment, a run with a model, a logged model, a registered model with two versions, one of them deleted."""
    run, version = f"mlruns/0/{RUN}", "mlruns/models/esperanto/version-1"
    model = f"{root}/0/{RUN}/artifacts/model"
    files = {
        "mlruns/0/meta.yaml": f"artifact_location: {root}/0\ncreation_time: 1672364273202\nexperiment_id: '0'\n"
        "last_update_time: 1672364273202\nlifecycle_stage: active\nname: Default\n",
        f"{run}/meta.yaml": f"artifact_uri: {root}/0/{RUN}/artifacts\nend_time: 1672364273335\nentry_point_name: ''\n"
        f"experiment_id: '0'\nlifecycle_stage: active\nrun_id: {RUN}\nrun_name: beautiful-dog-902\nrun_uuid: {RUN}\n"
        "source_name: ''\nsource_type: 4\nsource_version: ''\nstart_time: 1672364273319\nstatus: 3\ntags: []\n"
        "user_id: ana\n",
        f"{run}/params/learning/rate": "0.001",
        f"{run}/metrics/loss": "1672364273320 0.9 0\n1672364273330 0.25 1\n",
        f"{run}/tags/mlflow.user": "ana",
        f"{run}/tags/note": f"weights first lay at {root}/scratch",
        f"{run}/artifacts/model/MLmodel": f"artifact_path: {model}  # where it was logged\nflavors:\n"
        "  python_function:\n    loader_module: mlflow.pytorch\nmodel_uuid: 1a2b\nrun_id: " + RUN + "\n",
        f"{run}/artifacts/model/data/weights.bin": "W" * 5000,
        f"{run}/artifacts/plot.png": "P" * 300,
        "mlruns/0/models/m-0f3c/meta.yaml": f"artifact_location: {root}/0/models/m-0f3c/artifacts\n"
        "creation_timestamp: 1672364273333\nexperiment_id: '0'\nmodel_id: m-0f3c\nname: logged\n"
        f"source_run_id: {RUN}\nstatus: 2\n",
        "mlruns/0/models/m-0f3c/params/depth": "7",
        "mlruns/0/models/m-0f3c/artifacts/data/weights.bin": "W" * 5000,
        "mlruns/models/esperanto/meta.yaml": "aliases: {}\ncreation_timestamp: 1672364274000\ndescription: the model\n"
        "last_updated_timestamp: 1672364275000\nname: esperanto\n",
        "mlruns/models/esperanto/aliases/champion": "1",
        "mlruns/models/esperanto/tags/team": "language",
        f"{version}/meta.yaml": "aliases: []\ncreation_timestamp: 1672364274500\ncurrent_stage: Production\n"
        f"description: ''\nname: esperanto\nrun_id: {RUN}\nrun_link: null\nsource: '{model}'\n"
        f"storage_location: {model}\nuser_id: null\nversion: 1\n",
        f"{version}/tags/approved-by": "bo",
        "mlruns/models/esperanto/version-2/meta.yaml": "current_stage: Deleted_Internal\nname: esperanto\n"
        f"run_id: {RUN}\nsource: {model}\nversion: 2\n",
        "mlruns/.trash/keep": "",
    }
    return {key: text.encode() for key, text in files.items()}


def packed(*names: str) -> bytes:
    """model.tar.gz as a training job leaves it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name in names or ("model.pth", "code/inference.py", "code/requirements.txt"):
            data = name.encode() * 50
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()
