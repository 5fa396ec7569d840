"""Is the target as safe as the source was? Comparison line by line, residency, and real attacks with controls."""
