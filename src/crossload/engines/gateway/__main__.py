"""`python -m crossload.engines.gateway --config FILE`: run the gateway in the foreground.

`--pair NAME --out FILE` writes, with mode 0600, the key pair that one client signs with at the converse door."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from crossload.engines.gateway.config import Config, ConfigInvalid, ReferenceUnresolved, read_config
from crossload.engines.gateway.keys import signing_pair
from crossload.engines.gateway.wire.sigv4 import profile_text
from crossload.ports.errors import CrossloadError


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="crossload.engines.gateway", description=__doc__)
    parser.add_argument("--config", required=True, type=Path, help="TOML or JSON file")
    parser.add_argument("--pair", metavar="CLIENT", help="write this client's key pair instead of serving")
    parser.add_argument("--out", type=Path, help="where --pair writes it (a shared-credentials file)")
    options = parser.parse_args(arguments)
    try:
        config = read_config(options.config)
        if options.pair:
            return _write_pair(config, options.pair, options.out)
        from crossload.engines.gateway.server import Gateway, serve

        def ready(gateway: Gateway) -> None:
            sys.stderr.write(f"gateway listens on {gateway.url}\n")
            sys.stderr.flush()

        serve(config, ready)
    except ConfigInvalid as error:
        for problem in error.problems:
            sys.stderr.write(f"{options.config}: {problem}\n")
        return 2
    except (ReferenceUnresolved, CrossloadError, ValueError, OSError) as error:
        sys.stderr.write(f"gateway: {error}\n")
        return 1
    return 0


def _write_pair(config: Config, name: str, out: Path | None) -> int:
    client = next((item for item in config.clients if item.name == name), None)
    if client is None or out is None:
        sys.stderr.write("gateway: --pair needs the name of a configured client, and --out a file\n")
        return 2
    key_id, secret = signing_pair(config.resolve(client.key, config.environment()))
    descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(profile_text(name, key_id, secret))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
