"""The optional second judge: asked when it is there, said when it is not, and never let onto the network."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from crossload.engines.infra.terraform import judge

FILES = {"main.tf": "locals {\n  a = 1\n}\n", "collector.yaml": "x: 1\n"}
PROVIDER = "hashicorp/google"


def fake(folder: Path, body: str, name: str = "terraform") -> None:
    """A stand-in that keeps what it was asked."""
    path = folder / name
    path.write_text(f'#!/bin/sh\necho "$@" >> {folder}/asked\n{body}\n')
    path.chmod(0o755)


@pytest.fixture
def path_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("TF_PLUGIN_CACHE_DIR", raising=False)
    return folder


def asked(folder: Path) -> list[str]:
    return (folder / "asked").read_text().splitlines()


def test_absent_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert judge(FILES, [PROVIDER]).statement == "no terraform or tofu on PATH: not asked"


def test_without_a_plugin_only_the_layout_is_asked(path_with: Path) -> None:
    fake(path_with, 'case "$1" in version) echo \'{"terraform_version":"1.2.3"}\';; esac')
    found = judge(FILES, [PROVIDER])
    assert found.good
    assert found.statement == (
        "terraform 1.2.3: fmt checked; validate not run, no plugin of hashicorp/google on this machine"
    )
    assert [line.split()[0] for line in asked(path_with)] == ["version", "fmt"], "init would have asked the network"


def test_layout_problems_are_told(path_with: Path) -> None:
    fake(path_with, 'case "$1" in fmt) echo main.tf; exit 3;; esac', "tofu")
    found = judge(FILES, [PROVIDER])
    assert found.problems == ("fmt: main.tf",)
    assert not found.good


def test_with_a_plugin_on_disk_validate_is_asked_from_that_folder(path_with: Path) -> None:
    plugins = path_with.parent / "plugins"
    (plugins / "registry.terraform.io" / PROVIDER).mkdir(parents=True)
    answer = (
        '{"diagnostics":[{"severity":"error","summary":"Bad","detail":"very"},{"severity":"warning","summary":"w"}]}'
    )
    fake(path_with, f"case \"$1\" in validate) echo '{answer}'; exit 1;; esac")
    found = judge(FILES, [PROVIDER], {**os.environ, "TF_PLUGIN_CACHE_DIR": str(plugins)})
    assert found.problems == ("validate: Bad very",)
    assert found.statement == "terraform: fmt and validate"
    init = next(line for line in asked(path_with) if line.startswith("init"))
    assert f"-plugin-dir={plugins}" in init
    assert "-backend=false" in init


def test_nothing_is_left_in_the_folder_of_the_module(path_with: Path, tmp_path: Path) -> None:
    fake(path_with, "touch .terraform.lock.hcl")
    judge(FILES, [PROVIDER])
    assert not list(tmp_path.glob("*.hcl"))
