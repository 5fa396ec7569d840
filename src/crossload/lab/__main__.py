"""`python -m crossload.lab`: the lab without the rest of the program."""

from __future__ import annotations

import sys

from crossload.lab.main import main

sys.exit(main())
