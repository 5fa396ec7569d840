"""`crossload move`: one copy from one address to another, without a migration file."""

from __future__ import annotations

import json
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import click

from crossload.cli.exits import BAD_FILE, DIFFERENT, FAILED, INTERRUPTED, exit_code, say_error
from crossload.cli.options import json_option, quiet_option
from crossload.cli.progress import shown
from crossload.cli.render import visible

_MIB = 2**20
_SHOWN = 20
_DIFFER = "--back takes changes home to the source; to have the source's again, remove them and run the move again"
_UNFINISHED = "the move has not come to its end: run it again, then look again"
_INTERRUPTED = "interrupted; nothing is lost, run the same command again to go on"


def _settings(pairs: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"`{visible(name)}` is not NAME=VALUE")
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


class _Lines(click.Command):
    """A verb whose --json is a stream: an error is one more line of it, the last."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        as_json = "--json" in args
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            if not as_json:
                raise
            raise _said(error, BAD_FILE) from error

    def invoke(self, ctx: click.Context) -> Any:
        if not ctx.params.get("as_json"):
            return super().invoke(ctx)
        try:
            return super().invoke(ctx)
        except click.exceptions.Exit:
            raise
        except (click.Abort, KeyboardInterrupt) as error:
            raise _said(KeyboardInterrupt(_INTERRUPTED), INTERRUPTED) from error
        except Exception as error:
            code = exit_code(error)
            if code is None:
                raise
            raise _said(error, code) from error


def _said(error: BaseException, code: int) -> click.exceptions.Exit:
    """The error on stderr as always and on stdout as a line; what is left to do is to leave."""
    say_error(error)
    usage = isinstance(error, click.ClickException)
    word = "usage" if usage else "interrupted" if isinstance(error, KeyboardInterrupt) else "system"
    problems = [item.to_json() for item in getattr(error, "diagnostics", [])]
    _line(
        "error", code=str(getattr(error, "code", word)), hint=getattr(error, "hint", "") or "", problems=problems,
        message=error.format_message() if isinstance(error, click.ClickException) else str(error), exit_code=code,
    )  # fmt: skip
    return click.exceptions.Exit(code)


def _line(name: str, **data: Any) -> None:
    """In ASCII: keys are other people's names, and a line of JSON must be one on every terminal."""
    click.echo(json.dumps({"event": name, **data}, sort_keys=True))


@click.command("move", cls=_Lines)
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
@click.option("--back", is_flag=True, help="Bring what was changed at the target since back to the source.")
@click.option("--undo", is_flag=True, help="Remove what this move wrote at the target and nobody has changed.")
@click.option("--follow", is_flag=True, help="After the move carry deltas until Ctrl-C.")
@click.option("--every", type=click.FloatRange(1), default=60.0, show_default=True, metavar="SECONDS",
              help="With --follow: least time between two deltas.")  # fmt: skip
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

    chosen = (dry_run, verify or prove, back, undo, follow)
    if sum(chosen) > 1:
        raise click.UsageError("--dry-run, --verify/--prove, --back, --undo and --follow exclude one another")
    if probe_seconds and not dry_run:
        raise click.UsageError("--probe goes with --dry-run: it measures the link and moves nothing")
    talk = _Talk(as_json, quiet)
    options = MoveOptions(
        _settings(source_set), _settings(target_set), source_region, target_region, file, state, part_size * _MIB,
        workers, buffers * _MIB, None if bandwidth is None else bandwidth * _MIB, allow_mass_delete, key,
    )  # fmt: skip
    opened = open_move(source, target, options, talk.say)
    talk.note("move", what=opened.what, state=str(opened.folder))
    if not any(chosen) or follow:
        _run(opened, talk, follow=follow, every=every)
    elif dry_run:
        with talk.watching(opened, "looking at both sides"):
            found = opened.preview(probe_seconds=probe_seconds)
        _say_preview(found, talk)
    elif back:
        with talk.watching(opened, "looking at both sides"):
            returned = opened.bring_back()
        _say_back(returned, talk)
    elif undo:
        with talk.watching(opened, "removing"):
            report, removed = opened.undo()
        _say_undo(report, removed, talk)
    else:
        with talk.watching(opened, "looking at the target"):
            proof, finished = opened.verify(reread_sample=1.0 if prove else reread)
        _say_proof(proof, finished, talk)


def _run(opened: Any, talk: _Talk, *, follow: bool, every: float) -> None:
    with talk.watching(opened, "looking at both sides") as watch:
        report = opened.run(watch.watcher())
        watch.pause()
        failed = _say_run(report, talk, last=not follow)
        if follow and not failed:
            ended = opened.follow(watch.watcher(), partial(_say_delta, watch, talk), every_seconds=every)
            failed = _say_follow(ended, talk)
    if failed:
        raise click.exceptions.Exit(FAILED)


