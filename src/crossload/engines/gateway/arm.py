"""An arm as the gateway runs it: where it is, how to sign for it, and its pool of connections."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote

from crossload.engines.gateway.config import Backend, Config
from crossload.engines.gateway.credentials import Signer, signer
from crossload.engines.gateway.ir import Outgoing
from crossload.engines.gateway.upstream import Pool


class Arm:
    def __init__(self, config: Config, backend: Backend, environment: Mapping[str, str]) -> None:
        self.backend = backend
        self.pool = Pool(backend, config.limits, config.timeouts)
        self.signer: Signer = signer(config, backend, environment)
        # Base URLs of OpenAI-shaped hosts are written with /v1 at the end, and so are the paths of that wire.
        self._trim = "/v1" if self.pool.prefix.endswith("/v1") else ""

    def request(self, outgoing: Outgoing) -> bytes:
        """The head of the request; the body follows it unchanged."""
        path = self.pool.prefix + outgoing.path.removeprefix(self._trim)
        host = self.pool.host_header
        signed = self.signer.headers("POST", host, path, outgoing.body)
        lines = [
            f"POST {path} HTTP/1.1",
            f"host: {host}",
            "content-type: application/json",
            f"content-length: {len(outgoing.body)}",
            *(f"{name}: {value}" for name, value in signed.items()),
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def to_json(self) -> dict[str, str]:
        return {"wire": self.backend.wire, "model": unquote(self.backend.model), "base_url": self.backend.base_url}
