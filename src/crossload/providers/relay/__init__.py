"""A relay: the store behind a Crossload agent at the far end. Bodies travel packed where that pays."""

from crossload.ports.provider import Provider

PROVIDER = Provider(
    name="relay",
    title="Relay through an agent",
    extra="move",
    ports={"store": "crossload.providers.relay.store:open_store"},
    settings={
        "store": {
            "url": "address of the agent, as `https://host:8790`; plain `http` only to this machine",
            "token": "reference to the token that the agent was started with",
            "compression": "`auto` (default: by a sample of the bytes and the link), `off`, or `zstd`",
        }
    },
)
