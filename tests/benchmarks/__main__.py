"""`python -m tests.benchmarks [--quick] [NAME ...]`: measures sections, keeps their results, and writes the page of all."""

from __future__ import annotations

import importlib
import sys

from tests.benchmarks.measure import Section, sizes
from tests.benchmarks.page import keep, write_page

NAMES = (
    *("speed", "families", "layers", "memory", "compression", "fbank"),
    *("extraction", "loading", "large", "imports", "listing", "training", "precision", "gpu"),
)
ON_REQUEST = ("chunks", "instructions")
"""Measured only where they are named, since they take long."""


def main(arguments: list[str]) -> None:
    """Measures the sections named, or all of `NAMES`."""
    sizes(quick="--quick" in arguments)
    names = [name for name in arguments if name != "--quick"]
    for name in names or NAMES:
        if name not in NAMES + ON_REQUEST:
            sys.exit(f"there is no benchmark called {name!r}; there are {', '.join(NAMES + ON_REQUEST)}")
    for name in names or NAMES:
        print(f"== {name}", flush=True)
        result = importlib.import_module(f"tests.benchmarks.{name}").run()
        section = result if isinstance(result, Section) else Section(name.capitalize(), result)
        keep(name, section)
        print(section.text, end="\n\n", flush=True)
    print(f"written: {write_page(NAMES + ON_REQUEST)}")


if __name__ == "__main__":
    main(sys.argv[1:])
