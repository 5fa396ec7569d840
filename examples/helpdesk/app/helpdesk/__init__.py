"""Answers questions about the documents in a bucket, with a language model."""

__version__ = "1.4.0"
