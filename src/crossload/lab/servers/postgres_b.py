"""Cloud B's vector database."""

from __future__ import annotations

from crossload.lab.postgres import server

SERVER = server("b")
