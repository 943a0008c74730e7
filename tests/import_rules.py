"""The rules of pyproject.toml on who may import whom, checked: `python tests/import_rules.py [folder of a checkout]`.

It is `lint-imports` with every folder of `plugins/`: one that pyproject.toml does not name is built on no other.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from importlinter.application import use_cases
from importlinter.application.rendering import render_report
from importlinter.configuration import configure


def check(root: Path) -> bool:
    """Whether a checkout keeps the rules; prints what does not."""
    configure()
    use_cases._register_built_in_contract_types()
    options = use_cases.read_user_options(str(root / "pyproject.toml"))
    roots: list[str] = options.session_options["root_packages"]
    unnamed = [path.name for path in sorted((root / "plugins").glob("hubcore_*")) if path.name not in roots]
    contracts: dict[str, dict[str, Any]] = {contract["id"]: contract for contract in options.contracts_options}
    roots += unnamed
    contracts["circles"]["ancestors"] += unnamed
    contracts["plugins"]["layers"][1] = " | ".join([contracts["plugins"]["layers"][1], *unnamed])
    sys.path[:0] = [str(root), str(root / "plugins")]
    report = use_cases.create_report(options, cache_dir=None)
    render_report(report)
    return not report.contains_failures


if __name__ == "__main__":
    sys.exit(not check(Path(sys.argv[1]).resolve() if sys.argv[1:] else Path(__file__).parents[1]))
