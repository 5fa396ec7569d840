"""The command line's tests share one small project; `import desk_project` finds it beside this file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Any:
    """`say("plan", "--json")` runs the program in this process: (exit code, stdout, stderr)."""
    from crossload.cli.main import main

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(list(arguments))
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return int(stop.value.code or 0), out, err

    return run
