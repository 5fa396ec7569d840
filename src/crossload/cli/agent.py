"""`crossload agent`: serve a place's store to a relay at the other end (docs/relay.md)."""

from __future__ import annotations

from pathlib import Path

import click

from crossload.cli.options import file_option, json_option, print_json
from crossload.cli.render import visible

_file = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command("agent")
@file_option
@json_option
@click.option("--store", "place", required=True, metavar="PLACE", help="The place of the migration file to serve.")
@click.option("--bucket", "buckets", multiple=True, required=True, metavar="NAME",
              help="A bucket that may be touched, or a pattern with a *; repeat it.")  # fmt: skip
@click.option("--token", required=True, metavar="env:NAME", help="Reference to the token that the other end sends.")
@click.option("--listen", default="127.0.0.1:8790", show_default=True, metavar="HOST:PORT", help="Where to listen.")
@click.option("--cert", type=_file, default=None, help="PEM certificate; needed beyond this machine.")
@click.option("--key", type=_file, default=None, help="Its PEM key.")
@click.option("--read-only", is_flag=True, help="Answer reads only.")
@click.option("--body-max", default=256, show_default=True, type=click.IntRange(8, 4096), metavar="MIB",
              help="The largest part taken at once; twice as much memory is used.")  # fmt: skip
def agent_command(
    path: Path, as_json: bool, place: str, buckets: tuple[str, ...], token: str, listen: str, cert: Path | None,
    key: Path | None, read_only: bool, body_max: int,
) -> None:  # fmt: skip
    """Serve a place's store to a Crossload at the other end, until Ctrl-C or TERM.

    There the place has the provider `relay`, with this address and the same token."""
    from crossload.api import AgentSettings, open_agent

    settings = AgentSettings(listen, token, buckets, cert, key, read_only, body_max * 2**20)
    agent = open_agent(path, place, settings, lambda text: click.echo(visible(text), err=True))
    if as_json:
        print_json({"url": agent.url, "place": place, "buckets": list(buckets), "read_only": read_only})
    else:
        click.echo(f"{place} is served at {agent.url}")
    try:
        agent.serve()
    except KeyboardInterrupt:
        click.echo("stopped; whatever was under way will be sent again", err=True)
    finally:
        agent.stop()
