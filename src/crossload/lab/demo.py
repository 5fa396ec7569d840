"""The demo: a person's session with the product, command by command, on the lab's two clouds.

It types what a user would type (each command is a process of its own), kills one of them with -9, damages the target,
rolls back and goes again. Nothing here reaches into the product: only the lab, the commands, the clouds' own SDKs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from crossload.lab.lab import Lab
from crossload.lab.seed import seed, workload_folder

_BOLD, _DIM, _RED, _PLAIN = "\033[1m", "\033[2m", "\033[31m", "\033[0m"


class DemoFailed(RuntimeError):
    """A command of the demo did not do what it must; the text says which."""


class Demo:
    """One run in one folder; `small` moves a small copy of the sample data (for tests)."""

    def __init__(self, folder: Path, *, small: bool = False, keep_lab: bool = False) -> None:
        self.folder = folder.resolve()
        self.lab = Lab(self.folder / "lab")
        self.project = self.folder / "helpdesk"
        self.small = small
        self.keep_lab = keep_lab
        self.began = time.monotonic()
        self._colour = sys.stdout.isatty()

    # -- talk --------------------------------------------------------------------------------------------------------

    def say(self, text: str, style: str = "") -> None:
        print(f"{style}{text}{_PLAIN}" if self._colour and style else text, flush=True)

    def chapter(self, title: str) -> None:
        now = time.monotonic() - self.began
        self.say(f"\n── {title}  ({now:.0f} s)", _BOLD)

    def run(self, *arguments: str, expect: tuple[int, ...] = (0,), show: bool = True) -> str:
        """Run one `crossload` command in the project's folder; its talk goes straight through, stdout comes back."""
        self.say(f"$ crossload {' '.join(arguments)}", _DIM)
        command = [sys.executable, "-m", "crossload", *arguments]
        done = subprocess.run(command, cwd=self.project, stdout=subprocess.PIPE, text=True, check=False)
        if show and done.stdout:
            self.say(done.stdout.rstrip())
        if done.returncode not in expect:
            raise DemoFailed(f"`crossload {' '.join(arguments)}` ended with {done.returncode}, expected {expect}")
        return done.stdout

    # -- the story ---------------------------------------------------------------------------------------------------

    def play(self) -> None:
        """Raises DemoFailed, LabError or SeedError; the lab goes down in any case unless it is to be kept."""
        try:
            self._clouds()
            self._prepare()
            self._plan()
            self._move()
            self._damage_and_mend()
            self._cut_over_and_back()
            self._close()
        finally:
            if not self.keep_lab:
                subprocess.run(  # the gateway is the product's; it goes with the demo
                    [sys.executable, "-m", "crossload.lab", "down", "--home", str(self.lab.home)], check=False
                )
                self._stop_gateway()

    def _clouds(self) -> None:
        self.chapter("Two clouds of real servers on 127.0.0.1")
        self._stop_gateway()
        self.lab.down(purge=True)  # both clouds begin empty, whatever an earlier demo left there
        if self.project.exists():
            shutil.rmtree(self.project)
        states = self.lab.up(detach=True)
        for server in states:
            if server.state != "up":
                self.say(f"  {server.name}: {server.state} ({server.hint})")
        self.say("  up: " + ", ".join(server.name for server in states if server.state == "up"))
        self.chapter("The sample workload goes into cloud A")
        report = seed(self.lab.home, small=self.small)
        self.say(f"  {report}")

    def _prepare(self) -> None:
        """The team's own repository: the app as it was written, for cloud A."""
        self.project.mkdir(parents=True)
        workload = workload_folder()
        ignore = shutil.ignore_patterns("__pycache__", ".pytest_cache", "*.pyc")
        shutil.copytree(workload / "app", self.project / "app", ignore=ignore)
        for name in ("mcp_server.py", "orders.json", "conversations.jsonl"):
            shutil.copy(workload / name, self.project / name)
        asked = (workload / "questions.jsonl").read_text(encoding="utf-8").splitlines()
        # Without their contexts: two models answer 200 of them at once on two cores, and prompt tokens are the cost.
        lines = [json.dumps({"prompt": json.loads(line)["question"]}, ensure_ascii=False) + "\n" for line in asked]
        (self.project / "questions.jsonl").write_text("".join(lines), encoding="utf-8")
        (self.project / ".gitignore").write_text(".crossload/\n__pycache__/\n", encoding="utf-8")
        for arguments in (
            ("init", "--quiet"),
            ("add", "."),
            ("commit", "--quiet", "-m", "helpdesk, written for cloud A"),
        ):
            identity = ("-c", "user.name=helpdesk team", "-c", "user.email=team@example.com")
            subprocess.run(["git", *identity, *arguments], cwd=self.project, check=True)

    def _plan(self) -> None:
        self.chapter("What is there, where should it go, what will happen")
        self.run("init", "--lab", str(self.lab.home), "--name", "helpdesk", "--owner", "support-team", "--app", "app",
                 "--questions", "questions.jsonl", show=False)  # fmt: skip
        self._edit_file()
        self.run("validate")
        self.run("inventory", show=False)
        self.run("plan")

    def _edit_file(self) -> None:
        """What a person would write into the drafted file: residency, and limits that suit two busy cores."""
        path = self.project / "migration.yaml"
        text = path.read_text(encoding="utf-8")
        text = text.replace("  # residency: {pii: [EU], internal: [EU, US]}", "  residency: {internal: [EU]}")
        text = text.replace("limit: 2.0, unit: s, rollback_at: 5.0", "limit: 8.0, unit: s, rollback_at: 20.0")
        everything = "  - {match: {name: '*'}, set: {sensitivity: internal}}  # all of it stays in the EU\n"
        text = text.replace("overlays:\n", "overlays:\n" + everything)
        text = text.replace("  drill: true", "  requests_per_weight: 20\n  drill: true")
        text += "\n# The agent's tool, and what its rehearsal says.\nagents:\n  conversations: conversations.jsonl\n"
        text += "  tools: {'*': {command: python, arguments: [mcp_server.py]}}\n"
        path.write_text(text, encoding="utf-8")

    def _move(self) -> None:
        self.chapter("Apply, killed with -9 in the middle, and again")
        self._killed_apply()
        self.run("apply")
        self.chapter("Verify: everything again, from the stores")
        self.run("verify")

    def _killed_apply(self) -> None:
        self.say("$ crossload apply", _DIM)
        process = subprocess.Popen(
            [sys.executable, "-m", "crossload", "apply"], cwd=self.project, stdout=subprocess.DEVNULL
        )
        journal = self.project / ".crossload" / "helpdesk" / "transfer" / "dataset-docs" / "journal.db"
        until = time.monotonic() + 120
        while time.monotonic() < until and process.poll() is None:
            if journal.exists() and _done_objects(journal) > (20 if self.small else 400):
                process.send_signal(signal.SIGKILL)
                self.say(f"  kill -9 {process.pid}, with {_done_objects(journal)} objects journaled", _RED)
                break
            time.sleep(0.02)
        process.wait()

    def _damage_and_mend(self) -> None:
        self.chapter("Somebody flips one byte at the target")
        key = self._flip_a_byte()
        self.say(f"  flipped one byte of {key} in cloud B", _RED)
        self.run("verify", "--only", "dataset:docs", expect=(4,))
        self.run("apply", "--only", "dataset:docs")
        self.run("verify", "--only", "dataset:docs")

    def _cut_over_and_back(self) -> None:
        self.chapter("Cutover: mirror, drill, ramp, freeze, last delta, switch")
        self.run("cutover")
        self.chapter("Users write at cloud B; then we go back")
        written = b"answered in cloud B\n"
        self._target_bucket().blob("tickets/after-the-switch.txt").upload_from_string(written, "text/plain")
        self.run("rollback")
        answer = self._source_client().get_object(Bucket="helpdesk-docs", Key="tickets/after-the-switch.txt")
        if answer["Body"].read() != written:
            raise DemoFailed("what users wrote in cloud B did not come back to cloud A")
        self.say("  what users wrote in cloud B is in cloud A now")
        self.chapter("And forward again")
        self.run("cutover")

    def _close(self) -> None:
        self.chapter("One asset's whole story, and the report")
        self.run("trace", "dataset:docs")
        report = self.run("report", show=False).strip()
        self.chapter("The ten steps")
        rows = self._ten_steps()
        for number, (stage, state, evidence, summary) in enumerate(rows, 1):
            self.say(f"{number:>3}. {stage:<12} {state:<8} {evidence:<16} {summary[:86]}")
        if any(state != "good" for _, state, _, _ in rows):
            raise DemoFailed("not every step ended well")
        self.say(f"\nreport: {report}")
        self.say(
            f"whole demo: {time.monotonic() - self.began:.0f} s. `crossload commit` would end the right to roll back."
        )

    def _ten_steps(self) -> list[tuple[str, str, str, str]]:
        """(stage, worst state, evidence id, summary) from `status --json` and the stages' last evidence."""
        status = json.loads(self.run("status", "--json", show=False))
        stages: dict[str, list[dict[str, Any]]] = {}
        for step in status["steps"]:
            stages.setdefault(step["stage"], []).append(step)
        rows: list[tuple[str, str, str, str]] = []
        for stage, steps in stages.items():
            worst = next((step["state"] for step in steps if step["state"] != "good"), "good")
            # Evidence ids are `E` + sequence + hash: the highest sequence is the latest word on this stage.
            last = max((s for s in steps if s["evidence"]), key=lambda s: int(s["evidence"][1:].partition("-")[0]))
            rows.append((stage, worst, last["evidence"], f"{len(steps)} step(s), last: {last['step']}"))
        return rows

    # -- the clouds, by their own SDKs -------------------------------------------------------------------------------

    def _source_client(self) -> Any:
        import boto3

        env = self.lab.env()
        os.environ["AWS_CONFIG_FILE"] = env["CROSSLOAD_LAB_AWS_CONFIG"]
        os.environ["AWS_SHARED_CREDENTIALS_FILE"] = env["CROSSLOAD_LAB_AWS_CREDENTIALS"]
        return boto3.Session(profile_name="lab-a-app").client("s3")

    def _target_bucket(self) -> Any:
        return target_client(self.lab, "app").bucket("helpdesk-docs")

    def _flip_a_byte(self) -> str:
        bucket = self._target_bucket()
        blob = next(b for b in bucket.list_blobs(max_results=200) if b.size and 1000 < b.size < 100_000)
        data = bytearray(blob.download_as_bytes())
        data[len(data) // 2] ^= 1
        blob.upload_from_string(bytes(data), content_type=blob.content_type)
        return str(blob.name)

    def _stop_gateway(self) -> None:
        record = self.project / ".crossload" / "helpdesk" / "gateway" / "gateway-process.json"
        if record.exists():
            pid = json.loads(record.read_text(encoding="utf-8"))["pid"]
            if Path(f"/proc/{pid}/cmdline").exists() and b"crossload" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGTERM)


