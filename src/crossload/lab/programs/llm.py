"""llama.cpp's own server on one model file, one thread, two slots, prompt cache off.

The cache is off because with it the same question gets different answers on two machines that hold the same bytes
(40 of 40 equal without it, 32 of 40 with it), and equality is what the lab has to prove.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import threading
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--alias", required=True)
    parser.add_argument("--key-file", type=Path, required=True)
    arguments = parser.parse_args()
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: ended.set())
    # Bound to a name: the server ends when it is collected.
    server = start(arguments.port, arguments.model, arguments.alias, arguments.key_file.read_text().strip())
    ended.wait()
    del server
    sys.exit(0)


def start(port: int, model: Path, alias: str, key: str) -> Any:
    """Start the server inside this process; it listens when this returns."""
    # Its classes live in a compiled module without type stubs.
    xllamacpp: Any = importlib.import_module("xllamacpp")
    parameters: Any = xllamacpp.CommonParams()
    parameters.model.path = str(model)
    parameters.model_alias = {alias}
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = port
    parameters.n_parallel = 2
    parameters.n_ctx = 4096
    parameters.cpuparams.n_threads = 1
    parameters.cpuparams_batch.n_threads = 1
    parameters.n_threads_http = 4
    parameters.cache_prompt = False
    parameters.cache_ram_mib = 0
    parameters.ui = False
    parameters.warmup = False
    parameters.api_keys = [key]
    return xllamacpp.Server(parameters)


if __name__ == "__main__":
    main()
