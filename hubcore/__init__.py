"""hubcore: self-supervised speech upstreams by name or by class, one uniform call, exact features.

Importing this package imports no torch: every public name is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubcore.lazy import lazy_exports
from hubcore.version import VERSION

if TYPE_CHECKING:
    from hubcore import audio as audio
    from hubcore import batching as batching
    from hubcore import errors as errors
    from hubcore import hub as hub
    from hubcore import testing as testing
    from hubcore.card import Card as Card
    from hubcore.card import Source as Source
    from hubcore.errors import HubcoreError as HubcoreError
    from hubcore.featurizer import Featurizer as Featurizer
    from hubcore.hookspecs import hookimpl as hookimpl
    from hubcore.protocol import Upstream as Upstream
    from hubcore.protocol import UpstreamOutput as UpstreamOutput
    from hubcore.upstream import UpstreamBase as UpstreamBase

__version__ = VERSION
__getattr__, __dir__ = lazy_exports(__name__)
