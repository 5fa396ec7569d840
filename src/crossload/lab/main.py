"""`python -m crossload.lab`: the lab without the rest of the program. All logic is in `Lab`; this parses and prints.

Data goes to stdout, talk to stderr; with --json stdout is one document (for `up` a line per server), also for errors.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import json
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from crossload.lab.lab import Lab, LabError, ServerStatus, default_home
from crossload.lab.state import read_state
from crossload.lab.table import all_servers

if TYPE_CHECKING:
    from crossload.lab.seed import SeedEvent

# What `lab fault NAME on|off` takes -> what it does while it is on. SERVER stands for the name of any server.
# `faults.switch` performs it: a fault needs a line here (help, completion) and a case there.
FAULTS: dict[str, str] = {
    "abort-a": "half of the requests on the faulty road to llm-a get 503",
    "abort-b": "half of the requests on the faulty road to llm-b get 503",
    "slow-a": "requests on the faulty road to llm-a wait 1 s",
    "slow-b": "requests on the faulty road to llm-b wait 1 s",
    "slowdown-seaweedfs": "half of the requests at CROSSLOAD_LAB_S3_FAULTY get 503 SlowDown",
    "slowdown-fake-gcs": "half of the requests to cloud B's object store get 429",
    "slowdown-azurite": "half of the requests at CROSSLOAD_LAB_AZURE_FAULTY get 503 ServerBusy",
    "limit-seaweedfs": "requests above 50 a second at CROSSLOAD_LAB_S3_FAULTY get 503 SlowDown",
    "limit-fake-gcs": "requests above 50 a second to cloud B's object store get 429",
    "limit-azurite": "requests above 50 a second at CROSSLOAD_LAB_AZURE_FAULTY get 503 ServerBusy",
    "thin-SERVER": "an address that leads to it over a link of 80 Mbit/s and 50 ms each way",
    "pause-SERVER": "connections stay open and nothing answers",
    "down-SERVER": "killed as by a crash; off starts it again",
}

_OK, _FAILED, _USAGE, _REFUSED, _INTERRUPTED = 0, 1, 2, 3, 130  # as docs/cli.md says of every verb
_PROGRESS_SECONDS = 1.0
_TOLD = frozenset({"up", "failed", "not-installed", "down"})


class _Trouble(Exception):
    """Ends a verb: the exit code, the word of it that scripts may rely on, and what to do next."""

    def __init__(self, text: str, exit_code: int, word: str, hint: str = "") -> None:
        super().__init__(text)
        self.exit_code = exit_code
        self.word = word
        self.hint = hint


def _interrupted(text: str) -> _Trouble:
    return _Trouble(f"interrupted; {text}", _INTERRUPTED, "interrupted")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _Trouble(message, _USAGE, "usage", f"{self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns its exit code: 0 all asked for is up (or done), 1 a server failed or no lab runs, 2 wrong
    usage, 3 refused, 130 interrupted. (`supervise`, which is not for people: 3 another supervisor runs.)"""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        arguments = _parser().parse_args(words)
        return int(arguments.act(arguments))
    except _Trouble as error:
        trouble = error
    except LabError as error:
        trouble = _Trouble(str(error), _FAILED, "lab", "`lab status` says what runs, `lab up` starts it")
    except OSError as error:
        # With a file's name it is about the user's folders; without one it may be a mistake of ours.
        if error.filename is None and error.errno != errno.ENOSPC:
            raise
        trouble = _Trouble(str(error), _FAILED, "system")
    except KeyboardInterrupt:
        trouble = _interrupted("nothing is lost, run the same command again to go on")
    _talk(str(trouble) if trouble.exit_code == _INTERRUPTED else f"error: {_plain(str(trouble))}")
    if trouble.hint:
        _talk(f"hint: {trouble.hint}")
    if "--json" in words:
        _line({"error": {"code": trouble.word, "message": str(trouble), "hint": trouble.hint, "problems": []}})
    return trouble.exit_code


