from __future__ import annotations

import sys

from crossload.lab.main import main

sys.exit(main())
