"""`python -m tests.benchmarks [NAME ...]`: prints the tables."""

from __future__ import annotations

import importlib
import sys

NAMES = ("loading", "large", "throughput", "compression", "listing", "training", "families", "gpu")


def main(names: list[str]) -> None:
    """Runs the benchmarks named, all of them if none is."""
    for name in names or NAMES:
        if name not in NAMES:
            sys.exit(f"there is no benchmark called {name!r}; there are {', '.join(NAMES)}")
        print(f"== {name}", flush=True)
        print(importlib.import_module(f"tests.benchmarks.{name}").run(), end="\n\n", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
