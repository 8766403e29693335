"""python -m tests.install hosts|oldest: installations that take minutes and gigabytes, so not part of the tests."""

from __future__ import annotations

import sys

from .hosts import check_hosts
from .oldest import check_oldest

CHECKS = {"hosts": check_hosts, "oldest": check_oldest}

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in CHECKS:
        sys.exit(__doc__)
    sys.exit(0 if CHECKS[sys.argv[1]]() else 1)