def _say_run(report: Any, talk: _Talk, *, last: bool) -> bool:
    """Whether something did not arrive."""
    if report.failures:
        words = f"{len(report.failures)} object(s) did not arrive"
        talk.result(report.to_json(), words, _first(report.failures))
        return True
    first, made = report.passes[0], report.manifest
    total = sum(item.sent_bytes for item in report.passes)
    carried = sum(item.copied for item in report.passes)
    removed = sum(item.removed for item in report.passes)
    seconds = sum(item.seconds for item in report.passes)
    words = (
        f"{made.objects:,} objects, {shown(made.size_bytes, 'B')} at the target; {carried:,} sent now "
        f"({shown(total, 'B')} in {seconds:.1f} s), {first.kept:,} were there already"
    ) + (f", {removed:,} removed that the source has lost" if removed else "")
    lines = [f"manifest {made.path}, root {made.root[:16]}, signed by {report.signed_by[:23]}"]
    lines += [f"not kept: {loss} ({count} object(s))" for loss, count in sorted(first.losses.items())]
    talk.result(report.to_json(), words, lines, name="result" if last else "copied")
    return False


def _say_delta(watch: _Watch, talk: _Talk, report: Any) -> None:
    watch.pause()
    found = "nothing new" if report.empty else f"{report.copied:,} sent, {report.removed:,} removed"
    if report.failures or report.hot:
        found += f", {len(report.failures) + len(report.hot):,} did not arrive"
    words = f"delta in {report.seconds:.1f} s: {found}"
    talk.result(report.to_json(), words, _first(report.failures), name="delta")


def _say_follow(report: Any, talk: _Talk) -> bool:
    words = f"{report.deltas:,} deltas: {report.copied:,} sent, {report.removed:,} removed"
    failures = report.end.failures
    made = report.end.manifest
    lines = [f"manifest {made.path}, root {made.root[:16]}, signed by {report.end.signed_by[:23]}"] if made else []
    talk.result(report.to_json(), words, [*lines, *_first(failures)])
    return bool(failures)


def _say_preview(found: Any, talk: _Talk) -> None:
    lines = [f"will not be kept: {loss}" for loss in found.losses]
    if not found.target_exists:
        lines.insert(0, "the target bucket does not exist: it will be made")
    if found.vanished:
        lines.append(f"{found.vanished} object(s) are gone at the source: they will be removed at the target")
    if found.finish is not None:
        lines.append(f"time: {found.finish.left()} ({found.finish.basis})")
    elif found.no_finish:
        lines.append(f"time: unknown ({found.no_finish})")
    lines += [str(item) for item in found.hazards]
    words = f"{found.objects:,} of {found.listed:,} objects to carry, {shown(found.size_bytes, 'B')}; nothing was moved"
    talk.result(found.to_json(), words, lines)


def _say_proof(report: Any, finished: bool, talk: _Talk) -> None:
    problems = [f"{key}: {why}" for key, why in sorted(report.wrong.items())]
    data = {
        "objects": report.objects, "size_bytes": report.size_bytes, "digests_compared": report.compared,
        "reread": report.reread, "wrong": report.wrong, "unknown_at_target": report.extra_count, "finished": finished,
    }  # fmt: skip
    unfinished = [] if finished else [_UNFINISHED]
    if problems:
        talk.result(data, f"{len(problems):,} object(s) differ", [*_first(problems), *unfinished, _DIFFER])
    else:
        strangers = (
            [f"{report.extra_count:,} more object(s) there are none of this move's"] if report.extra_count else []
        )
        words = (
            f"{report.objects:,} objects equal, {report.compared:,} by the store's digest, {report.reread:,} read back"
        )
        talk.result(data, words, [*strangers, *unfinished])
    if problems or unfinished:
        raise click.exceptions.Exit(DIFFERENT)


def _say_back(report: Any, talk: _Talk) -> None:
    words = f"{len(report.returned):,} object(s) brought back, {len(report.removed):,} removed at the source"
    lines = _first([f"changed on both sides, left alone: {key}" for key in sorted(report.conflicts)])
    talk.result(report.to_json(), words, lines)
    if report.conflicts:
        raise click.exceptions.Exit(DIFFERENT)


def _say_undo(report: Any, removed: bool, talk: _Talk) -> None:
    words = f"removed {report.removed:,} object(s), kept {report.kept:,} that others wrote or changed"
    data = {"removed": report.removed, "kept": report.kept, "bucket_removed": removed}
    talk.result(data, words + ("; the bucket too" if removed else ""))


