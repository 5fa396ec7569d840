"""The lab's verbs on the command line: help, options, completion, errors. Nothing is started here."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from desk_project import completed

from crossload.cli.lab import lab_command
from crossload.cli.main import main
from crossload.lab import Lab, ServerStatus
from crossload.lab import main as lab_main
from crossload.lab.main import FAULTS
from crossload.lab.table import all_servers

VERBS = ("up", "down", "status", "logs", "env", "seed", "start", "restart", "kill", "fault")
Said = tuple[int, str, str]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """`crossload lab ...` in an empty folder, where no lab was ever up."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CROSSLOAD_LAB_HOME", raising=False)

    def run(*arguments: str, alone: bool = False) -> Said:
        if alone:
            code = lab_main.main(arguments)
        else:
            with pytest.raises(SystemExit) as stop:
                main(["lab", *arguments])
            code = int(stop.value.code or 0)
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return run


# -- options and help ------------------------------------------------------------------------------------------------


def _own_parsers() -> dict[str, argparse.ArgumentParser]:
    parser = lab_main._parser()  # pyright: ignore[reportPrivateUsage]
    (verbs,) = [item for item in parser._actions if isinstance(item, argparse._SubParsersAction)]  # pyright: ignore
    return dict(verbs.choices)


def test_the_verbs_are_the_same_with_and_without_the_program() -> None:
    assert tuple(lab_command.commands) == VERBS
    assert set(_own_parsers()) - set(VERBS) == {"supervise", "words"}, "those two are for programs"


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_takes_the_same_with_and_without_the_program(verb: str) -> None:
    """Its options are written down twice: once for help and completion, once where they are obeyed."""
    named: list[tuple[str, Any, bool, list[str] | None]] = []
    obeyed: list[tuple[str, Any, bool, list[str] | None]] = []
    for parameter in lab_command.commands[verb].params:
        flag = isinstance(parameter, click.Option) and parameter.is_flag
        choices = list(parameter.type.choices) if isinstance(parameter.type, click.Choice) else None
        default = parameter.default if isinstance(parameter.default, int) else None
        named.append((parameter.opts[0], default or None, flag, choices))
    for action in _own_parsers()[verb]._actions:  # pyright: ignore[reportPrivateUsage]
        if action.dest != "help":
            name = action.option_strings[0] if action.option_strings else action.dest
            choices = list(action.choices) if action.choices else None
            obeyed.append((name, action.default or None, action.nargs == 0, choices))
    assert sorted(named, key=str) == sorted(obeyed, key=str)
    assert {"--json", "--home"} <= {name for name, *_ in named}


@pytest.mark.parametrize("verb", VERBS)
def test_help_names_every_option(say: Callable[..., Said], verb: str) -> None:
    code, out, err = say(verb, "--help")
    assert (code, err) == (0, "")
    for parameter in lab_command.commands[verb].params:
        assert (parameter.opts[0] if isinstance(parameter, click.Option) else parameter.metavar or "{on|off}") in out


def test_help_of_fault_lists_the_faults(say: Callable[..., Said]) -> None:
    _, out, _ = say("fault", "--help")
    assert {name for name in FAULTS if re.search(rf"^  {name} ", out, re.MULTILINE)} == set(FAULTS)


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "fault"])
def test_help_of_a_verb_loads_no_lab(verb: str) -> None:
    code = (
        "import sys; from crossload.cli.main import main\ntry: main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "print([name for name in sys.modules if name.startswith(('crossload.lab', 'crossload.api'))], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, "lab", verb, "--help"], capture_output=True, text=True)
    assert done.stderr.strip() == "[]"


