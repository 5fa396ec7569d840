"""One place that makes cloud clients, so that retries and timeouts are the same everywhere."""

import boto3
from botocore.config import Config

RETRIES = {"mode": "standard", "max_attempts": 4}
_cache = {}


def make_client(service, read_timeout=60):
    """A client for `service`. Region, profile and endpoints come from the SDK's own configuration."""
    if service not in _cache:
        config = Config(retries=RETRIES, connect_timeout=5, read_timeout=read_timeout)
        _cache[service] = boto3.client(service, config=config)
    return _cache[service]


class Component:
    """Something that talks to one service; tests may hand in a client of their own."""

    service = ""

    def __init__(self, client=None):
        self.client = client or make_client(self.service)
