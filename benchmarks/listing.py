"""Listing two buckets and comparing them, against a server that makes up its keys. CPU and memory are what counts.

    .venv/bin/python benchmarks/listing.py [--keys 10000000] [--peer-keys 500000] [--slow-keys 250000] [--ranges 16]

The server is a process of its own: ListObjectsV2 over keys by a formula, nothing stored. The mover's side is a process
of its own, too: the real S3 store, both listings at once, the comparison on disk, `settle`. With RCLONE (the path of
its binary) in the environment, rclone lists one bucket and checks both by size; it holds what it lists in memory, so it
gets fewer keys. Times share the machine with the server: the CPU is that of the client alone."""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from bisect import bisect_right
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, quote, unquote, urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent))

from rows import Row, write
from rows import times_as_good as row

PER_SHARD = 10_000
RSS_MIB_MAX = 150.0
CPU_BAR = 1.0  # no more CPU a key than the peer
GAIN_BAR = 3.0  # ranges against one listing, on a store that takes its time

# -- the server ------------------------------------------------------------------------------------------------------


class Keys:
    """`train/shard-00012/sample-0034.tar`, in order, never made before they are asked for."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> str:
        return f"train/shard-{index // PER_SHARD:05d}/sample-{index % PER_SHARD:04d}.tar"


def page(bucket: str, query: dict[str, list[str]], keys: Keys) -> bytes:
    token, after = query.get("continuation-token", [""])[0], query.get("start-after", [""])[0]
    begin = int(token) if token else bisect_right(keys, after) if after else 0
    end = min(len(keys), begin + int(query.get("max-keys", ["1000"])[0]))
    prefix = query.get("prefix", [""])[0]
    encode = query.get("encoding-type", [""])[0] == "url"
    rows = "".join(
        f"<Contents><Key>{quote(key) if encode else key}</Key>"
        f"<LastModified>2024-05-{1 + n % 28:02d}T10:{n % 60:02d}:00.000Z</LastModified>"
        f"<ETag>&quot;{n * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128:032x}&quot;</ETag><Size>{n % 65536}</Size>"
        "<StorageClass>STANDARD</StorageClass></Contents>"
        for n, key in ((number, keys[number]) for number in range(begin, end))
        if key.startswith(prefix)
    )
    more = end < len(keys)
    next_token = f"<NextContinuationToken>{end}</NextContinuationToken>" if more else ""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>{bucket}</Name><Prefix>{prefix}</Prefix><KeyCount>{end - begin}</KeyCount><MaxKeys>1000</MaxKeys>"
        f"<EncodingType>url</EncodingType><IsTruncated>{'true' if more else 'false'}</IsTruncated>{next_token}{rows}"
        "</ListBucketResult>"
    ).encode()


def answer(connection: socket.socket, keys: Keys, wait_seconds: float) -> None:
    """One connection: only GET on a bucket means something, everything else is fine."""
    with connection, connection.makefile("rb") as lines:
        while first := lines.readline():
            length = 0
            while (line := lines.readline()) not in (b"\r\n", b""):
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            lines.read(length)
            method, target, _ = first.decode().split(" ", 2)
            parts = urlsplit(target)
            bucket, _, key = unquote(parts.path).strip("/").partition("/")
            body = b""
            if method == "GET" and bucket and not key:
                time.sleep(wait_seconds)
                body = page(bucket, parse_qs(parts.query), keys)
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nserver: AmazonS3\r\ncontent-type: application/xml\r\ncontent-length: %d\r\n\r\n"
                % len(body) + body
            )  # fmt: skip


def serve(listener: socket.socket, keys: Keys, wait_seconds: float) -> None:
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=answer, args=(connection, keys, wait_seconds), daemon=True).start()


class Server:
    """Two processes behind one port of 127.0.0.1."""

    def __init__(self, keys: int, wait_seconds: float = 0.0) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._children: list[int] = []
        for _ in range(2):
            child = os.fork()
            if not child:
                try:
                    serve(self._listener, Keys(keys), wait_seconds)
                finally:
                    os._exit(1)
            self._children.append(child)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._children:
            os.kill(child, signal.SIGTERM)
            os.waitpid(child, 0)
        self._listener.close()


# -- the mover's side, in a process of its own -----------------------------------------------------------------------


def compare(url: str, folder: Path, ranges: int) -> None:
    """Prints what it took as JSON."""
    from crossload.engines.mover.listing import list_both
    from crossload.estate.place import Place
    from crossload.ledger.comparison import Comparison
    from crossload.ledger.journal import Journal
    from crossload.ports.provider import Settings
    from crossload.ports.retrying import RetryingStore, RetryPolicy
    from crossload.ports.store import Store
    from crossload.providers.aws.store import S3Store

    def store(name: str) -> Store:
        (folder / "config").write_text(f"[profile bench]\nregion = us-east-1\nendpoint_url = {url}\n")
        (folder / "keys").write_text("[bench]\naws_access_key_id = AK\naws_secret_access_key = SK\n")
        connection = {
            "profile": "bench", "config_file": str(folder / "config"), "credentials_file": str(folder / "keys"),
            "vendor": "aws",
        }  # fmt: skip
        place = Place(id=name, provider="aws", region="us-east-1")
        inner = cast("Store", S3Store(Settings(place, connection, os.environ)))
        return cast("Store", RetryingStore(inner, RetryPolicy(), print))

    with Journal(folder / "journal.db") as journal, Comparison(journal) as comparison:
        source, target = store("source"), store("target")
        begun, cpu = time.monotonic(), time.process_time()
        list_both(comparison, source, "source", target, "target", "", ranges=ranges)
        listed, listed_cpu = time.monotonic(), time.process_time()
        objects, _ = comparison.settle(home=False)
        settled, settled_cpu = time.monotonic(), time.process_time()
        size_bytes = sum(file.stat().st_size for file in folder.glob("journal.listing*"))
    print(json.dumps({
        "objects": objects, "listing_seconds": listed - begun, "listing_cpu": listed_cpu - cpu,
        "settle_seconds": settled - listed, "settle_cpu": settled_cpu - listed_cpu, "disk_bytes": size_bytes,
        "rss_mib": peak_mib(),
    }))  # fmt: skip


def peak_mib() -> float:
    """The most memory this program has held. Not getrusage: a child's begins with what its parent held."""
    held = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(held.split()[1]) / 1024


