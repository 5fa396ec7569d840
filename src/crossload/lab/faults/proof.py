"""What every fault may raise."""

from __future__ import annotations


class FaultDidNotFire(AssertionError):
    """The fault was set but did not happen: the test around it proved nothing."""


class FaultUnavailable(RuntimeError):
    """This machine cannot make the fault; the text says why. Tests skip with it."""
