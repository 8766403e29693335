"""python -m benchmarks [NAME ...] [--save FILE]: Choreo against a plain version of the published code, in one process.

Names: imports, drawing, extraction, sampling (with decoding), stableanimator (the same), magicpose, face_optimisation,
memory; without a name all of them. Ratios are published time over ours. Absolute times of a shared CPU mean little.
"""

from __future__ import annotations

import argparse
import importlib
import platform
from datetime import date
from pathlib import Path

import torch

NAMES = ("imports", "drawing", "extraction", "sampling", "stableanimator", "magicpose", "face_optimisation", "memory")


def machine() -> str:
    """The GPU's name, or the CPU and how many threads torch uses."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU ({platform.machine()}, {torch.get_num_threads()} threads)"


def table(name: str) -> str:
    """Run one benchmark; its figures as a Markdown table."""
    module = importlib.import_module(f".{name}", __package__)
    rows = [f"| {figure} | {value:,.3g} |" for figure, value in module.run().items()]
    return "\n".join([f"## {name}", "", "| figure | value |", "|---|---|", *rows, ""])


def main(arguments: list[str] | None = None) -> None:
    """Run benchmarks, print their tables, and save them when asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(NAMES)}; default all")
    parser.add_argument("--save", type=Path, metavar="FILE", help="also write the tables to this Markdown file")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"unknown benchmark {', '.join(sorted(unknown))}; known are {', '.join(NAMES)}")
    parts = [f"# {machine()}, torch {torch.__version__}, {date.today():%Y-%m-%d}\n"]
    print(parts[0], flush=True)
    for name in options.names or NAMES:
        parts.append(table(name))
        print(parts[-1], flush=True)
    if options.save:
        options.save.parent.mkdir(parents=True, exist_ok=True)
        options.save.write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
