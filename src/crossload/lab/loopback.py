"""HTTP to the servers of this machine."""

from __future__ import annotations

import urllib.request

# Proxies of the environment must never carry a loopback call elsewhere.
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
