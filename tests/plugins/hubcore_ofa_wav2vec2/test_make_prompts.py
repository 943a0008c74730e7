"""`make_prompts`: which files it takes, what it says to whom it cannot help, and that it decodes."""

from __future__ import annotations

import importlib
import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from hubcore_ofa_wav2vec2.bundled import make_prompts


def test_which_files_are_prompts(tmp_path: Path) -> None:
    sounds = tmp_path / "usr/share/asterisk/sounds"
    for name in (
        "en_US_f_Allison/digits/1.g722",
        "en_US_f_Allison/silence/1.g722",
        "ru_RU_f_IvrvoiceRU/hello.g722",
        "ru_RU_f_IvrvoiceRU/hello.wav",
        "other/hello.g722",
    ):
        (sounds / name).parent.mkdir(parents=True, exist_ok=True)
        (sounds / name).write_bytes(b"sound")
    (sounds / "ru_RU_f_IvrvoiceRU/empty.g722").touch()
    assert [name for name, _ in make_prompts.prompts(tmp_path)] == ["en/digits/1", "ru/hello"]


def test_it_says_what_to_download(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for sources in ([], [str(tmp_path / "missing.deb")]):
        with pytest.raises(SystemExit) as exit:
            make_prompts.main([str(tmp_path), *sources])
        assert exit.value.code == 2
        said = capsys.readouterr().err
        assert all(f"asterisk-core-sounds-{language}-g722" in said for language in ("en", "es", "fr", "it", "ru"))


def test_it_says_what_to_install(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        make_prompts.main([str(tmp_path), str(tmp_path)])
    assert "pip install 'hubcore[av]'" in capsys.readouterr().err


def test_every_voice_is_named() -> None:
    for name in ("Allison Smith", "June Wallack", "Carlo Flora", "Maxim Topal", "by-sa/3.0", "by/3.0"):
        assert name in make_prompts.ATTRIBUTION.read_text("utf-8")


@pytest.mark.skipif(importlib.util.find_spec("av") is None, reason="PyAV, which is no requirement of hubcore, is not installed")
def test_prompts_are_decoded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    av: Any = importlib.import_module("av")
    source = tmp_path / "in/sounds/fr_CA_f_June/a.b.g722"
    source.parent.mkdir(parents=True)
    tone = (8000 * np.sin(np.arange(16000) * 0.2)).astype(np.int16)
    with av.open(os.fspath(source), "w", format="g722") as container:
        stream = container.add_stream("g722", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
        frame.sample_rate = 16000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    make_prompts.main([str(tmp_path / "out"), str(tmp_path / "in")])
    decoded, rate = soundfile.read(tmp_path / "out/fr/a.b.flac", dtype="int16")
    assert rate == 16000 and abs(len(decoded) - 16000) < 400
    loudest = int(np.abs(np.fft.rfft(decoded[2000:14000])).argmax())
    assert loudest / 12000 * 2 * np.pi == pytest.approx(0.2, abs=1e-3)
    assert "all: 1 prompts, 0.000 h" in capsys.readouterr().out
    assert (tmp_path / "out/ATTRIBUTION.md").read_text(encoding="utf-8") == make_prompts.ATTRIBUTION.read_text("utf-8")
