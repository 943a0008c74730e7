"""What the conformance tests of the families share: names that need no download, and an exemption of all transformers."""

from __future__ import annotations

from hubcore.registry.names import current_registry

EXEMPT = {
    # So a key bias has no influence but through rounding.
    "gradients_nonzero:*.k_proj.bias": "softmax is blind to a constant added to all keys' scores: the true gradient is zero",
}


def registered(family: str) -> list[str]:
    """The names of a family that need neither a download nor a checkpoint of the caller's."""
    cards = [entry.card for entry in current_registry().entries if entry.card and entry.card.upstream == family]
    needless = [card.name for card in cards if card.license == "none needed"]
    bundled = [card.name for card in cards if any(source.uri.startswith("package://") for source in card.sources)]
    return needless + bundled
