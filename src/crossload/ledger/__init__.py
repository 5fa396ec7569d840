"""The spine's memory: evidence, step states, transfer journals, locks. SQLite, embedded."""
