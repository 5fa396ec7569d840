"""Faces for a browser: the report."""
