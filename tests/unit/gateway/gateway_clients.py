"""Who may call the tests' gateway, and how: `import gateway_clients` finds it beside this file."""

from __future__ import annotations

import httpx

CLIENT_KEY = "cl_test-key-0123456789abcdef"
MIRROR_KEY = "cl_mirror-key-0123456789abcdef"
ADMIN_TOKEN = "admin-token-0123456789abcdef"


def http(url: str, key: str = CLIENT_KEY) -> httpx.Client:
    return httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=20, trust_env=False)
