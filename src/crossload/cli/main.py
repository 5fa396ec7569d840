"""`crossload`: the verbs, each loaded when it is named, so that --help stays quick."""

from __future__ import annotations

import importlib
import sys
from typing import NoReturn

import click

from crossload import __version__

# verb -> (module, one line of help). The line is here so that `--help` loads no verb.
VERBS: dict[str, tuple[str, str]] = {
    "init": ("crossload.cli.files", "Discover a source and write a migration file."),
    "validate": ("crossload.cli.files", "Check a migration file; every problem at once."),
    "schema": ("crossload.cli.files", "Print the JSON Schema of the migration file."),
    "inventory": ("crossload.cli.planning", "Discover what the sources hold and lock it."),
    "plan": ("crossload.cli.planning", "Say what will change, its cost, time and risk; save it."),
    "apply": ("crossload.cli.running", "Perform the plan up to the cutover."),
    "status": ("crossload.cli.looking", "Show every step and where it stands."),
    "trace": ("crossload.cli.looking", "Tell one asset's whole story from the evidence."),
    "verify": ("crossload.cli.running", "Re-check everything now, from the stores."),
    "cutover": ("crossload.cli.running", "Mirror, canary, drill, ramp, freeze, switch."),
    "rollback": ("crossload.cli.running", "Bring traffic and data back to the source."),
    "commit": ("crossload.cli.running", "End the right to roll back (asks first)."),
    "move": ("crossload.cli.moving", "Copy one bucket, folder or object to another place; resume, verify, undo."),
    "proof": ("crossload.cli.proof", "Show, check and hand out the signed manifest of a copy."),
    "agent": ("crossload.cli.agent", "Serve a place's store to a relay at the other end of a thin link."),
    "report": ("crossload.cli.looking", "Write one self-contained HTML report."),
    "lab": ("crossload.cli.lab", "Two clouds on this machine: up, status, down, logs, seed, ..."),
    "demo": ("crossload.cli.demo", "Carry the sample workload from lab cloud A to B and show proof."),
    "doctor": ("crossload.cli.looking", "Say what this machine has and what is missing."),
    "completion": ("crossload.cli.files", "Print a shell completion script (bash, zsh, fish)."),
}

EXIT_CODES = (
    "Exit codes: 0 done; 1 a step failed; 2 bad file or usage; 3 refused or stale; 4 verification found a difference; "
    "5 another process holds the lock; 6 not signed in or access denied; 130 interrupted (run it again, it goes on)."
)


class LazyGroup(click.Group):
    """Knows its verbs by name and imports one only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(VERBS[cmd_name][0])
        return getattr(module, f"{cmd_name}_command")

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(name, line) for name, (_, line) in VERBS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if name and name not in VERBS and not name.startswith("-"):
            import difflib

            near = difflib.get_close_matches(name, VERBS, n=1)
            hint = f" Did you mean `{near[0]}`?" if near else ""
            raise click.UsageError(f"No such verb `{name}`.{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="crossload")
def crossload() -> None:
    """Carry an AI workload from one cloud to another, prove that it arrived, and keep rollback one command away.

    Start with `crossload demo`, or with `crossload init` in your own project."""


def main(arguments: list[str] | None = None) -> NoReturn:
    """Entry point. Turns our errors into one clear line, a hint and a documented exit code; with --json also into
    JSON on stdout, so that a script always reads one document."""
    from crossload.cli.exits import INTERRUPTED, exit_code, say_error
    from crossload.cli.streams import steady

    as_json = "--json" in (sys.argv[1:] if arguments is None else arguments)
    with steady():
        try:
            # Without standalone mode click hands the code of an Exit back as the result.
            code = crossload.main(arguments, prog_name="crossload", standalone_mode=False)
            sys.stdout.flush()  # a full disk is an error of ours to tell
        except (click.Abort, KeyboardInterrupt):
            say_error(KeyboardInterrupt("interrupted; nothing is lost, run the same command again to go on"), as_json)
            code = INTERRUPTED
        except Exception as error:
            code = exit_code(error)
            if code is None:
                raise
            say_error(error, as_json)
        sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
