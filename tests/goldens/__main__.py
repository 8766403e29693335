"""python -m tests.goldens DIR... [--topic NAME ...]: does Choreo reproduce the published implementations?"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from .walk import FAIL, NO_RUNNER, PASS, find_cases, run_case


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.goldens", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="holds <topic>/<case>.safetensors")
    parser.add_argument("--topic", action="append", default=[], help="only this topic; may be given again")
    options = parser.parse_args(arguments)
    counts: Counter[str] = Counter()
    for folder in options.folders:
        for case in find_cases(folder, options.topic):
            result = run_case(case)
            counts[result.status] += 1
            print(result, flush=True)
    print(f"{counts[PASS]} passed, {counts[FAIL]} failed, {counts[NO_RUNNER]} without runner")
    return 0 if counts[PASS] and counts[PASS] == counts.total() else 1


if __name__ == "__main__":
    sys.exit(main())