def compared(server: Server, keys: int, ranges: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="bench-listing-") as folder:
        done = subprocess.run(
            [sys.executable, __file__, "--compare", server.url, folder, str(ranges)], check=True, stdout=subprocess.PIPE
        )
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if told["objects"] != keys:
        raise SystemExit(f"{told['objects']} of {keys} objects were listed")
    return told


# -- the peer --------------------------------------------------------------------------------------------------------


def rclone(binary: str, url: str, *arguments: str) -> tuple[float, float]:
    """(CPU seconds, peak MiB) of one command that must go well."""
    named = {
        "TYPE": "s3", "PROVIDER": "Other", "ENDPOINT": url, "ACCESS_KEY_ID": "AK", "SECRET_ACCESS_KEY": "SK",
        "REGION": "us-east-1", "FORCE_PATH_STYLE": "true", "LIST_VERSION": "2", "LIST_URL_ENCODE": "true",
    }  # fmt: skip
    env = {**os.environ, **{f"RCLONE_CONFIG_BENCH_{name}": value for name, value in named.items()}, "RCLONE_CONFIG": ""}
    process = subprocess.Popen([binary, *arguments], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    watched = [0.0]

    def watch() -> None:
        while process.returncode is None:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                return
            for line in status.splitlines():
                if line.startswith("VmHWM:"):
                    watched[0] = max(watched[0], int(line.split()[1]) / 1024)
            time.sleep(0.05)

    threading.Thread(target=watch, daemon=True).start()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = process.communicate()[1]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise SystemExit(f"rclone {arguments[0]}: {said.decode()[-400:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, watched[0]


# -- the table -------------------------------------------------------------------------------------------------------


def measured(chosen: argparse.Namespace) -> list[Row]:
    with Server(chosen.keys) as server:
        ours = compared(server, chosen.keys, chosen.ranges)
    lsf_cpu = lsf_mib = check_cpu = check_mib = None
    if binary := os.environ.get("RCLONE"):
        with Server(chosen.peer_keys) as server:
            cpu, lsf_mib = rclone(binary, server.url, "lsf", "--fast-list", "-R", "--files-only", "bench:source")
            lsf_cpu = cpu / chosen.peer_keys * 1e6
            cpu, check_mib = rclone(
                binary, server.url, "check", "--size-only", "--fast-list", "bench:source", "bench:target"
            )
            check_cpu = cpu / (2 * chosen.peer_keys) * 1e6
    with Server(chosen.slow_keys, wait_seconds=0.2) as server:
        one = compared(server, chosen.slow_keys, 1)["listing_seconds"]
        many = compared(server, chosen.slow_keys, chosen.ranges)["listing_seconds"]
    both = 2 * chosen.keys
    what = f"2 x {chosen.keys} keys"
    a_key = ours["listing_cpu"] / both * 1e6
    lsf, check = f"rclone lsf, {chosen.peer_keys} keys", f"rclone check, 2 x {chosen.peer_keys} keys"
    whole = (ours["listing_cpu"] + ours["settle_cpu"]) / both * 1e6
    return [
        row(f"peak memory of the mover, {what}", ours["rss_mib"], "MiB", "the bar of the project", RSS_MIB_MAX, 1.0),
        row(f"peak memory of the mover, {what}", ours["rss_mib"], "MiB", lsf, lsf_mib, 0),
        row(f"peak memory of the mover, {what}", ours["rss_mib"], "MiB", check, check_mib, 1.0),
        row(f"CPU to list and keep, {what}", a_key, "us/key", lsf, lsf_cpu, CPU_BAR),
        row(f"CPU to list and compare, {what}", whole, "us/key", check, check_cpu, CPU_BAR),
        row(f"keys listed and kept, {what}", both / ours["listing_seconds"] / 1000, "k/s", "none", None, 0),
        row(f"CPU of settle, {what}", ours["settle_cpu"] / chosen.keys * 1e6, "us/obj", "none", None, 0),
        row(f"disk for the comparison, {what}", ours["disk_bytes"] / both, "B/key", "none", None, 0),
        row(f"listing 2 x {chosen.slow_keys} keys at 200 ms a request, {chosen.ranges} ranges", many, "s",
            "the same in one range", one, GAIN_BAR),
    ]  # fmt: skip


def main() -> None:
    if sys.argv[1:2] == ["--compare"]:
        compare(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=10_000_000)
    parser.add_argument("--peer-keys", type=int, default=500_000)
    parser.add_argument("--slow-keys", type=int, default=250_000)
    parser.add_argument("--ranges", type=int, default=16)
    rows = measured(parser.parse_args())
    raise SystemExit(write("listing", rows))


if __name__ == "__main__":
    main()
