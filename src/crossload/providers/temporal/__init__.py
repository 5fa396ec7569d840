"""Temporal: a durable server that hands out shards and keeps the timers of a migration."""

from crossload.ports.provider import Provider

PROVIDER = Provider(
    name="temporal",
    title="Temporal",
    extra="temporal",
    ports={"fleet": "crossload.providers.temporal.fleet:open_fleet"},
    settings={
        "fleet": {
            "address": "address of the server's frontend, as `host:7233`",
            "namespace": "namespace to work in; `default` when left out",
            "task_queue": "queue that coordinator and workers share; `crossload` when left out",
            "cert": "reference to our client certificate (PEM), for a server that asks for one",
            "key": "reference to that certificate's private key (PEM)",
            "ca": "reference to the authority behind the server's certificate (PEM), if not the system's",
            "api_key": "reference to an API key; the connection then uses TLS",
        }
    },
)
