"""Envoy's admin port: runtime values, and the counters that prove a fault fired."""

from __future__ import annotations

import re
import urllib.parse
import urllib.request
from collections.abc import Mapping

from crossload.lab.lab import Lab, LabError
from crossload.lab.loopback import direct


def set_runtime(lab: Lab, values: Mapping[str, int | str]) -> None:
    """Set runtime values, all at once; "" puts one back to its default."""
    ask(lab, "POST", "/runtime_modify?" + urllib.parse.urlencode(values))


def count(lab: Lab, counter: str) -> int:
    """A counter since Envoy's start; 0 when it was never counted."""
    return int(stat(lab, counter) or 0)


def stat(lab: Lab, name: str) -> str:
    """A value of Envoy's statistics as text, "" when it has none of that name."""
    text = ask(lab, "GET", "/stats?" + urllib.parse.urlencode({"filter": f"^{re.escape(name)}$"}))
    return text.partition(":")[2].strip().strip('"')


def ask(lab: Lab, method: str, road: str) -> str:
    """Raises LabError when Envoy does not run or does not answer."""
    address = lab.env().get("CROSSLOAD_LAB_ENVOY_ADMIN")
    if address is None:
        raise LabError("envoy does not run, and makes this fault")
    request = urllib.request.Request(address + road, method=method)  # noqa: S310
    try:
        with direct.open(request, timeout=5) as answer:
            text: str = answer.read().decode()
    except OSError as error:
        raise LabError(f"envoy does not answer, and makes this fault: {error}") from error
    return text
