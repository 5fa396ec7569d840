"""The house's rules are derived from the code: `import source_tree` finds the walker beside this file."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
