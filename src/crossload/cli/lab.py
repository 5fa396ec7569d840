"""`crossload lab ...`: what each of the lab's verbs takes, for help and completion. The lab itself does the rest."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import click
from click.shell_completion import CompletionItem

_Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


class _InOrder(click.Group):
    """Lists its verbs as they are written here, not by the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group("lab", cls=_InOrder)
def lab_command() -> None:
    """Two clouds on this machine: real servers on 127.0.0.1, in ./.crossload/lab unless --home says otherwise."""


def _words(kind: str) -> dict[str, str]:
    """Names of `servers`, `faults` or `fault_names`, each with a few words. Loads the lab: not for plain help."""
    from crossload.api import lab_main

    with contextlib.redirect_stdout(io.StringIO()) as said:
        lab_main(["words"])
    return cast("dict[str, dict[str, str]]", json.loads(said.getvalue()))[kind]


def _completing(kind: str, **more: str) -> _Complete:
    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        words = {**_words(kind), **more}
        return [CompletionItem(name, help=about) for name, about in words.items() if name.startswith(incomplete)]

    return complete


def _listed(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The last of several names with commas between them."""
    before, comma, last = incomplete.rpartition(",")
    words, taken = _words("servers"), before.split(",")
    return [
        CompletionItem(f"{before}{comma}{name}", help=about)
        for name, about in words.items()
        if name.startswith(last) and name not in taken
    ]


def _passed_on(**values: Any) -> None:
    """Hand the verb, as it was checked here, to the lab; end with its exit code."""
    from crossload.api import lab_main

    command = click.get_current_context().command
    options: list[str] = []
    named: list[str] = []
    for parameter in command.params:
        value = values[parameter.name or ""]
        if isinstance(parameter, click.Argument):
            named.append(value)
        elif value is True:
            options.append(parameter.opts[0])
        elif value not in (None, False):
            options.append(f"{parameter.opts[0]}={value}")
    if named:
        named.insert(0, "--")  # a name may begin with a hyphen
    code = lab_main([command.name or "", *options, *named])
    if code:
        raise click.exceptions.Exit(code)


class _Fault(click.Command):
    """Its help lists the faults that this lab knows."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Faults"):
            formatter.write_dl(list(_words("faults").items()))


def _verb(name: str, about: str, *own: click.Parameter, kind: type[click.Command] = click.Command) -> None:
    home = click.Option(
        ["--home"], type=click.Path(path_type=Path, file_okay=False),
        help="Folder of the lab.  [default: CROSSLOAD_LAB_HOME, else .crossload/lab]",
    )  # fmt: skip
    as_json = click.Option(["--json"], is_flag=True, help="Print JSON on stdout.")
    lab_command.add_command(kind(name, params=[*own, home, as_json], callback=_passed_on, help=about))


def _server(complete: _Complete) -> click.Argument:
    return click.Argument(["name"], metavar="SERVER", shell_complete=complete)


_one_server = _completing("servers")

_verb(
    "up",
    "Start the servers of both clouds, and stay until Ctrl-C stops them.\n\n"
    "With --json a line per server as it comes up or fails. A server that is not installed is named; the rest goes on.",
    click.Option(
        ["--only"], metavar="SERVER,...", shell_complete=_listed,
        help="Only these, with commas between them, and what they need.",
    ),
    click.Option(["--detach"], is_flag=True, help="Return when all are up or failed; `down` stops them."),
)  # fmt: skip
_verb(
    "down",
    "Stop everything; --purge deletes the data too.",
    click.Option(["--purge"], is_flag=True, help="Delete the lab's folder too."),
)
_verb("status", "What runs, where, and what it costs.")
_verb(
    "logs",
    "The last lines of one server's log.",
    _server(_completing("servers", supervisor="the process that starts and watches the others")),
    click.Option(["--lines"], type=click.IntRange(min=1), default=40, show_default=True, help="How many."),
)
_verb("env", "Addresses as KEY=VALUE lines, no secrets.")
_verb(
    "seed",
    "Put the sample workload into cloud A; safe to repeat.",
    click.Option(["--small"], is_flag=True, help="About 150 objects instead of 2,100, of the same shapes."),
)
_verb("start", "Start one server, and what it needs.", _server(_one_server))
_verb("restart", "Stop and start one server.", _server(_one_server))
_verb("kill", "SIGKILL one server, as a crash would; it stays down until `start`.", _server(_one_server))
_verb(
    "fault",
    "Turn a fault on or off; it stays so.",
    click.Argument(["name"], metavar="FAULT", shell_complete=_completing("fault_names")),
    click.Argument(["switch"], type=click.Choice(["on", "off"])),
    kind=_Fault,
)