def target_client(lab: Lab, identity: str) -> Any:
    """A google-cloud-storage client for cloud B as one of the lab's identities."""
    import urllib.parse
    import urllib.request

    from google.cloud import storage
    from google.oauth2.credentials import Credentials

    env = lab.env()
    form = {
        "grant_type": "client_credentials", "client_id": identity, "client_secret": lab.secret(f"oidc-{identity}"),
        "audience": env["CROSSLOAD_LAB_OIDC_AUDIENCE"],
    }  # fmt: skip
    url = env["CROSSLOAD_LAB_OIDC_ISSUER"] + "/token"
    with urllib.request.urlopen(url, urllib.parse.urlencode(form).encode()) as answer:  # noqa: S310 - loopback
        token = json.load(answer)["access_token"]
    return storage.Client(
        project=env["CROSSLOAD_LAB_GCS_PROJECT"], credentials=Credentials(token),
        client_options={"api_endpoint": env["CROSSLOAD_LAB_GCS_ENDPOINT"]},
    )  # fmt: skip


def _done_objects(journal: Path) -> int:
    import sqlite3

    try:
        with sqlite3.connect(f"file:{journal}?mode=ro", uri=True) as database:
            return int(database.execute("select count(*) from object where state='done'").fetchone()[0])
    except sqlite3.Error:
        return 0
