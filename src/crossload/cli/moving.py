"""`crossload move`: one copy from one address to another, without a migration file."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import click

from crossload.cli.exits import DIFFERENT, FAILED
from crossload.cli.options import json_option, quiet_option
from crossload.cli.progress import shown
from crossload.cli.render import visible

_MIB = 2**20
_DIFFER = "--back takes changes home to the source; to have the source's again, remove them and run the move again"


def _settings(pairs: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"`{pair}` is not NAME=VALUE")
        found[name] = value
    return found


def _end_options(function: Any) -> Any:
    for end in ("target", "source"):
        function = click.option(f"--{end}-region", default="", help=f"Region of the {end}.")(function)
        function = click.option(
            f"--{end}-set", f"{end}_set", multiple=True, metavar="NAME=VALUE",
            help=f"A connection setting of the {end}, as in a migration file; secrets as env:NAME or file:PATH.",
        )(function)  # fmt: skip
    return function


@click.command("move")
@click.argument("source")
@click.argument("target")
@_end_options
@click.option("-f", "--file", "file", type=click.Path(path_type=Path, dir_okay=False), default=None,
              help="A migration file whose places may be named: PLACE:BUCKET/PREFIX.")  # fmt: skip
@click.option("--state", type=click.Path(path_type=Path, file_okay=False), default=None,
              help="Where this move keeps what it knows.  [default: .crossload/moves/...]")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="List both sides and say what would happen; move nothing.")
@click.option("--probe", "probe_seconds", type=click.FloatRange(0, 600), default=0.0, metavar="SECONDS",
              help="With --dry-run: measure the link this long and say when the move would end.")  # fmt: skip
@click.option("--verify", is_flag=True, help="Look at the target again: digests, and a sample read back.")
@click.option("--prove", is_flag=True, help="The same, and read back every object.")
@click.option("--back", is_flag=True, help="Bring what changed at the target since back to the source.")
@click.option("--undo", is_flag=True, help="Remove what this move wrote at the target and nobody has changed.")
@click.option("--follow", is_flag=True, help="After the move carry deltas until Ctrl-C.")
@click.option("--every", type=click.FloatRange(1), default=60.0, show_default=True, metavar="SECONDS",
              help="Least time between two deltas.")  # fmt: skip
@click.option("--workers", type=click.IntRange(1, 256), default=8, show_default=True, help="Threads.")
@click.option("--part-size", type=click.IntRange(1, 5120), default=16, show_default=True, metavar="MIB",
              help="Larger objects travel in parts of this size.")  # fmt: skip
@click.option("--buffers", type=click.IntRange(1), default=64, show_default=True, metavar="MIB",
              help="Memory that all parts under way may take.")  # fmt: skip
@click.option("--bandwidth", type=click.FloatRange(min=0, min_open=True), default=None, metavar="MIB/S",
              help="Ceiling on the link.")  # fmt: skip
@click.option("--reread", type=click.FloatRange(0, 1), default=0.01, show_default=True, metavar="SHARE",
              help="Share of the objects that --verify reads back.")  # fmt: skip
@click.option(
    "--key", default="", metavar="REFERENCE", help="ed25519 key that signs the manifest: env:NAME or file:PATH."
)
@click.option("--allow-mass-delete", is_flag=True, help="Let a delta remove more than 1 % of the objects.")
@json_option
@quiet_option
def move_command(
    source: str, target: str, source_set: tuple[str, ...], target_set: tuple[str, ...], source_region: str,
    target_region: str, file: Path | None, state: Path | None, dry_run: bool, probe_seconds: float, verify: bool,
    prove: bool, back: bool, undo: bool, follow: bool, every: float, workers: int, part_size: int, buffers: int,
    bandwidth: float | None, reread: float, key: str, allow_mass_delete: bool, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Copy SOURCE to TARGET: s3://BUCKET/PREFIX, gs://..., az://..., a folder, or PLACE:BUCKET/PREFIX.

    Safe to stop and to run again: what arrived is not sent again, what is half done is finished. With --json one
    JSON object a line: what happens as it happens, the result last."""
    from crossload.api import MoveOptions, open_move

    if sum((dry_run, verify or prove, back, undo, follow)) > 1:
        raise click.UsageError("--dry-run, --verify/--prove, --back, --undo and --follow exclude one another")
    talk = _Talk(as_json, quiet)
    options = MoveOptions(
        _settings(source_set), _settings(target_set), source_region, target_region, file, state, part_size * _MIB,
        workers, buffers * _MIB, None if bandwidth is None else bandwidth * _MIB, allow_mass_delete, key,
    )  # fmt: skip
    opened = open_move(source, target, options, talk.say)
    talk.event("move", what=opened.what, state=str(opened.folder))
    if dry_run:
        _say_preview(opened.preview(probe_seconds=probe_seconds), talk)
    elif verify or prove:
        _say_proof(opened.verify(reread_sample=1.0 if prove else reread), talk)
    elif back:
        _say_back(opened.bring_back(), talk)
    elif undo:
        report, removed = opened.undo()
        talk.result(
            {"removed": report.removed, "kept": report.kept, "bucket_removed": removed},
            f"removed {report.removed} object(s), kept {report.kept} that others wrote or changed"
            + ("; the bucket too" if removed else ""),
        )
    else:
        _run(opened, talk, follow=follow, every=every)


