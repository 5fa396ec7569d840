"""Servers that store nothing: what is left is the client, and the link of this machine.

`python benchmarks/nulls.py serve source|target PORT` runs one; the benchmark starts both."""

from __future__ import annotations

import re
import socket
import socketserver
import sys
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from rows import Row, Run, median, timed, told
from servers import BIN, free_ports, running

SIZE_BYTES = 2 * 2**30
_CHUNK = memoryview(bytes(2**20))
_STAMP = "2026-01-01T00:00:00.000Z"


class _Null(socketserver.StreamRequestHandler):
    """Just enough of S3 for one object of 2 GiB of zeros."""

    forgets = False  # the target forgets the object when a new move asks whether the bucket is there
    holds = True
    disable_nagle_algorithm = True

    def handle(self) -> None:
        sink = memoryview(bytearray(2**20))
        while line := self.rfile.readline():
            method, target, _ = line.decode("latin-1").split(" ")
            headers: dict[str, str] = {}
            while (text := self.rfile.readline().decode("latin-1").strip()) != "":
                name, _, value = text.partition(":")
                headers[name.lower()] = value.strip()
            left = int(headers.get("content-length", 0))
            while left:
                left -= self.rfile.readinto(sink[: min(left, len(sink))])  # type: ignore[attr-defined]
            self._answer(method, target, headers)

    def _answer(self, method: str, target: str, headers: dict[str, str]) -> None:
        if method == "GET" and "list-type" in target:
            self._say(200, self._list().encode())
        elif method == "GET" and target.endswith("/big"):
            first, last = map(int, re.findall(r"\d+", headers.get("range", f"bytes=0-{SIZE_BYTES - 1}")))
            length = last - first + 1
            self._head(206, [f"content-length: {length}", 'etag: "zeros"', "x-amz-tagging-count: 0"])
            while length:
                length -= self.connection.send(_CHUNK[: min(length, len(_CHUNK))])
        elif method == "HEAD":
            if _Null.forgets and not target.endswith("/big"):
                _Null.holds = False
            self._head(
                200,
                [
                    f"content-length: {SIZE_BYTES if target.endswith('/big') else 0}",
                    'etag: "zeros"',
                    "x-amz-tagging-count: 0",
                ],
            )
        elif method == "POST" and "uploads" in target:
            self._say(200, b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
        elif method == "POST":
            _Null.holds = True
            self._say(200, b'<CompleteMultipartUploadResult><ETag>"zeros"</ETag></CompleteMultipartUploadResult>')
        else:
            self._say(200, b"", ['etag: "part"'])

    def _list(self) -> str:
        item = (
            f'<Contents><Key>big</Key><Size>{SIZE_BYTES}</Size><ETag>"zeros"</ETag>'
            f"<LastModified>{_STAMP}</LastModified></Contents>"
        )
        items = item if _Null.holds else ""
        return f"<ListBucketResult><IsTruncated>false</IsTruncated>{items}</ListBucketResult>"

    def _head(self, status: int, lines: list[str]) -> None:
        text = "\r\n".join([f"HTTP/1.1 {status} OK", "server: AmazonS3", *lines])
        self.connection.sendall(f"{text}\r\n\r\n".encode())

    def _say(self, status: int, body: bytes, lines: list[str] | None = None) -> None:
        self._head(status, [f"content-length: {len(body)}", *(lines or [])])
        self.connection.sendall(body)


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def serve(side: str, port: int) -> None:
    _Null.forgets, _Null.holds = side == "target", side == "source"
    with _Server(("127.0.0.1", port), _Null) as server:
        server.serve_forever()


def relay(source: int, target: int) -> None:
    """One stream from one socket to the other: no digest, no parts, nothing."""
    reader = socket.create_connection(("127.0.0.1", source))
    writer = socket.create_connection(("127.0.0.1", target))
    reader.sendall(b"GET /null/big HTTP/1.1\r\nhost: a\r\n\r\n")
    head = b""
    while b"\r\n\r\n" not in head:
        head += reader.recv(1)
    writer.sendall(f"PUT /null/big HTTP/1.1\r\nhost: b\r\ncontent-length: {SIZE_BYTES}\r\n\r\n".encode())
    buffer = memoryview(bytearray(2**18))
    left = SIZE_BYTES
    while left:
        count = reader.recv_into(buffer[: min(left, len(buffer))])
        writer.sendall(buffer[:count])
        left -= count
    writer.recv(100)


def null_rows(folder: Path, rounds: int) -> list[Row]:
    with ExitStack() as stack:
        ports = free_ports(2)
        options: list[str] = []
        for number, (side, end) in enumerate((("source", "source"), ("target", "target"))):
            command = [sys.executable, __file__, "serve", side, str(ports + number)]
            stack.enter_context(running(command, folder / f"null-{side}.log"))
            config, keys = folder / f"null-{side}.cfg", folder / f"null-{side}.keys"
            config.write_text(
                f"[profile {side}]\nregion = us-east-1\nendpoint_url = http://127.0.0.1:{ports + number}\n"
            )
            keys.write_text(f"[{side}]\naws_access_key_id = AK\naws_secret_access_key = SK\n")
            for name, value in (("profile", side), ("config_file", config), ("credentials_file", keys)):
                options += [f"--{end}-set", f"{name}={value}"]
        time.sleep(1.0)
        ours: list[Run] = []
        raw: list[Run] = []
        for number in range(rounds):
            raw.append(timed([sys.executable, __file__, "relay", str(ports), str(ports + 1)]))
            state = folder / f"null-state-{number}"
            command = [
                str(BIN / "crossload"), "move", "s3://null", "s3://sink", "-q", "--workers", "4", "--state", str(state),
                *options,
            ]  # fmt: skip
            ours.append(timed(command, log=folder / "null.log"))
    mine, peer = median(ours), median(raw)
    return [
        told("1 x 2 GiB between null servers, sha256 on: wall", mine.wall_seconds, "s", "raw one-stream relay",
             peer.wall_seconds),
        told("1 x 2 GiB between null servers, sha256 on: CPU", mine.cpu_seconds / 2, "s/GiB", "raw one-stream relay",
             peer.cpu_seconds / 2),
    ]  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2], int(sys.argv[3]))
    else:
        relay(int(sys.argv[2]), int(sys.argv[3]))
