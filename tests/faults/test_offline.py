"""Offline: no socket is opened, a hit works, a miss says which file and which command."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import NoReturn

import pytest

from hubcore import hub
from hubcore.card import Source
from hubcore.errors import OfflineError
from hubcore.registry import names as registry
from hubcore.sources import resolve as sources
from tests.faults.cases import Case, Cases
from tests.faults.http_server import BODY, Answer
from tests.faults.test_hugging_face import NAME, HubLab, a_hub_lab

cases = Cases()
pytest_generate_tests = cases.generate
VARIABLES = ("HUBCORE_OFFLINE", "HF_HUB_OFFLINE")


def test_case(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    with a_hub_lab(tmp_path, monkeypatch, caplog) as lab:
        case.run(lab)


def forbid_sockets(lab: HubLab, variable: str) -> None:
    """Sets a variable that means offline, and makes every use of a socket an error of its own kind."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a socket was used")

    for name in VARIABLES:
        lab.monkeypatch.delenv(name, raising=False)
    lab.monkeypatch.setenv(variable, "1")
    lab.monkeypatch.setattr(socket, "getaddrinfo", refuse)
    lab.monkeypatch.setattr(socket, "create_connection", refuse)
    for method in ("connect", "connect_ex", "bind", "sendto"):
        lab.monkeypatch.setattr(socket.socket, method, refuse)


@cases(
    "offline, and the file of an address is not cached",
    "`OfflineError` at once with the command that fetches it, no request",
)
def case_offline_address(lab: HubLab) -> None:
    there, missing = lab.server.answers(Answer()), lab.server.answers(Answer(), path="/missing")
    assert lab.get(there, None) == BODY
    before = len(lab.server.log)
    for variable in VARIABLES:
        forbid_sockets(lab, variable)
        assert sources.resolve(there).read_bytes() == BODY
        with pytest.raises(OfflineError, match=f"{missing} is not in the cache .*`hubcore fetch {missing}`"):
            sources.resolve(missing)
        with pytest.raises(OfflineError, match=r"any of its 2 sources(.|\n)*`hubcore fetch a_card`"):
            lab.fetch(Source(missing), Source(f"hf://org/repo@main/{NAME}"))
    assert len(lab.server.log) == before and lab.hub.log == []


@cases("offline, and a file of the hub is cached or not", "used; `OfflineError` at once with the command that fetches it")
def case_offline_hub(lab: HubLab) -> None:
    for uri in (lab.uri, lab.fixed, "hf://org/repo"):
        sources.resolve(uri)
    before = len(lab.hub.log)
    for variable in VARIABLES:
        forbid_sockets(lab, variable)
        assert sources.resolve(lab.uri).read_bytes() == sources.resolve(lab.fixed).read_bytes() == BODY
        assert (sources.resolve("hf://org/repo") / NAME).read_bytes() == BODY
        missing = "hf://org/repo@main/model.bin"
        with pytest.raises(OfflineError, match=f"{missing} is not in the cache .*`hubcore fetch {missing}`"):
            sources.resolve(missing)
    assert len(lab.hub.log) == before


def test_listing_and_describing_open_no_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with a_hub_lab(tmp_path, monkeypatch, caplog) as lab:
        forbid_sockets(lab, "HUBCORE_OFFLINE")
        monkeypatch.delenv("HUBCORE_OFFLINE")
        registry.refresh()
        assert all(hub.info(name).cached is None for name in hub.list() if name in ("wav2vec2_base_960", "fbank"))
