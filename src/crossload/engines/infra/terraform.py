"""A real terraform or tofu binary as second judge, where there is one. Never needed, never let onto the network.

`fmt -check` needs nothing. `validate` needs the provider's plugin, so it runs only where the plugin lies on disk
already (`TF_PLUGIN_CACHE_DIR`, or the user's plugin folder), and the answer says which of the two happened."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_SECONDS_MAX = 120


@dataclass(frozen=True, slots=True)
class Judgement:
    """`statement` says what ran, with the binary's version. `problems` are the binary's own words."""

    statement: str
    problems: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        return not self.problems


def find_binary() -> str | None:
    return shutil.which("terraform") or shutil.which("tofu")


def judge(
    files: Mapping[str, str], providers: Sequence[str], environment: Mapping[str, str] | None = None
) -> Judgement:
    """Ask the binary about one module. `providers` are registry addresses such as `owner/cloud`."""
    binary = find_binary()
    if binary is None:
        return Judgement("no terraform or tofu on PATH: not asked")
    settings = dict(os.environ if environment is None else environment)
    settings |= {"CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1", "TF_INPUT": "0"}
    if not Path(settings.get("TF_CLI_CONFIG_FILE", "/")).exists():
        settings.pop("TF_CLI_CONFIG_FILE", None)  # a path to nothing makes every command warn
    with tempfile.TemporaryDirectory(prefix="crossload-terraform-") as scratch:
        folder = Path(scratch)
        for name, text in files.items():
            if name.endswith(".tf"):
                (folder / name).write_text(text, encoding="utf-8")
        try:
            return _ask(binary, folder, providers, settings)
        except (OSError, subprocess.TimeoutExpired) as error:
            return Judgement(f"{Path(binary).name} did not answer: {error}")


def _ask(binary: str, folder: Path, providers: Sequence[str], settings: Mapping[str, str]) -> Judgement:
    version = _version(binary, folder, settings)
    formatted = _run([binary, "fmt", "-check", "-no-color", "."], folder, settings)
    problems = [f"fmt: {line}" for line in formatted.stdout.splitlines() if line.strip()]
    if formatted.returncode not in (0, 3):  # 3: some file is laid out differently
        problems += [f"fmt: {line}" for line in formatted.stderr.splitlines() if line.strip()][:5]
    plugins = _plugin_folder(providers, settings)
    if plugins is None:
        missing = ", ".join(providers)
        return Judgement(
            f"{version}: fmt checked; validate not run, no plugin of {missing} on this machine", tuple(problems)
        )
    started = _run([binary, "init", "-backend=false", "-no-color", f"-plugin-dir={plugins}"], folder, settings)
    if started.returncode:
        return Judgement(f"{version}: fmt checked; validate not run, init failed", tuple(problems))
    answer = _run([binary, "validate", "-json", "-no-color"], folder, settings)
    try:
        found = json.loads(answer.stdout).get("diagnostics", [])
    except ValueError:
        found = [{"severity": "error", "summary": answer.stderr.strip()[:300]}]
    problems += [
        f"validate: {item.get('summary', '')} {item.get('detail', '')}".strip()
        for item in found
        if item.get("severity") == "error"
    ]
    return Judgement(f"{version}: fmt and validate", tuple(problems))


def _run(argv: list[str], folder: Path, settings: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv, cwd=folder, env=dict(settings), capture_output=True, text=True, timeout=_SECONDS_MAX, check=False
    )


def _version(binary: str, folder: Path, settings: Mapping[str, str]) -> str:
    answer = _run([binary, "version", "-json"], folder, settings)
    try:
        return f"{Path(binary).name} {json.loads(answer.stdout)['terraform_version']}"
    except (ValueError, KeyError):
        return Path(binary).name


def _plugin_folder(providers: Sequence[str], settings: Mapping[str, str]) -> Path | None:
    """A folder that holds a plugin of every provider asked for."""
    home = Path(settings.get("HOME", "/nonexistent"))
    places = [Path(settings["TF_PLUGIN_CACHE_DIR"])] if settings.get("TF_PLUGIN_CACHE_DIR") else []
    places += [home / ".terraform.d" / "plugins", Path("/usr/local/share/terraform/plugins")]
    hosts = ("registry.terraform.io", "registry.opentofu.org")
    for place in places:
        if providers and all(any((place / host / name).is_dir() for host in hosts) for name in providers):
            return place
    return None
