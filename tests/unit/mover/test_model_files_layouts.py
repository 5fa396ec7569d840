"""Models as files plus rows: what is read out of a listing, and which addresses are changed."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from model_samples import ROOT, RUN, hub_cache, packed, safetensors, sha256, shards, tracking_store

from crossload.engines.mover.models import ModelCard, ModelRow, read_model_layout, rewrite
from crossload.ports.errors import Invalid
from crossload.ports.store import ObjectInfo

NEW = "memory://models/store"


class Files:
    """A listing and its reader; `read` counts bytes by key."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = dict(files)
        self.read: dict[str, int] = {}

    def listing(self) -> list[ObjectInfo]:
        return [ObjectInfo(key, len(data), "etag") for key, data in self.files.items()]

    def __call__(self, key: str, start: int, length: int) -> bytes:
        data = self.files[key][start : start + length]
        self.read[key] = self.read.get(key, 0) + len(data)
        return data

    def card(self, known: Mapping[str, str] | None = None) -> ModelCard:
        return read_model_layout(self.listing(), self, known=known)


def rows(card: ModelCard, kind: str) -> list[ModelRow]:
    return [row for row in card.rows if row.kind == kind]


# -- a hub's cache -----------------------------------------------------------------------------------------------------


def test_a_hub_cache_has_its_blobs_once() -> None:
    files = Files(hub_cache())
    card = files.card()
    assert (card.layout, card.problems) == ("hub", ())
    distinct = {data for key, data in hub_cache().items() if not key.endswith((".incomplete", ".lock"))}
    assert card.distinct_bytes == sum(map(len, distinct))
    assert card.size_bytes > 2 * card.distinct_bytes
    for file in card.files:
        assert file.sha256 == sha256(files.files[file.key])
        assert not file.same_as or files.files[file.same_as] == files.files[file.key]
    assert sorted(key.rpartition(".")[2] for key in card.left_out) == ["incomplete", "lock"]


def test_references_lead_to_commits() -> None:
    card = Files(hub_cache()).card()
    found = {row.fields["reference"]: (row.name, row.fields["commit"], row.fields["files"]) for row in card.rows}
    assert found == {
        "main": ("julien-c/EsperBERTo-small", "bbc77c8132af1cc5cf678da3f1ddf2de43606d48", 4),
        "refs/pr/1": ("julien-c/EsperBERTo-small", "2439f60ef33a0d46d85da5001d52aeda5b00ce9f", 5),
    }


def test_a_damaged_blob_and_a_reference_into_nowhere_are_problems() -> None:
    files = hub_cache()
    for key in [key for key in files if "/blobs/" in key and not key.endswith(".incomplete")]:
        files[key] = files[key] + b"!"
    files["hub/models--julien-c--EsperBERTo-small/refs/gone"] = b"a" * 40
    files["hub/models--julien-c--EsperBERTo-small/refs/odd"] = b"main"
    card = Files(files).card()
    assert sum("is damaged" in problem for problem in card.problems) == 5  # both kinds of names
    assert sum("has no snapshot" in problem for problem in card.problems) == 1
    assert sum("holds no commit" in problem for problem in card.problems) == 1


# -- shards ------------------------------------------------------------------------------------------------------------


def test_shards_are_whole() -> None:
    card = Files(shards()).card()
    assert (card.layout, card.problems, card.rows) == ("files", (), ())


@pytest.mark.parametrize(
    "key, data, problem",
    [
        ("model-00002-of-00002.safetensors", None, "is not there"),
        ("model-00002-of-00002.safetensors", safetensors({"other": b"x"}), "lacks 1 tensors"),
        ("model-00002-of-00002.safetensors", shards()["model-00002-of-00002.safetensors"][:-1], "its header speaks"),
        ("model-00002-of-00002.safetensors", b"\xff" * 30, "no safetensors file"),
        ("model-00002-of-00002.safetensors", b"", "no safetensors file"),
        ("model.safetensors.index.json", b"{}", "has no weight_map"),
    ],
)
def test_a_shard_that_is_not_whole_is_a_problem(key: str, data: bytes | None, problem: str) -> None:
    files = shards()
    if data is None:
        del files[key]
    else:
        files[key] = data
    assert any(problem in found for found in Files(files).card().problems)


