"""One file per server of the lab; each has a `SERVER` row (see `crossload.lab.spec`)."""
