"""A gateway that belongs to one folder: its configuration, keys and state live there, and anyone who has the folder can
find it again, or bring it back with the weights it had."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crossload.engines.gateway import control
from crossload.engines.gateway.client import GatewayClient
from crossload.ports.errors import NotFound

CONFIG, ADMIN_KEY, CLIENT_KEY = "gateway.json", "admin.key", "client.key"


class ManagedGateway:
    """`folder` is private to one migration. Keys are random, written once with mode 0600."""

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self._environment = environment

    def start(self, settings: Mapping[str, Any]) -> control.Running:
        """Write the configuration (only when it changed) and have the gateway run with it. `settings` names backends,
        host and port; keys are ours. Raises ConfigInvalid, Unavailable."""
        config = {
            "admin_token": control.new_key(self.folder / ADMIN_KEY),
            "clients": [{"name": "app", "key": control.new_key(self.folder / CLIENT_KEY), "may_choose_arm": True}],
            "weights": {"source": 100, "target": 0},
            **settings,
        }
        path = self.folder / CONFIG
        control.write_config(path, config)
        return control.start_detached(path, self.folder, self._environment)

    def attach(self) -> control.GatewayControl:
        """The admin door. A gateway that died is started again: its state file has its port and weights.

        Raises NotFound when none was ever started here."""
        found = control.running(self.folder)
        if found is None:
            if not (self.folder / CONFIG).exists():
                raise NotFound("no gateway was started for this migration", hint="run `crossload apply` first")
            found = control.start_detached(self.folder / CONFIG, self.folder, self._environment)
        return control.GatewayControl(found.url, self._key(ADMIN_KEY))

    def client(self, model: str) -> GatewayClient:
        """A client of the chat door that may choose its arm, as the mirror must."""
        return GatewayClient(self.attach().url, self._key(CLIENT_KEY), model)

    def stop(self) -> bool:
        """False when none ran."""
        return control.stop(self.folder)

    def _key(self, name: str) -> str:
        return (self.folder / name).read_text(encoding="utf-8").strip()
