"""Faults by name, for `crossload lab fault`: turned on, and left so."""

from __future__ import annotations

import signal

from crossload.lab.faults.link import close_link, open_link
from crossload.lab.faults.models import set_road
from crossload.lab.faults.servers import kill, signal_all, start
from crossload.lab.faults.stores import aws_config, refused_ever, road_url, set_slowdown
from crossload.lab.front.slowdown import SLOW_ROADS
from crossload.lab.lab import Lab

SHARE_PERCENT = 50
LIMIT_REQUESTS_PER_SECOND = 50
THIN_MEGABITS, THIN_LATENCY_MS = 80, 50


def switch(lab: Lab, name: str, *, on: bool) -> str:
    """Turn a named fault on or off and leave it so; returns what that means.

    abort-a, abort-b, slow-a, slow-b, pause-SERVER, down-SERVER, thin-SERVER, and for the stores that can be slowed down
    slowdown-SERVER, limit-SERVER. KeyError for another name.
    """
    kind, _, what = name.partition("-")
    match kind, what:
        case "abort", "a" | "b":
            set_road(lab, f"llm-{what}", {"abort_percent": 50 if on else None})
            return f"half of the requests on the faulty road to llm-{what} {'get 503' if on else 'are answered again'}"
        case "slow", "a" | "b":
            set_road(lab, f"llm-{what}", {"delay_percent": 100 if on else None, "delay_ms": 1000 if on else None})
            return f"requests on the faulty road to llm-{what} {'wait 1 s' if on else 'do not wait any more'}"
        case "pause", server if server:
            signal_all(lab.pid(server), signal.SIGSTOP if on else signal.SIGCONT)
            return f"{server} {'is silent' if on else 'goes on'}"
        case "down", server if server:
            if on:
                kill(lab, server)
            else:
                start(lab, server)
            return f"{server} is {'gone' if on else 'back'}"
        case "slowdown" | "limit", server if server in SLOW_ROADS:
            return _slow_down(lab, server, by_rate=kind == "limit", on=on)
        case "thin", server if server:
            return _thin(lab, server, on=on)
        case _:
            raise KeyError(name)


def _slow_down(lab: Lab, server: str, *, by_rate: bool, on: bool) -> str:
    url = road_url(lab, server)
    if not on:
        set_slowdown(lab, server)
        return f"{server} takes every request again; {refused_ever(lab, server)} were refused since envoy started"
    if by_rate:
        set_slowdown(lab, server, requests_per_second=LIMIT_REQUESTS_PER_SECOND)
        share = f"more than {LIMIT_REQUESTS_PER_SECOND} requests a second"
    else:
        set_slowdown(lab, server, percent=SHARE_PERCENT)
        share = "half of the requests"
    return f"{share} to {url} are told to slow down{_as_config(lab, server, url)}"


def _thin(lab: Lab, server: str, *, on: bool) -> str:
    if not on:
        report = close_link(lab, server)
        return f"the link to {server} is gone: {report}" if report else f"there was no link to {server}"
    url = open_link(lab, server, megabits=THIN_MEGABITS, latency_ms=THIN_LATENCY_MS)
    words = f"{THIN_MEGABITS} Mbit/s, {THIN_LATENCY_MS} ms each way"
    return f"{url} leads to {server} over a link of {words}{_as_config(lab, server, url)}"


def _as_config(lab: Lab, server: str, url: str) -> str:
    """For the store that clients find by a file: the file that leads to this address."""
    return f"; CROSSLOAD_LAB_AWS_CONFIG={aws_config(lab, url)}" if server == "seaweedfs" else ""
