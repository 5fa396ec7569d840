"""Crossload carries a team's AI workload from one cloud to another and proves that it arrived."""

__version__ = "0.1.0"
