"""`page_text`: one file of HTML with everything in it; its parts lie beside this file.

draw.js draws, tracks.js lays out, page.js has the state, the player and the keys.

Its policy (CSP) lets a browser run this script and this style alone, and fetch nothing from anywhere.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import json
import re
from pathlib import Path

from hubcore.text import printable
from hubcore.version import VERSION
from hubcore.view.collect import View

_HERE = Path(__file__).parent
_POLICY = (
    "default-src 'none'; script-src {script}; style-src {style}; img-src data:; media-src blob:; base-uri 'none'; "
    "form-action 'none'"
)


def page_text(view: View) -> str:
    """The text of the page.

    Example:
        >>> "<title>fbank: a.wav</title>" in page_text(View("a.wav", "fbank", "", "", ("features",), ()))
        True
    """
    style = (_HERE / "page.css").read_text(encoding="utf-8")
    script = "".join((_HERE / name).read_text(encoding="utf-8") for name in ("draw.js", "page.js", "tracks.js"))
    # `ascii` writes what is no Unicode text, as a name of a file may be, as escapes; a `<` could end the element.
    data = json.dumps(_visible(dataclasses.asdict(view)), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    values = {
        "title": html.escape(printable(f"{view.upstream}: {view.source}")),
        "policy": html.escape(_POLICY.format(script=_hash(script), style=_hash(style)), quote=True).replace("&#x27;", "'"),
        "version": VERSION,
        "style": style,
        "script": script,
        "data": data,
    }
    template = (_HERE / "page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], template)


def _hash(text: str) -> str:
    """The source of a policy that allows exactly this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"


def _visible(value: object) -> object:
    """Plain data in whose texts all characters are visible, as names come from strangers."""
    if isinstance(value, dict):
        return {key: _visible(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_visible(item) for item in value]
    return printable(value) if isinstance(value, str) else value