def test_digests_that_a_copy_knows_are_not_computed_again() -> None:
    files = Files(shards())
    known = {key: sha256(data) for key, data in files.files.items()}
    card = files.card(known)
    assert {file.key: file.sha256 for file in card.files} == known
    assert files.read["model-00001-of-00002.safetensors"] < len(files.files["model-00001-of-00002.safetensors"])
    assert "config.json" not in files.read


# -- a tracking store --------------------------------------------------------------------------------------------------


def test_a_tracking_store_gives_rows_in_the_order_of_their_making() -> None:
    card = Files(tracking_store()).card()
    assert (card.layout, card.problems) == ("mlflow", ())
    kinds = [row.kind for row in card.rows]
    assert kinds == ["experiment", "run", "logged-model", "registered-model", "model-version"]
    run = rows(card, "run")[0]
    assert run.name == RUN
    assert run.fields["params"] == {"learning/rate": "0.001"}
    assert run.fields["metrics"] == {"loss": {"timestamp": 1672364273330, "value": 0.25, "step": 1}}
    assert run.fields["tags"]["mlflow.user"] == "ana"
    model = rows(card, "registered-model")[0]
    assert (model.name, model.fields["aliases"], model.fields["tags"]) == (
        "esperanto", {"champion": "1"}, {"team": "language"},
    )  # fmt: skip
    (version,) = rows(card, "model-version")  # the deleted one has no row
    assert (version.name, version.fields["version"], version.fields["run_id"]) == ("esperanto", 1, RUN)
    assert version.fields["tags"] == {"approved-by": "bo"}
    assert json.loads(json.dumps(card.to_json()))["layout"] == "mlflow"


def test_versions_without_runs_and_aliases_without_versions_are_problems() -> None:
    files = tracking_store()
    files["mlruns/models/esperanto/aliases/challenger"] = b"9"
    files["mlruns/models/esperanto/version-1/meta.yaml"] = files["mlruns/models/esperanto/version-1/meta.yaml"].replace(
        RUN.encode(), b"f" * 32
    )
    files["mlruns/1/meta.yaml"] = b"- just\n- a list\n"
    problems = Files(files).card().problems
    assert any("names run ffff" in problem for problem in problems)
    assert any("alias challenger" in problem for problem in problems)
    assert any("mlruns/1/meta.yaml" in problem for problem in problems)


def test_addresses_are_changed_and_nothing_else() -> None:
    files = Files(tracking_store())
    new = rewrite(files.card(), files, {ROOT: NEW})
    assert {key for key in new.files} == {
        "mlruns/0/meta.yaml", f"mlruns/0/{RUN}/meta.yaml", f"mlruns/0/{RUN}/artifacts/model/MLmodel",
        "mlruns/0/models/m-0f3c/meta.yaml", "mlruns/models/esperanto/version-1/meta.yaml",
        "mlruns/models/esperanto/version-2/meta.yaml",
    }  # fmt: skip
    for key, data in new.files.items():
        assert data == files.files[key].replace(ROOT.encode(), NEW.encode()), key
    assert len(new.changes) == 7
    change = next(one for one in new.changes if one.field == "source" and "version-1" in one.key)
    assert (change.line, change.new) == (8, f"{NEW}/0/{RUN}/artifacts/model")
    assert new.mentions == (f"mlruns/0/{RUN}/tags/note",)
    assert new.uncovered == ()


def test_rows_have_the_new_addresses() -> None:
    files = Files(tracking_store())
    new = rewrite(files.card(), files, {ROOT: NEW})
    fields = {row.kind: row.fields for row in new.rows}
    assert fields["experiment"]["artifact_location"] == f"{NEW}/0"
    assert fields["run"]["artifact_uri"] == f"{NEW}/0/{RUN}/artifacts"
    assert fields["model-version"]["source"] == f"{NEW}/0/{RUN}/artifacts/model"
    assert fields["model-version"]["storage_location"] == fields["model-version"]["source"]
    assert ROOT not in json.dumps([row.fields for row in new.rows if row.kind != "run"], default=str)


