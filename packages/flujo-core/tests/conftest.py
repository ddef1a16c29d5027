"""Puts this folder on the path, so that tests may share modules that lie beside them (`fuzz_*.py`)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
