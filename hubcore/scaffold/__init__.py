"""Files of `hubcore plugin new`: the templates in `files/`, and `new_plugin`, which fills them in."""

from __future__ import annotations

from hubcore.scaffold.new import new_plugin

__all__ = ["new_plugin"]
