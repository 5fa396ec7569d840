"""The mover: objects and vectors from one place to another, a digest for every byte, a journal that survives us."""