def _run(opened: Any, talk: _Talk, *, follow: bool, every: float) -> None:
    with talk.watching(opened) as watcher:
        report = opened.run(watcher)
        if report.failures:
            talk.result(report.to_json(), f"{len(report.failures)} object(s) did not arrive", report.failures[:20])
            raise click.exceptions.Exit(FAILED)
        first, made = report.passes[0], report.manifest
        total = sum(item.sent_bytes for item in report.passes)
        carried = sum(item.copied for item in report.passes)
        seconds = sum(item.seconds for item in report.passes)
        words = (
            f"{made.objects:,} objects, {shown(made.size_bytes, 'B')} at the target; {carried:,} sent now "
            f"({shown(total, 'B')} in {seconds:.1f} s), {first.kept:,} were there already"
        )
        lines = [f"manifest {made.path}, root {made.root[:16]}, signed by {report.signed_by[:23]}"]
        lines += [f"not kept: {loss} ({count} object(s))" for loss, count in sorted(first.losses.items())]
        talk.result(report.to_json(), words, lines)
        if follow:
            opened.follow(watcher, talk.delta, every_seconds=every)


def _say_preview(found: Any, talk: _Talk) -> None:
    lines = [f"will not be kept: {loss}" for loss in found.losses]
    if not found.target_exists:
        lines.insert(0, "the target bucket does not exist: it will be made")
    if found.vanished:
        lines.append(f"{found.vanished} object(s) are gone at the source: they will be removed at the target")
    if found.finish is not None:
        lines.append(f"time: {found.finish.left()} ({found.finish.basis})")
    words = f"{found.objects:,} of {found.listed:,} objects to carry, {shown(found.size_bytes, 'B')}; nothing was moved"
    talk.result(found.to_json(), words, lines)


def _say_proof(report: Any, talk: _Talk) -> None:
    problems = [f"{key}: {why}" for key, why in sorted(report.wrong.items())]
    data = {
        "objects": report.objects, "size_bytes": report.size_bytes, "digests_compared": report.compared,
        "reread": report.reread, "wrong": report.wrong, "unknown_at_target": report.extra_count,
    }  # fmt: skip
    if problems:
        talk.result(data, f"{len(problems)} object(s) differ", [*problems[:20], _DIFFER])
        raise click.exceptions.Exit(DIFFERENT)
    talk.result(data, f"{report.objects:,} objects equal, {report.compared:,} by the store's digest, "
                      f"{report.reread:,} read back")  # fmt: skip


