"""`python -m hubcore` is the command `hubcore`; torchrun starts it so."""

from __future__ import annotations

from hubcore.cli import main

if __name__ == "__main__":
    main(prog_name="hubcore")
