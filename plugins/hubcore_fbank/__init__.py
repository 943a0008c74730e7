"""Signal transforms as hubcore upstreams: Kaldi filter banks, MFCC, spectrograms, and STFT features.

Importing this package imports no torch until a name that needs it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubcore.lazy import lazy_exports

if TYPE_CHECKING:
    from hubcore_fbank.config import CONFIGS as CONFIGS
    from hubcore_fbank.config import FbankConfig as FbankConfig
    from hubcore_fbank.upstream import FbankUpstream as FbankUpstream

__getattr__, __dir__ = lazy_exports(__name__)
