"""Any OpenAI-compatible model endpoint."""

from crossload.ports.provider import Provider

_ROOM = "crossload.providers.openai"

PROVIDER = Provider(
    name="openai",
    title="OpenAI-compatible endpoint",
    ports={"models": f"{_ROOM}.models:open_models", "code": f"{_ROOM}.code:open_code"},
)
