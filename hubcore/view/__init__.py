"""`hubcore view`: utterances, their layers, units and segments on one page that needs nothing but a browser.

`collect_view` gathers what a page shows, and `page_text` makes the text of the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubcore.lazy import lazy_exports

if TYPE_CHECKING:
    from hubcore.view.collect import Shown as Shown
    from hubcore.view.collect import View as View
    from hubcore.view.collect import collect_view as collect_view
    from hubcore.view.page import page_text as page_text

__getattr__, __dir__ = lazy_exports(__name__)
