"""One file per check or attack; the folder is the list. A file holds `RULE`, a Comparison or an Attack."""
