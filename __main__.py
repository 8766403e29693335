"""python -m choreo …: the same as the command `choreo`."""

from __future__ import annotations

import sys


def main() -> int:
    """The command line, or how to get it when its packages are missing."""
    try:
        from .cli import main as run
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("choreo"):
            raise
        print(
            f"choreo: the command line needs the Python package {error.name}, which is not installed; "
            'install Choreo with its extra: pip install "comfyui-choreo[cli]".',
            file=sys.stderr,
        )
        return 1
    return run()


if __name__ == "__main__":
    sys.exit(main())