def test_the_docs_name_every_verb_and_option(repository: Path) -> None:
    page = (repository / "docs" / "lab.md").read_text(encoding="utf-8")
    options = {
        name
        for verb in lab_command.commands.values()
        for item in verb.params
        if isinstance(item, click.Option)
        for name in item.opts
    }
    assert {name for name in options if f"`{name}" not in page and f"[{name}" not in page} == set()
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `") and '{"' in line]
    told = {verb for row in rows for verb in re.findall(r"`(\w+)`", row)} | {"up", "env"}  # a line each, and any keys
    assert set(VERBS) <= told, "the table of what --json prints"


def test_every_fault_that_may_be_named_can_be_switched(say: Callable[..., Said]) -> None:
    """Without a lab each must fail for want of the lab, not because it stands in the table only."""
    for name in (name.replace("SERVER", "nats") for name in FAULTS):
        code, _, err = say("fault", name, "on")
        assert (code, f"({name} is missing)" in err) == (1, False), err


# -- one document, and the documented code ---------------------------------------------------------------------------

NEVER_UP: list[tuple[list[str], int, str]] = [
    (["env"], 1, "no lab was ever up"),
    (["start", "nats"], 1, "no lab runs"),
    (["restart", "nats"], 1, "no lab runs"),
    (["kill", "nats"], 1, "no lab runs"),
    (["seed", "--small"], 1, "no lab was ever up"),
    (["fault", "abort-a", "on"], 1, "no lab was ever up"),
    (["fault", "pause-nats", "on"], 1, "does not run"),
    (["start", "natz"], 2, "no server is named natz"),
    (["logs", "natz"], 2, "no server is named natz"),
    (["fault", "pause-natz", "on"], 2, "no fault is named pause-natz"),
    (["fault", "abort-a", "perhaps"], 2, "perhaps"),
    (["up", "--only", "nats,natz"], 2, "no server is named natz"),
    (["up", "--only", ","], 2, "--only names no server"),
    (["up", "--ony", "nats"], 2, "--ony"),
    (["logs", "nats", "--lines", "0"], 2, "--lines"),
    (["logs", "nats", "--lines", "few"], 2, "--lines"),
    (["logs"], 2, ""),
    (["status", "--home", "file"], 2, "file"),
    (["down", "--purge", "--home", "papers"], 3, "never a lab's home"),
]


@pytest.mark.parametrize("alone", [False, True], ids=["crossload lab", "python -m crossload.lab"])
@pytest.mark.parametrize("arguments, code, words", NEVER_UP)
def test_an_error_is_one_document_one_line_and_the_documented_code(
    say: Callable[..., Said], arguments: list[str], code: int, words: str, alone: bool
) -> None:
    Path("file").write_text("not a folder")
    Path("papers").mkdir()
    Path("papers", "letter").write_text("dear all")
    got, out, err = say(*arguments, alone=alone)
    assert (got, out) == (code, "")
    assert words in err
    got, out, err = say(*arguments, "--json", alone=alone)
    assert (got, words in err) == (code, True)
    told = json.loads(out)
    assert set(told["error"]) == {"code", "message", "hint", "problems"}
    assert words in told["error"]["message"]
    assert told["error"]["code"] == {1: told["error"]["code"], 2: "usage", 3: "refused"}[code]
    assert Path("papers", "letter").exists()
    assert not Path(".crossload").exists(), "a question must leave nothing behind"


def test_a_misspelt_name_is_guessed(say: Callable[..., Said]) -> None:
    assert "did you mean nats?" in say("start", "natz")[2]
    assert "did you mean pause-nats?" in say("fault", "pause-natz", "on")[2]


def test_what_is_there_to_look_at_without_a_lab(say: Callable[..., Said], tmp_path: Path) -> None:
    code, out, _ = say("status", "--json")
    told = json.loads(out)
    assert (code, told["phase"], told["home"]) == (0, "down", str(tmp_path / ".crossload" / "lab"))
    assert {server["name"] for server in told["servers"]} == set(all_servers())
    assert {server["state"] for server in told["servers"]} <= {"down", "not-installed"}
    assert {server["pss_bytes"] for server in told["servers"]} == {None}, "unknown is not 0"
    code, out, err = say("logs", "nats", "--json")
    assert (code, json.loads(out)["lines"], "was never written" in err) == (0, [], True)
    code, out, err = say("logs", "nats")
    assert (code, out, "was never written" in err) == (0, "", True)
    code, out, _ = say("down", "--purge", "--json", "--home", "nowhere")
    home = str(tmp_path / "nowhere")
    assert (code, json.loads(out)) == (0, {"home": home, "purged": True, "stopped": []})


def test_a_log_in_numbers(say: Callable[..., Said], tmp_path: Path) -> None:
    log = tmp_path / "home" / "logs" / "nats.log"
    log.parent.mkdir(parents=True)
    log.write_text("".join(f"line {number}\n" for number in range(100)))
    assert say("logs", "nats", "--lines", "2", "--home", "home")[:2] == (0, "line 98\nline 99\n")
    told = json.loads(say("logs", "nats", "--json", "--home", "home")[1])
    assert (told["name"], told["log"], len(told["lines"])) == ("nats", str(log), 40)


def _server(name: str, state: Any) -> ServerStatus:
    return ServerStatus(name, "a", "", state, None, {}, None, None, None, (), "\x1b[31mwhy", Path("log"))


@pytest.mark.parametrize(
    "states, only, code",
    [
        ({"a": "up", "b": "up"}, [], 0),
        ({"a": "up", "b": "failed"}, [], 1),
        ({"a": "up", "b": "not-installed"}, [], 0),  # optional, and nobody named it
        ({"nats": "up", "issuer": "not-installed"}, ["--only", "nats,issuer"], 1),
        ({"nats": "not-installed", "issuer": "not-installed"}, [], 1),
    ],
)
def test_up_succeeds_when_all_that_was_asked_for_is_up(
    say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, states: dict[str, str], only: list[str], code: int
) -> None:
    def up(self: Lab, names: object, tell: Callable[[ServerStatus], None], *, detach: bool) -> list[ServerStatus]:
        servers = [_server(name, state) for name, state in states.items()]
        tell(_server(servers[0].name, "waiting"))
        tell(servers[0])  # the others were told by nobody until the end
        return servers

    monkeypatch.setattr(Lab, "up", up)
    got, out, err = say("up", "--detach", "--json", *only)
    assert got == code
    assert {item["name"]: item["state"] for item in map(json.loads, out.splitlines())} == states
    assert len(out.splitlines()) == len(states), "a line per server, not per change"
    assert "\x1b" not in err, "a server's last words drive no terminal"


# -- completion ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "typed, wanted",
    [
        ("re", "restart"),
        ("up --", "--only --detach --home --json --help"),
        ("up --only sea", "seaweedfs"),
        ("up --only nats,llm", "nats,llm-a nats,llm-b"),
        ("up --only llm-a,llm", "llm-a,llm-b"),
        ("restart fake", "fake-gcs"),
        ("kill --json op", "openbao"),
        ("logs super", "supervisor"),
        ("start super", ""),
        ("logs --l", "--lines"),
        ("fault slow-", "slow-a slow-b"),
        ("fault pause-po", "pause-postgres-a pause-postgres-b"),
        ("fault slow-a o", "on off"),
    ],
)
def test_bash_completes_the_labs_words(tmp_path: Path, typed: str, wanted: str) -> None:
    done = completed(tmp_path, "crossload", "lab", *typed.split(" "))
    assert set(wanted.split()) <= set(done.stdout.split()), done.stderr
    if not wanted.startswith(("slow-", "--")):  # faults and shared options may grow
        assert done.stdout.split() == wanted.split()
    assert done.stderr == ""
