"""Settings, from the environment."""

import os
from dataclasses import dataclass


@dataclass
class Config:
    bucket: str = "helpdesk-docs"
    prefix: str = "topics/"
    model: str = "meta.llama3-1-8b-instruct-v1:0"
    queue: str = "helpdesk-jobs"
    secret: str = "helpdesk/api-key"
    max_tokens: int = 64

    @classmethod
    def from_env(cls, env=None):
        env = os.environ if env is None else env
        names = ("bucket", "prefix", "model", "queue", "secret")
        given = {name: env[f"HELPDESK_{name.upper()}"] for name in names if f"HELPDESK_{name.upper()}" in env}
        return cls(**given)
