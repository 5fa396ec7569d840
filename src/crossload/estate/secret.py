"""References to secrets and settings: `env:NAME` and `file:PATH`. Values are read at the moment of use, never kept."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


class ReferenceUnresolved(LookupError):
    """A reference points at nothing. The message names the reference, never a value."""


def is_reference(text: str) -> bool:
    return text.startswith(("env:", "file:"))


def resolve(text: str, environment: Mapping[str, str] | None = None) -> str:
    """Return what the reference names; text that is no reference comes back as it is.

    `env:A` may itself name a reference (one more hop), so that an environment file can hold `file:` references
    and no secret. Raises ReferenceUnresolved."""
    settings = os.environ if environment is None else environment
    asked = text
    for _ in range(3):
        if text.startswith("env:"):
            name = text[4:]
            if name not in settings:
                raise ReferenceUnresolved(f"environment variable {name} is not set (wanted by reference {text})")
            text = settings[name]
        elif text.startswith("file:"):
            path = Path(text[5:]).expanduser()
            try:
                return path.read_text(encoding="utf-8").strip()
            except OSError as error:
                raise ReferenceUnresolved(
                    f"cannot read {path} (wanted by reference {text}): {error.strerror}"
                ) from error
            except UnicodeDecodeError:
                # Not chained: the error would carry the bytes of a secret into a traceback.
                raise ReferenceUnresolved(f"{path} is not UTF-8 text (wanted by reference {text})") from None
        else:
            return text
    # Handing out the reference itself would send `env:NAME` to a server as a password.
    raise ReferenceUnresolved(f"reference {asked} leads through too many others, or in a circle")


def read_env_file(path: Path) -> dict[str, str]:
    """KEY=VALUE lines; blank lines and lines starting with # are skipped. Raises OSError, ValueError with the line."""
    found: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"{path}:{number}: expected KEY=VALUE")
        found[name.strip()] = value.strip()
    return found
