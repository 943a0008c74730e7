"""Chromium without a window, driven by ChromeDriver's HTTP protocol (W3C WebDriver): no package is needed."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver (Debian: apt install chromium-driver)"
)
FLAGS = [
    "--headless",
    "--no-sandbox",  # as root in a container
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
KEYS = {"left": "\ue012", "right": "\ue014", "escape": "\ue00c", "home": "\ue011", "end": "\ue010"}


class Browser:
    """One session of a browser."""

    def __init__(self, address: str, session: str) -> None:
        self._address = f"{address}/session/{session}"

    def open(self, file: Path) -> None:
        self._post("url", url=file.absolute().as_uri())

    def run(self, script: str, *arguments: Any) -> Any:
        """The value that a script returns."""
        return self._post("execute/sync", script=script, args=[*arguments])

    def text(self, selector: str) -> str:
        return str(self.run("return document.querySelector(arguments[0]).textContent", selector))

    def state(self, name: str) -> str:
        """What the page says of itself: time, layer, utterance, playing, stop, view."""
        return str(self.run("return document.body.dataset[arguments[0]]", name))

    def click(self, selector: str, x: float = 0.5, y: float = 0.5, to: float | None = None) -> None:
        """Presses an element at a share of its width and height; drags to another share of the width."""
        box = self.run(
            "const e = document.querySelector(arguments[0]); e.scrollIntoView({block: 'center'});"
            "const b = e.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]",
            selector,
        )

        def place(share: float) -> dict[str, Any]:
            at = {"x": round(box[0] + share * box[2]), "y": round(box[1] + y * box[3])}
            return {"type": "pointerMove", "duration": 0, "origin": "viewport", **at}

        moves = [place(x), {"type": "pointerDown", "button": 0}]
        moves += [place(to)] if to is not None else []
        self._act("pointer", [*moves, {"type": "pointerUp", "button": 0}], parameters={"pointerType": "mouse"})

    def press(self, keys: str) -> None:
        """Types keys, one by one."""
        self._act("key", [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")])

    def wait(self, condition: str, seconds: float = 10.0) -> None:
        """Waits until an expression is true."""
        end = time.monotonic() + seconds
        while not self.run(f"return Boolean({condition})"):
            assert time.monotonic() < end, f"{condition} is not true after {seconds} s"
            time.sleep(0.05)

    def resize(self, width: int, height: int, *, phone: bool = False) -> None:
        """Makes the page as large as a window or, narrower than a window can be, as a phone's."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        self._post("goog/cdp/execute", cmd="Emulation.setDeviceMetricsOverride", params=metrics)

    def prefer(self, scheme: str) -> None:
        """Says that the user likes pages `light` or `dark`."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._post("goog/cdp/execute", cmd="Emulation.setEmulatedMedia", params={"features": features})

    def screenshot(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(self._request("GET", "screenshot")))

    def complaints(self) -> list[str]:
        """What the browser wrote to its console, errors and warnings."""
        return [entry["message"] for entry in self._post("se/log", type="browser") if entry["level"] in ("SEVERE", "WARNING")]

    def close(self) -> None:
        self._request("DELETE", "")

    def _act(self, kind: str, actions: list[dict[str, Any]], **more: Any) -> None:
        self._post("actions", actions=[{"type": kind, "id": kind, "actions": actions, **more}])

    def _post(self, path: str, **body: Any) -> Any:
        return self._request("POST", path, body)

    def _request(self, method: str, path: str, body: Any = None) -> Any:
        return _request(method, f"{self._address}/{path}".rstrip("/"), body)


def _request(method: str, address: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"}, method=method)
    # No proxy: the driver is on this machine.
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as response:
        return json.load(response)["value"]


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """A browser with a new profile, and its driver; both are gone afterwards."""
    assert CHROMIUM and DRIVER
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
        subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, text=True) as driver,
    ):
        try:
            assert driver.stdout
            port = next(
                line.rsplit(" ", 1)[1].strip(" .\n") for line in driver.stdout if "started successfully on port" in line
            )
            options = {"binary": CHROMIUM, "args": [*FLAGS, f"--user-data-dir={profile}"]}
            wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            address = f"http://127.0.0.1:{port}"
            session = _request("POST", f"{address}/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
            opened = Browser(address, session)
            try:
                yield opened
            finally:
                opened.close()
        finally:
            driver.terminate()
