"""Two clouds on one machine: real servers on 127.0.0.1, started, probed and stopped by one supervisor.

The public names are `Lab` and `ServerStatus` here, and the context managers in `crossload.lab.faults`.
Everything in this room is standard library plus the wheels of the `lab` extra; it imports no other room.
"""

from __future__ import annotations

from crossload.lab.lab import Lab, LabError, ServerStatus, default_home

__all__ = ["Lab", "LabError", "ServerStatus", "default_home"]
