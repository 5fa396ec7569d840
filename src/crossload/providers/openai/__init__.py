"""Any OpenAI-compatible model endpoint."""

from crossload.ports.provider import Provider

_ROOM = "crossload.providers.openai"
_ENDPOINT = {
    "base_url": "address of the endpoint, with its `/v1`",
    "key": "reference to the key it wants, if it wants one",
    "model": "name of the model to ask",
}

PROVIDER = Provider(
    name="openai",
    title="OpenAI-compatible endpoint",
    ports={"models": f"{_ROOM}.models:open_models", "code": f"{_ROOM}.code:open_code"},
    settings={
        "models": {**_ENDPOINT, "repository": "address of a model repository that loads artifacts, if there is one"},
        "code": _ENDPOINT,
    },
)
