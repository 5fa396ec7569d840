"""Running somebody's tests: the right interpreter, the whole output, no leftovers."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from crossload.engines.convert.trial import Trial, copy_application, counts_in, run_tests, same_tests
from crossload.ports.errors import Invalid

ENVIRONMENT = {
    "PATH": os.environ["PATH"], "PYTEST_ADDOPTS": "-p no:cacheprovider", "PYTHONDONTWRITEBYTECODE": "1",
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # our own plugins take longer to load than these tests to run
}  # fmt: skip


def test_counts_exit_code_and_log(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import os, pytest\ndef test_a():\n    print(os.environ['SEEN'])\n    assert 0, 'secret-value'\n"
        "def test_b(): pass\n@pytest.mark.skip\ndef test_c(): pass\n"
    )
    log = tmp_path / "logs/out.log"
    trial = run_tests(
        tmp_path, ["python", "-m", "pytest", "-q"], {**ENVIRONMENT, "SEEN": "yes"}, log,
        lambda text: text.replace("secret-value", "***"),
    )  # fmt: skip
    assert not trial.green and trial.code == 1
    assert trial.counts == {"failed": 1, "passed": 1, "skipped": 1}
    assert "secret-value" not in log.read_text() and "***" in trial.tail and "yes" in log.read_text()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_this_interpreter_runs_python(tmp_path: Path) -> None:
    import sys

    trial = run_tests(tmp_path, ["python", "-c", "import sys; print(sys.executable)"], ENVIRONMENT, tmp_path / "log")
    assert trial.green and trial.tail == sys.executable and trial.passed is None


def test_a_run_without_end_is_ended_with_its_children(tmp_path: Path) -> None:
    program = "import subprocess, time\nc = subprocess.Popen(['sleep', '60'])\nprint(c.pid, flush=True)\ntime.sleep(60)"
    began = time.monotonic()
    trial = run_tests(tmp_path, ["python", "-c", program], ENVIRONMENT, tmp_path / "log", timeout_seconds=1.5)
    assert trial.code is None and not trial.green and time.monotonic() - began < 20
    child = Path(f"/proc/{trial.tail.strip()}/stat")
    for _ in range(100):
        if not child.exists() or child.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the child lives on")


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="no-such-runner"):
        run_tests(tmp_path, ["no-such-runner"], ENVIRONMENT, tmp_path / "log")


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("===== 3 passed, 1 skipped in 0.10s =====\n", {"passed": 3, "skipped": 1}),
        ("1 failed, 2 passed\nlater words\n", {"failed": 1, "passed": 2}),
        ("OK\n", {}),
    ],
)
def test_counts(text: str, counts: dict[str, int]) -> None:
    assert counts_in(text) == counts


def trial(code: int, **counts: int) -> Trial:
    return Trial(code, 1.0, counts, "")


def test_fewer_tests_prove_less() -> None:
    assert same_tests(trial(0, passed=3), trial(0, passed=3)) == ""
    assert same_tests(trial(0, passed=3), trial(0, passed=2, skipped=1)) == "3 tests passed before, 2 after"
    assert "fail" in same_tests(trial(0, passed=3), trial(1, passed=2, failed=1))
    assert same_tests(trial(0), trial(0)) == ""


def test_the_copy_leaves_caches_behind_and_is_private(tmp_path: Path) -> None:
    source = tmp_path / "app"
    for name in ("a.py", "__pycache__/a.pyc", ".git/config", ".venv/lib.py", "pkg/.hidden"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    (source / "link").symlink_to("a.py")
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy/old").write_text("old")
    copy_application(source, tmp_path / "copy")
    names = sorted(path.relative_to(tmp_path / "copy").as_posix() for path in (tmp_path / "copy").rglob("*"))
    assert names == ["a.py", "link", "pkg", "pkg/.hidden"]
    assert (tmp_path / "copy/link").is_symlink()
    assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) == 0o700
