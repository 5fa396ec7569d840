"""`python -m crossload.lab`: the lab without the rest of the program. All logic is in `Lab`; this parses and prints."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossload.lab.lab import Lab, LabError, ServerStatus, default_home

if TYPE_CHECKING:
    from crossload.lab.seed import SeedEvent


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 all asked for is up (or done), 1 a server failed, 2 wrong usage, 3 another supervisor runs."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.act(arguments))
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyError as error:
        print(f"no server is named {error.args[0]}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="crossload lab", description="Two clouds on one machine.")
    verbs = parser.add_subparsers(dest="verb", required=True)

    def verb(name: str, act: Any, about: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=about)
        sub.add_argument("--home", type=Path, default=None, help="folder of the lab (CROSSLOAD_LAB_HOME)")
        sub.set_defaults(act=act)
        return sub

    up = verb("up", _up, "start the servers")
    up.add_argument("--only", default=None, help="names, separated by commas")
    up.add_argument("--detach", action="store_true", help="go on without this terminal")
    down = verb("down", _down, "stop everything")
    down.add_argument("--purge", action="store_true", help="delete the data too")
    status = verb("status", _status, "what runs")
    status.add_argument("--json", action="store_true")
    logs = verb("logs", _logs, "the last lines of a server's log")
    logs.add_argument("name")
    logs.add_argument("--lines", type=int, default=40)
    verb("env", _env, "addresses as KEY=VALUE")
    seed = verb("seed", _seed, "put the sample workload into cloud A")
    seed.add_argument("--small", action="store_true", help="about 150 objects instead of 2,100, of the same shapes")
    seed.add_argument("--json", action="store_true", help="what was written and what was there, as JSON")
    for name, about in (
        ("start", "start a server"),
        ("kill", "SIGKILL a server"),
        ("restart", "stop and start a server"),
    ):
        verb(name, _one, about).add_argument("name")
    fault = verb("fault", _fault, "turn a fault on or off")
    fault.add_argument("name")
    fault.add_argument("switch", choices=("on", "off"))
    supervise = verb("supervise", _supervise, argparse.SUPPRESS)
    supervise.add_argument("--only", default=None)
    supervise.add_argument("--tied-to", type=int, default=None)
    return parser


def _names(text: str | None) -> list[str] | None:
    return [name.strip() for name in text.split(",") if name.strip()] if text is not None else None


def _lab(arguments: argparse.Namespace) -> Lab:
    return Lab(arguments.home or default_home())


def _up(arguments: argparse.Namespace) -> int:
    lab = _lab(arguments)
    only = _names(arguments.only)
    if arguments.detach:
        return _exit_code(lab.up(only, _tell, detach=True))
    # TERM and HUP must end as Ctrl-C does: with the servers stopped before this process is gone.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _raise_exit)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        states = lab.up(only, _tell)
        if lab.stay():
            return 0
        return _exit_code(states)
    except KeyboardInterrupt:
        return 130
    finally:
        lab.leave()


def _raise_exit(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def _exit_code(states: Sequence[ServerStatus]) -> int:
    return 1 if any(server.state == "failed" for server in states) else 0


def _tell(server: ServerStatus) -> None:
    match server.state:
        case "up":
            ports = " ".join(f"{name}={port}" for name, port in server.ports.items())
            print(f"{server.name:<12} up after {server.ready_seconds} s  {ports}", file=sys.stderr)
        case "failed" | "not-installed":
            print(f"{server.name:<12} {server.state}: {server.hint}", file=sys.stderr)
        case _:
            pass


def _down(arguments: argparse.Namespace) -> int:
    _lab(arguments).down(purge=arguments.purge)
    return 0


def _status(arguments: argparse.Namespace) -> int:
    servers = _lab(arguments).status()
    if arguments.json:
        print(json.dumps([asdict(server) for server in servers], default=str, indent=1))
        return 0
    for server in servers:
        memory = f"{server.pss_bytes / 1e6:6.0f} MB" if server.pss_bytes is not None else "        -"
        cpu = f"{server.cpu_seconds:6.1f} s" if server.cpu_seconds is not None else "       -"
        tail = server.hint or " ".join(f"{name}={port}" for name, port in server.ports.items())
        print(f"{server.name:<12} {server.cloud:<8} {server.state:<14} {server.pid or '-':>8} {memory} {cpu}  {tail}")
    return 0


def _logs(arguments: argparse.Namespace) -> int:
    print("\n".join(_lab(arguments).logs(arguments.name, arguments.lines)))
    return 0


def _env(arguments: argparse.Namespace) -> int:
    for key, value in sorted(_lab(arguments).env().items()):
        print(f"{key}={value}")
    return 0


def _seed(arguments: argparse.Namespace) -> int:
    from crossload.lab.seed import SeedError, seed

    try:
        report = seed(arguments.home or default_home(), _seed_progress(), arguments.small)
    except SeedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps({**asdict(report), "changed": report.changed}, indent=1))
        return 0
    for part in report.parts:
        size = f"{part.size_bytes / 2**20:.1f} MiB"
        print(f"{part.name:<8} {len(part.made):>5} written {part.kept:>5} kept {size:>10}  {part.seconds:.1f} s")
    return 0


def _seed_progress(every_seconds: float = 1.0) -> Callable[[SeedEvent], None]:
    """A line per part now and then, and one when it is full, on stderr. The seed calls it from several threads."""
    guard = threading.Lock()
    told: dict[str, float] = {}

    def tell(event: SeedEvent) -> None:
        with guard:
            now = time.monotonic()
            if event.done < event.total and now - told.get(event.part, 0.0) < every_seconds:
                return
            told[event.part] = now
            print(f"{event.part}: {event.done} of {event.total}", file=sys.stderr, flush=True)

    return tell


def _one(arguments: argparse.Namespace) -> int:
    lab = _lab(arguments)
    if arguments.verb == "kill":
        lab.kill(arguments.name)
        return 0
    states = lab.start(arguments.name) if arguments.verb == "start" else lab.restart(arguments.name)
    for server in states:
        _tell(server)
    return 1 if any(server.state != "up" for server in states) else 0


def _fault(arguments: argparse.Namespace) -> int:
    from crossload.lab.faults import switch

    print(switch(_lab(arguments), arguments.name, on=arguments.switch == "on"), file=sys.stderr)
    return 0


def _supervise(arguments: argparse.Namespace) -> int:
    from crossload.lab.supervise import Supervisor

    return Supervisor(arguments.home or default_home(), _names(arguments.only), arguments.tied_to).run()
