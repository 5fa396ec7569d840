"""Programs the lab runs as servers of its own; each is started by a row in `lab/servers/`."""
