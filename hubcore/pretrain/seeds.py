"""`derive_seed`: every random decision of a run has a seed of its own, made from the run's seed and from what it decides.

Nothing random depends on what was drawn before, on which process draws it, or on how many there are. A run that resumes
therefore needs no saved generator.
"""

from __future__ import annotations

import hashlib


def derive_seed(*parts: int | str) -> int:
    """A seed from 0 to 2^32 - 1, which every generator in use takes; other parts give, but for chance, another seed.

    Example:
        >>> derive_seed(1, "batch", 7) == derive_seed(1, "batch", 7), derive_seed(1, "batch", 7) == derive_seed(1, "batch", 8)
        (True, False)
    """
    text = "\0".join(f"{type(part).__name__} {part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little")
