"""`python -m crossload` is `crossload`."""

from crossload.cli.main import main

main()
