"""`crossload demo`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("demo")
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), default=Path(".crossload/demo"),
              show_default=True, help="Where the lab and the sample project live.")  # fmt: skip
@click.option("--small", is_flag=True, help="Move a small copy of the sample data.")
@click.option("--keep", is_flag=True, help="Leave the lab up afterwards, to look around.")
def demo_command(folder: Path, small: bool, keep: bool) -> None:
    """Carry the sample workload from lab cloud A to lab cloud B through all ten steps, with a kill -9, a flipped byte,
    a rollback and a second cutover, and show the proof."""
    from crossload.api import play_demo

    play_demo(folder, small=small, keep=keep)
