"""Traffic: the same request to both arms, answers compared, and a verdict that may be looked at at any time.

No sockets here: callers hand in callables. Every verdict can be computed again from stored rows, which hold hashes and
scores and never a prompt or an answer. See docs/gateway.md, "Judging"."""
