"""`crossload lab ...`: the lab's own verbs, passed on to it."""

from __future__ import annotations

import click

_VERBS = {
    "up": "Start the servers of both clouds.",
    "down": "Stop everything; --purge deletes the data too.",
    "status": "What runs, where, and what it costs.",
    "logs": "The last lines of one server's log.",
    "env": "Addresses as KEY=VALUE lines, no secrets.",
    "seed": "Put the sample workload into cloud A.",
    "start": "Start one server.",
    "restart": "Stop and start one server.",
    "kill": "SIGKILL one server, as a crash would.",
    "fault": "Turn a fault on or off.",
}


@click.group("lab")
def lab_command() -> None:
    """Two clouds on this machine: real servers on 127.0.0.1, in ./.crossload/lab unless --home says otherwise."""


def _passing(verb: str, about: str) -> click.Command:
    @click.command(verb, help=about, context_settings={"ignore_unknown_options": True, "help_option_names": []})
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def passed(arguments: tuple[str, ...]) -> None:
        from crossload.api import lab_main

        code = lab_main([verb, *arguments])
        if code:
            raise click.exceptions.Exit(code)

    return passed


for _verb, _about in _VERBS.items():
    lab_command.add_command(_passing(_verb, _about))
