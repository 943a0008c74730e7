"""Fifty distributions as third parties publish them: a family, a registry file and hooks each."""

from __future__ import annotations

from pathlib import Path

from tests.packaging.broken_plugins.distribution import Distribution, pip_install

COUNT = 50
CARDS = 4
"""Cards of each distribution."""
MODULE = "raise RuntimeError('imported')\n"


def distribution(number: int) -> Distribution:
    """One of them; whoever imports any of it is told off."""
    package = f"many_{number}"
    cards = "".join(
        f"  many_{number}_card_{card}:\n    upstream: many_{number}\n    aliases: [many_{number}_alias_{card}]\n"
        f"    license: MIT\n    config: base\n    training_data: LibriSpeech 960 h\n    sources:\n"
        f'    - {{uri: "https://example.org/{number}/{card}.pt", sha256: null, size: null}}\n'
        for card in range(CARDS)
    )
    return Distribution(
        f"many-{number}",
        {
            f"{package}/__init__.py": MODULE,
            f"{package}/upstream.py": MODULE,
            f"{package}/hooked.py": MODULE,
            f"{package}/cards.yaml": f"version: 1\nupstreams:\n{cards}",
        },
        {
            "hubcore.upstreams": {package: f"{package}.upstream:Upstream{number}"},
            "hubcore.registries": {package: f"{package}:cards.yaml"},
            "hubcore": {package: f"{package}.hooked"},
        },
        requires=("hubcore", "numpy"),
    )


def install_many(folder: Path, count: int = COUNT) -> Path:
    """A folder into which pip has installed them."""
    wheels = folder / "wheels"
    wheels.mkdir(parents=True)
    site = folder / "site"
    pip_install([distribution(number).write_wheel(wheels) for number in range(count)], site, "--no-compile")
    return site