# -- what is asked ----------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    """`crossload lab` says the same options again, for its help and completion (a test compares them)."""
    parser = _Parser(prog="crossload lab", description="Two clouds on one machine.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, act: Callable[[argparse.Namespace], int], about: str = "") -> argparse.ArgumentParser:
        # One without a word of help is not listed: it is for programs.
        sub = verbs.add_parser(name, help=about, allow_abbrev=False) if about else verbs.add_parser(name)
        sub.add_argument("--home", type=Path, default=None, help="folder of the lab (CROSSLOAD_LAB_HOME)")
        sub.add_argument("--json", action="store_true", help="JSON on stdout")
        sub.set_defaults(act=act)
        return sub

    up = verb("up", _up, "start the servers")
    up.add_argument("--only", default=None, help="names, separated by commas")
    up.add_argument("--detach", action="store_true", help="go on without this terminal")
    verb("down", _down, "stop everything").add_argument("--purge", action="store_true", help="delete the data too")
    verb("status", _status, "what runs")
    logs = verb("logs", _logs, "the last lines of a server's log")
    logs.add_argument("name", help="a server, or supervisor")
    logs.add_argument("--lines", type=_at_least_one, default=40, help="how many (40)")
    verb("env", _env, "addresses as KEY=VALUE")
    seed = verb("seed", _seed, "put the sample workload into cloud A")
    seed.add_argument("--small", action="store_true", help="about 150 objects instead of 2,100, of the same shapes")
    verb("start", _one, "start a server, and what it needs").add_argument("name")
    verb("restart", _one, "stop and start a server").add_argument("name")
    verb("kill", _one, "SIGKILL a server").add_argument("name")
    fault = verb("fault", _fault, "turn a fault on or off")
    fault.add_argument("name", help=", ".join(FAULTS))
    fault.add_argument("switch", choices=("on", "off"))
    supervise = verb("supervise", _supervise)
    supervise.add_argument("--only", default=None)
    supervise.add_argument("--tied-to", type=int, default=None)
    verb("words", _words)
    return parser


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _lab(arguments: argparse.Namespace) -> Lab:
    home: Path = (arguments.home or default_home()).resolve()
    if home.exists() and not home.is_dir():
        raise _Trouble(f"{home} is not a folder", _USAGE, "usage", "name a folder with --home")
    return Lab(home)


def _known(name: str, names: Iterable[str], what: str) -> str:
    names = list(names)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
        raise _Trouble(f"no {what} is named {name}", _USAGE, "usage", hint)
    return name


def _names(text: str | None) -> list[str] | None:
    """Of `--only`. None means all."""
    if text is None:
        return None
    names = [_known(name.strip(), all_servers(), "server") for name in text.split(",") if name.strip()]
    if not names:
        raise _Trouble("--only names no server", _USAGE, "usage", f"there are {', '.join(all_servers())}")
    return names


# -- what is said -----------------------------------------------------------------------------------------------


def _write(text: str, out: TextIO) -> None:
    try:
        print(text, file=out, flush=True)
    except BrokenPipeError:
        # The reader left (`| head -1`): the work goes on, and nobody hears the rest.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, out.fileno())
        os.close(nowhere)


def _talk(text: str) -> None:
    _write(text, sys.stderr)


def _data(text: str) -> None:
    _write(text, sys.stdout)


def _line(value: Any) -> None:
    _data(json.dumps(value, sort_keys=True, default=str))


def _document(value: Any) -> None:
    _data(json.dumps(value, indent=2, sort_keys=True, default=str))


def _plain(text: str) -> str:
    """A server's last words must not drive the terminal."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _tail(server: ServerStatus) -> str:
    return _plain(server.hint or " ".join(f"{name}={port}" for name, port in server.ports.items()))


def _tell(server: ServerStatus) -> None:
    state = f"up after {server.ready_seconds} s " if server.state == "up" else f"{server.state}:"
    _talk(f"{server.name:<12} {state} {_tail(server)}")


def _servers(lab: Lab, servers: Iterable[ServerStatus], **more: Any) -> None:
    _document({"home": str(lab.home), **more, "servers": [asdict(server) for server in servers]})


# -- the verbs --------------------------------------------------------------------------------------------------


def _up(arguments: argparse.Namespace) -> int:
    lab = _lab(arguments)
    only = _names(arguments.only)
    told: dict[str, str] = {}

    def tell(server: ServerStatus) -> None:
        if server.state in _TOLD and told.get(server.name) != server.state:
            told[server.name] = server.state
            _tell(server)
            if arguments.json:
                _line(asdict(server))

    def start() -> int:
        states = lab.up(only, tell, detach=arguments.detach)
        for server in states:
            tell(server)  # what happened to it after its own turn
        return _up_code(states, only)

    if arguments.detach:
        try:
            return start()
        finally:
            _tell_how_to_stop(lab)
    joined = read_state(lab.home).supervised
    # TERM and HUP must end as Ctrl-C does: with the servers stopped before this process is gone.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        code = start()
        if not joined:
            up = sum(state == "up" for state in told.values())
            _talk(f"{up} of {len(told)} servers are up; Ctrl-C stops them")
        if not lab.stay():
            _tell_how_to_stop(lab)
        return code
    except KeyboardInterrupt:
        if joined:
            raise
        raise _interrupted("the servers are stopped, their data stays, the same command starts them again") from None
    finally:
        lab.leave()


def _up_code(states: Sequence[ServerStatus], only: Iterable[str] | None) -> int:
    """An optional server that is not installed is no failure, unless it was named or nothing else is there."""
    state_of = {server.name: server.state for server in states}
    good = "failed" not in state_of.values() and "up" in state_of.values()
    return _OK if good and all(state_of[name] == "up" for name in only or ()) else _FAILED


def _tell_how_to_stop(lab: Lab) -> None:
    if read_state(lab.home).supervised:
        stop = f"crossload lab down --home {shlex.quote(str(lab.home))}"
        _talk(f"the lab goes on without this terminal; stop it with: {stop}")


def _down(arguments: argparse.Namespace) -> int:
    lab = _lab(arguments)
    if arguments.purge and lab.is_foreign("state.json"):
        # `--home` of somebody's documents: what no lab ever wrote to must not be deleted as one.
        raise _Trouble(f"{lab.home} holds files and was never a lab's home", _REFUSED, "refused", "see --home")
    stopped = [server.name for server in lab.status() if server.pid is not None]
    lab.down(purge=arguments.purge)
    said = f"stopped {', '.join(stopped)} in" if stopped else "nothing ran in"
    _talk(f"{said} {lab.home}{'; its data is deleted' if arguments.purge else ''}")
    if arguments.json:
        _document({"home": str(lab.home), "stopped": stopped, "purged": arguments.purge})
    return _OK


def _status(arguments: argparse.Namespace) -> int:
    lab = _lab(arguments)
    state = read_state(lab.home)
    servers = lab.status()
    if arguments.json:
        _servers(lab, servers, phase=state.phase if state.supervised else "down")
        return _OK
    for server in servers:
        memory = f"{server.pss_bytes / 1e6:6.0f} MB" if server.pss_bytes is not None else "        -"
        cpu = f"{server.cpu_seconds:6.1f} s" if server.cpu_seconds is not None else "       -"
        state = f"{server.cloud:<8} {server.state:<14} {server.pid or '-':>8}"
        _data(f"{server.name:<12} {state} {memory} {cpu}  {_tail(server)}")
    return _OK


def _logs(arguments: argparse.Namespace) -> int:
    lab = _lab(arguments)
    name = _known(arguments.name, [*all_servers(), "supervisor"], "server")
    log = lab.home / "logs" / f"{name}.log"
    lines = lab.logs(name, arguments.lines)
    if not lines:
        _talk(f"{log} {'is empty' if log.exists() else 'was never written'}")
    if arguments.json:
        _document({"name": name, "log": str(log), "lines": lines})
    elif lines:
        _data("\n".join(lines))
    return _OK


def _env(arguments: argparse.Namespace) -> int:
    addresses = _lab(arguments).env()
    if arguments.json:
        _document(addresses)
    else:
        _data("\n".join(f"{key}={value}" for key, value in sorted(addresses.items())))
    return _OK


def _seed(arguments: argparse.Namespace) -> int:
    from crossload.lab.seed import SeedError, seed

    try:
        report = seed(_lab(arguments).home, _seed_progress(), arguments.small)
    except SeedError as error:
        raise _Trouble(str(error), _FAILED, "seed") from error
    if arguments.json:
        _document({**asdict(report), "changed": report.changed})
        return _OK
    for part in report.parts:
        size = f"{part.size_bytes / 2**20:.1f} MiB"
        _data(f"{part.name:<8} {len(part.made):>5} written {part.kept:>5} kept {size:>10}  {part.seconds:.1f} s")
    return _OK


def _seed_progress() -> Callable[[SeedEvent], None]:
    """A line per part now and then, and one when it is full, on stderr. The seed calls it from several threads."""
    guard = threading.Lock()
    told: dict[str, float] = {}

    def tell(event: SeedEvent) -> None:
        with guard:
            now = time.monotonic()
            if event.done < event.total and now - told.get(event.part, 0.0) < _PROGRESS_SECONDS:
                return
            told[event.part] = now
            _talk(f"{event.part}: {event.done} of {event.total}")

    return tell


def _one(arguments: argparse.Namespace) -> int:
    lab = _lab(arguments)
    name = _known(arguments.name, all_servers(), "server")
    if not read_state(lab.home).supervised:
        raise LabError(f"no lab runs in {lab.home}")
    if arguments.verb == "kill":
        lab.kill(name)
        servers = [server for server in lab.status() if server.name == name]
    else:
        servers = lab.start(name) if arguments.verb == "start" else lab.restart(name)
    for server in servers:
        _tell(server)
    if arguments.json:
        _servers(lab, servers)
    wanted = "down" if arguments.verb == "kill" else "up"
    return _OK if all(server.state == wanted for server in servers) else _FAILED


def _fault(arguments: argparse.Namespace) -> int:
    from crossload.lab.faults import FaultDidNotFire, FaultUnavailable, switch

    lab = _lab(arguments)
    name = _known(arguments.name, _fault_names(), "fault")
    on = arguments.switch == "on"
    try:
        effect = switch(lab, name, on=on)
    except KeyError as error:
        raise LabError(f"{name} needs a server that is not up ({error.args[0]} is missing)") from error
    except (OSError, FaultDidNotFire, FaultUnavailable) as error:
        raise LabError(f"{name} was not turned {arguments.switch}: {error}") from error
    _talk(effect)
    if arguments.json:
        _document({"fault": name, "on": on, "effect": effect})
    return _OK


def _fault_names() -> dict[str, str]:
    """Every name that `lab fault` takes, SERVER filled in -> what it does."""
    return {
        name.replace("SERVER", server): effect
        for name, effect in FAULTS.items()
        for server in (all_servers() if "SERVER" in name else [""])
    }


def _words(arguments: argparse.Namespace) -> int:
    """For help and completion: what may be named, with a few words on each."""
    servers = {name: row.about for name, row in all_servers().items()}
    _data(json.dumps({"servers": servers, "faults": FAULTS, "fault_names": _fault_names()}))  # in their own order
    return _OK


def _supervise(arguments: argparse.Namespace) -> int:
    from crossload.lab.supervise import Supervisor

    return Supervisor(_lab(arguments).home, _names(arguments.only), arguments.tied_to).run()