def test_a_root_ends_at_a_slash_and_the_longest_counts() -> None:
    files = Files(tracking_store("/home/ana/mlruns"))
    card = files.card()
    new = rewrite(card, files, {"/home/ana/ml": "x://wrong", "/home/ana/mlruns": NEW, "/home/ana/mlruns/0": "x://0"})
    made = new.files[f"mlruns/0/{RUN}/meta.yaml"].decode()
    assert made.startswith(f"artifact_uri: x://0/{RUN}/artifacts\n")
    assert "wrong" not in made


def test_addresses_with_and_without_a_scheme_are_the_same_place() -> None:
    files = Files(tracking_store("/home/ana/mlruns"))
    assert len(rewrite(files.card(), files, {ROOT: NEW}).changes) == 7


def test_addresses_that_no_root_covers_are_named_and_left() -> None:
    files = Files(tracking_store())
    new = rewrite(files.card(), files, {"x://elsewhere": NEW})
    assert (new.files, new.changes, len(new.uncovered)) == ({}, (), 7)
    files.files["mlruns/models/esperanto/version-1/meta.yaml"] = b"name: esperanto\nsource: models:/m-1\nversion: 1\n"
    assert not any("m-1" in one for one in rewrite(files.card(), files, {"x://elsewhere": NEW}).uncovered)


@pytest.mark.parametrize(
    "written, wanted",
    [
        ("{old}", "{new}"), ("'{old}'", "'{new}'"), ('"{old}"', '"{new}"'), ("{old}   # note", "{new}   # note"),
        ("  {old}", "  {new}"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_yaml_keeps_its_style(written: str, wanted: str, ending: str) -> None:
    import yaml

    for new in (NEW, "x://with space", "x://it's", 'x://a"b', "x://a: b #c", "x://größe"):
        lines = ["run_id: r", "artifact_uri: " + written.format(old=f"{ROOT}/0"), "experiment_id: '0'", "# end", ""]
        files = Files({"m/r/meta.yaml": ending.join(lines).encode(), "m/r/artifacts/x": b"x"})
        made = rewrite(files.card(), files, {ROOT: new}).files["m/r/meta.yaml"]
        assert yaml.safe_load(made) == {"run_id": "r", "artifact_uri": f"{new}/0", "experiment_id": "0"}
        if new == NEW:
            lines[1] = "artifact_uri: " + wanted.format(new=f"{NEW}/0")
            assert made == ending.join(lines).encode()


# -- packed models -----------------------------------------------------------------------------------------------------


def test_an_archive_stays_whole() -> None:
    data = packed()
    files = Files({"jobs/train-7/output/model.tar.gz": data})
    card = files.card()
    assert (card.layout, card.problems) == ("archive", ())
    assert [(file.key, file.sha256) for file in card.files] == [("jobs/train-7/output/model.tar.gz", sha256(data))]
    assert files.read["jobs/train-7/output/model.tar.gz"] == len(data), "read more than once"
    new = rewrite(card, files, {}, uri=lambda key: f"there://{key}")
    assert new.files == {}
    fields = new.rows[0].fields
    assert fields["artifact_uri"] == "there://jobs/train-7/output/model.tar.gz"
    assert (fields["members"], fields["code"]) == (3, ["code/inference.py", "code/requirements.txt"])
    assert fields["sha256"] == sha256(data)


def test_an_archive_that_is_cut_short_or_dangerous_is_a_problem() -> None:
    data = packed()
    for broken in (data[: len(data) // 2], b"no archive at all"):
        card = Files({"a/model.tar.gz": broken}).card()
        assert any("no whole archive" in problem for problem in card.problems)
        assert card.files[0].sha256 == sha256(broken)
    for name in ("../../etc/passwd", "/etc/passwd"):
        problems = Files({"a/model.tar.gz": packed(name)}).card().problems
        assert any("outside of its folder" in problem for problem in problems)


def test_nothing_is_no_model() -> None:
    with pytest.raises(Invalid):
        read_model_layout([ObjectInfo("folder/", 0, "x")], lambda key, start, length: b"")
