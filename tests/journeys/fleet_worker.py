"""A worker of a fleet as a process of its own: `fleet_worker.py MIGRATION_FILE`. Timers that ask for something are
written to `acts` beside the file."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from typing import Any

from crossload import wiring


def main() -> int:
    path = Path(sys.argv[1])
    migration, _ = wiring.read_file(path)
    assert migration is not None

    def act(name: str, what: str) -> dict[str, Any]:
        with (path.parent / "acts").open("a", encoding="utf-8") as acts:
            acts.write(f"{name} {what}\n")
        return {"by": "worker"}

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    wiring.serve_fleet(migration, "there", at_once=1, stop=stop, act=act)
    return 0


if __name__ == "__main__":
    sys.exit(main())
