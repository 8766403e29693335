from __future__ import annotations

import sys
from pathlib import Path

from . import pack

if __name__ == "__main__":
    pack(Path(sys.argv[1]))