def _say_back(report: Any, talk: _Talk) -> None:
    words = f"{len(report.returned)} object(s) brought back, {len(report.removed)} removed at the source"
    talk.result(report.to_json(), words, [f"changed on both sides, left alone: {key}" for key in report.conflicts])
    if report.conflicts:
        raise click.exceptions.Exit(DIFFERENT)


class _Talk:
    """stdout is data (with --json one event a line), stderr is talk."""

    def __init__(self, as_json: bool, quiet: bool) -> None:
        self._as_json, self._quiet = as_json, quiet
        self._mutex = threading.Lock()

    def event(self, name: str, **data: Any) -> None:
        if self._as_json:
            with self._mutex:
                click.echo(json.dumps({"event": name, **data}, sort_keys=True))

    def say(self, text: str) -> None:
        self.event("say", text=text)
        if not self._quiet:
            click.echo(f"  {visible(text)}", err=True)

    def result(self, data: dict[str, Any], words: str, lines: list[str] | None = None) -> None:
        if self._as_json:
            self.event("result", **data)
            return
        click.echo(words)
        for line in lines or []:
            click.echo(f"  {visible(line)}", err=True)

    def delta(self, report: Any) -> None:
        self.event("delta", **report.to_json())
        if not self._as_json:
            found = "nothing new" if report.empty else f"{report.copied} sent, {report.removed} removed"
            click.echo(f"delta in {report.seconds:.1f} s: {found}")

    def watching(self, opened: Any) -> _Watch:
        return _Watch(self, opened, quiet=self._quiet)


class _Watch:
    """Says every second on a terminal, every five elsewhere, how far it is and how long it will take."""

    def __init__(self, talk: _Talk, opened: Any, *, quiet: bool) -> None:
        from crossload.cli.progress import status_line

        self._talk, self._opened, self._quiet = talk, opened, quiet
        self._running = opened.running()
        self._line = status_line()
        self._ended = threading.Event()
        self._mutex = threading.Lock()
        self._objects = self._bytes = self._all_objects = self._all_bytes = 0

    def __enter__(self) -> Any:
        self._thread = threading.Thread(target=self._tell, name="progress", daemon=True)
        self._thread.start()
        return self._opened.watcher(start=self._start, moved=self._moved, say=self._talk.say)

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._line.clear()

    def _start(self, objects: int, size_bytes: int) -> None:
        with self._mutex:
            self._objects = self._bytes = 0
            self._all_objects, self._all_bytes = objects, size_bytes
        self._running.start(objects, size_bytes)

    def _moved(self, objects: int, size_bytes: int) -> None:
        with self._mutex:
            self._objects += objects
            self._bytes += size_bytes
        self._running.moved(objects, size_bytes)

    def _tell(self) -> None:
        every = 1.0 if self._line.live else 5.0
        before = 0
        while not self._ended.wait(every):
            with self._mutex:
                objects, size_bytes = self._objects, self._bytes
                all_objects, all_bytes = self._all_objects, self._all_bytes
            if not all_objects:
                continue
            rate, before = max(0.0, (size_bytes - before) / every), size_bytes
            left = self._running.left().left()
            self._talk.event(
                "progress", objects=objects, objects_all=all_objects, bytes=size_bytes, bytes_all=all_bytes,
                bytes_per_second=round(rate), seconds_left=left.to_json(),
            )  # fmt: skip
            if not self._quiet:
                self._line.show(
                    f"{objects:,} of {all_objects:,} objects, {shown(size_bytes, 'B')} of {shown(all_bytes, 'B')}, "
                    f"{shown(rate, 'B')}/s, left: {_span(left)}"
                )


def _span(left: Any) -> str:
    if left.value is None:
        return "unknown"
    return f"{left.value:.0f} s ({left.low:.0f}-{left.high:.0f})"
