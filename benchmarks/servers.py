"""Real servers for benchmarks: started on 127.0.0.1, fresh, in folders of their own, and gone at the end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
_UP_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class S3Server:
    """`profile` names it in the files `config` and `credentials`, which are in the SDK's own form."""

    endpoint: str
    profile: str
    config: Path
    credentials: Path
    pid: int

    def settings(self, end: str) -> list[str]:
        """As options of `crossload move` for one end."""
        named = {"profile": self.profile, "config_file": self.config, "credentials_file": self.credentials}
        return [part for name, value in named.items() for part in (f"--{end}-set", f"{name}={value}")]

    def client(self) -> Any:
        import boto3

        return boto3.client(
            "s3", endpoint_url=self.endpoint, region_name="us-east-1", aws_access_key_id="AK",
            aws_secret_access_key="SK",
        )  # fmt: skip

    def rclone(self) -> list[str]:
        """A remote of rclone's, section and all."""
        return [
            f"[{self.profile}]", "type = s3", "provider = SeaweedFS", "access_key_id = AK", "secret_access_key = SK",
            f"endpoint = {self.endpoint}", "force_path_style = true",
        ]  # fmt: skip


def free_ports(count: int) -> int:
    """The first of `count` free ports in a row, all of them also free 10,000 higher (SeaweedFS's gRPC)."""
    for base in range(21000, 40000, 50):
        with contextlib.ExitStack() as held:
            try:
                for port in [*range(base, base + count), *range(base + 10000, base + 10000 + count)]:
                    held.enter_context(contextlib.closing(_bound(port)))
            except OSError:
                continue
            return base
    raise OSError("no free ports")


def _bound(port: int) -> socket.socket:
    made = socket.socket()
    try:
        made.bind(("127.0.0.1", port))
    except OSError:
        made.close()
        raise
    return made


@contextlib.contextmanager
def temporary() -> Iterator[Path]:
    """A folder in memory where there is one, so that no disk is measured."""
    shared = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="crossload-bench-", dir=shared if shared.is_dir() else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def seaweed(folder: Path, profile: str) -> Iterator[S3Server]:
    home = folder / profile
    (home / "data").mkdir(parents=True)
    keys = {"accessKey": "AK", "secretKey": "SK"}
    rights = ["Admin", "Read", "Write", "List", "Tagging"]
    (home / "s3.json").write_text(json.dumps({"identities": [{"name": "a", "credentials": [keys], "actions": rights}]}))
    port = free_ports(4)
    command = [
        str(BIN / "weed"), f"-logdir={home}", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={home}/data",
        f"-master.port={port}", "-master.telemetry=false", "-master.electionTimeout=1s",
        "-master.heartbeatInterval=100ms", "-master.volumeSizeLimitMB=512", f"-volume.port={port + 1}",
        "-volume.max=200", "-filer", f"-filer.port={port + 2}", "-s3", f"-s3.port={port + 3}",
        f"-s3.config={home}/s3.json", "-s3.port.lance=0", "-s3.port.iceberg=0",
    ]  # fmt: skip
    endpoint = f"http://127.0.0.1:{port + 3}"
    (home / "config").write_text(f"[profile {profile}]\nregion = us-east-1\nendpoint_url = {endpoint}\n")
    (home / "credentials").write_text(f"[{profile}]\naws_access_key_id = AK\naws_secret_access_key = SK\n")
    with running(command, home / "log") as process:
        server = S3Server(endpoint, profile, home / "config", home / "credentials", process.pid)
        _wait_until_it_keeps(server)
        yield server


def _wait_until_it_keeps(server: S3Server) -> None:
    """Answering is not enough: a bucket must be made, filled and emptied once."""
    until = time.monotonic() + _UP_SECONDS
    client = server.client()
    while True:
        try:
            client.create_bucket(Bucket="first")
            client.put_object(Bucket="first", Key="k", Body=b"v")
            drop_bucket(server, "first")
            return
        except Exception:
            if time.monotonic() > until:
                raise
            time.sleep(0.5)


def drop_bucket(server: S3Server, bucket: str) -> None:
    """With everything in it: this server deletes full buckets, and frees their volumes."""
    server.client().delete_bucket(Bucket=bucket)


@contextlib.contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, "GOMEMLIMIT": "2GiB"},
        )  # fmt: skip
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def answers(url: str, seconds: float = _UP_SECONDS) -> None:
    """Wait until somebody answers there, with whatever status."""
    until = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(url, timeout=2)
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
