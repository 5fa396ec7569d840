"""The embedding model MiniLM: tokens and vectors."""
