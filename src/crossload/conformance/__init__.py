"""Contract tests: one suite per port. pytest runs them, and so does whoever wants to know a provider before using it.

A case is a plain function that is handed a bench (how to open the port, where to work) and raises `Broken` when a
promise of the port is not kept, or `NotOffered` when the provider says it does not make that promise."""
