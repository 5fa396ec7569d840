"""The engines: each usable alone as a library, none imports another."""