def _first(lines: list[str]) -> list[str]:
    more = len(lines) - _SHOWN
    return [*lines[:_SHOWN], *([f"and {more:,} more (--json names all)"] if more > 0 else [])]


class _Talk:
    """stdout is data (with --json one event a line), stderr is talk."""

    def __init__(self, as_json: bool, quiet: bool) -> None:
        from crossload.cli.progress import status_line

        self._as_json, self._quiet = as_json, quiet
        self._mutex = threading.Lock()
        self._status = status_line()
        self.every = 1.0 if self._status.live else 5.0

    def note(self, name: str, **data: Any) -> None:
        """What happens on the way, for whoever did not ask for quiet."""
        if self._as_json and not self._quiet:
            with self._mutex:
                _line(name, **data)

    def say(self, text: str) -> None:
        self.note("say", text=text)
        if not self._quiet:
            with self._mutex:
                self._status.clear()
                click.echo(f"  {visible(text)}", err=True)

    def status(self, text: str) -> None:
        """Where it is: one line that is written over on a terminal."""
        if not self._quiet:
            with self._mutex:
                self._status.show(text)

    def clear(self) -> None:
        if not self._quiet:
            with self._mutex:
                self._status.clear()

    def result(self, data: dict[str, Any], words: str, lines: list[str] | None = None, *, name: str = "result") -> None:
        self.clear()
        with self._mutex:
            if self._as_json:
                _line(name, **data)
                return
            click.echo(words)
            for line in lines or []:
                click.echo(f"  {visible(line)}", err=True)

    def watching(self, opened: Any, phase: str) -> _Watch:
        return _Watch(self, opened, phase)


class _Watch:
    """Says every second on a terminal, every five elsewhere, how far it is and how long it will take. Until something
    is to be sent it says `phase`."""

    def __init__(self, talk: _Talk, opened: Any, phase: str) -> None:
        self._talk, self._phase = talk, phase
        self._running = opened.running()
        self._began = time.monotonic()
        self._ended = threading.Event()
        self._mutex = threading.Lock()
        self._objects = self._bytes = self._all_objects = self._all_bytes = self._before = 0

    def __enter__(self) -> _Watch:
        self._thread = threading.Thread(target=self._tell, name="progress", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._talk.clear()

    def watcher(self) -> Any:
        from crossload.api.move import Watcher

        return Watcher(start=self._start, moved=self._moved, say=self._talk.say)

    def pause(self) -> None:
        """Nothing is under way until the next `start`, which begins anew."""
        with self._mutex:
            self._phase = ""
            self._objects = self._bytes = self._all_objects = self._all_bytes = self._before = 0

    def _start(self, objects: int, size_bytes: int) -> None:
        with self._mutex:
            self._all_objects, self._all_bytes = objects, size_bytes
            left = max(0, objects - self._objects), max(0, size_bytes - self._bytes)
        self._running.start(*left)

    def _moved(self, objects: int, size_bytes: int) -> None:
        with self._mutex:
            self._objects += objects
            self._bytes += size_bytes
        self._running.moved(objects, size_bytes)

    def _tell(self) -> None:
        while not self._ended.wait(self._talk.every):
            with self._mutex:
                objects, size_bytes = self._objects, self._bytes
                all_objects, all_bytes = self._all_objects, self._all_bytes
                rate, self._before = max(0.0, (size_bytes - self._before) / self._talk.every), size_bytes
                phase = self._phase
            if all_objects:
                self._say_progress(objects, all_objects, size_bytes, all_bytes, rate)
            elif phase:
                seconds = time.monotonic() - self._began
                self._talk.note("looking", text=phase, seconds=round(seconds, 1))
                self._talk.status(f"{phase}, {seconds:.0f} s")

    def _say_progress(self, objects: int, all_objects: int, size_bytes: int, all_bytes: int, rate: float) -> None:
        left = self._running.left().left()
        self._talk.note(
            "progress", objects=objects, objects_all=all_objects, bytes=size_bytes, bytes_all=all_bytes,
            bytes_per_second=round(rate), seconds_left=left.to_json(),
        )  # fmt: skip
        self._talk.status(
            f"{objects:,} of {all_objects:,} objects, {shown(size_bytes, 'B')} of {shown(all_bytes, 'B')}, "
            f"{shown(rate, 'B')}/s, left: {_span(left)}"
        )


def _span(left: Any) -> str:
    if left.value is None:
        return "unknown"
    return f"{left.value:.0f} s ({left.low:.0f}-{left.high:.0f})"
