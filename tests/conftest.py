"""What every test gets: an own cache and configuration, no network, and a registry that forgets between tests."""

from __future__ import annotations

import functools
import gc
import os
import socket
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from hubcore import hooks
from hubcore.card import Card
from hubcore.errors import RegistryError
from hubcore.registry import names as registry
from hubcore.registry.reading import read_registry

Installer = Callable[..., Path]
CardWriter = Callable[..., Path]

# The models of the tests are so small that several threads only wait for each other. Processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collects without garbage collection, which would search thousands of tests again and again. Later ones skip them."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks slow what proves the same again: of each file, `make check` runs the kit on one upstream and one gold file."""
    first: dict[tuple[str, str], str] = {}
    for item in items:
        if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
            if {"upstream", "check"} <= set(item.fixturenames):
                title = item.callspec.id.rpartition("-")[0]
            elif item.originalname == "test_alone_and_in_every_ragged_batch_the_originals_numbers":
                title = item.callspec.id
            else:
                continue
            if first.setdefault((str(item.path), item.originalname), title) != title:
                item.add_marker(pytest.mark.slow)


@functools.cache
def _own_cards(path: Path, distribution: str | None) -> tuple[list[Card], list[RegistryError]]:
    return read_registry(path, distribution)


def _kept_registry(path: Path, distribution: str | None = None) -> tuple[list[Card], list[RegistryError]]:
    """`read_registry`, which reads hubcore's own file once: that is most of what a first `hub.load` of a test would take."""
    read = _own_cards if path == registry.own_registry_file() else read_registry
    cards, errors = read(path, distribution)
    return list(cards), list(errors)


@pytest.fixture(autouse=True)
def _own_environment(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HUBCORE_CACHE", str(home / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    monkeypatch.setenv("HF_HOME", str(home / "hf"))
    monkeypatch.setattr(registry, "read_registry", _kept_registry)
    for name in ("HUBCORE_REGISTRY", "HUBCORE_OFFLINE", "HF_HUB_OFFLINE", "HUBCORE_DISABLE_PLUGINS"):
        monkeypatch.delenv(name, raising=False)
    registry.refresh()
    hooks.refresh()
    yield
    registry.refresh()
    hooks.refresh()


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anything but this machine's own loopback address is an error."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else "127.0.0.1"
        if host not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"tests use no network, but {host} was called")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CardWriter:
    """Writes records, one in each line of YAML, as the user's only registry file; what is written last counts."""
    path = tmp_path / "cards.yaml"

    def run(*records: str) -> Path:
        path.write_text("".join(f"{line}\n" for line in ("version: 1", "upstreams:", *(f"  {record}" for record in records))))
        monkeypatch.setenv("HUBCORE_REGISTRY", str(path))
        registry.refresh()
        return path

    return run


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installer]:
    """Installs a distribution that exists for one test: metadata, entry points and files, on `sys.path`."""

    def run(name: str, *, entry_points: str | bytes = "", files: dict[str, str] | None = None, version: str = "1.0") -> Path:
        root = tmp_path / f"site-{name}"
        info = root / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        data = entry_points.encode() if isinstance(entry_points, str) else entry_points
        (info / "entry_points.txt").write_bytes(data)
        for path, text in (files or {}).items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        monkeypatch.syspath_prepend(str(root))
        registry.refresh()
        hooks.refresh()
        return root

    yield run
    for module in [name for name, m in sys.modules.items() if str(getattr(m, "__file__", "")).startswith(str(tmp_path))]:
        del sys.modules[module]
