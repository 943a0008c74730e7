"""Makes the ten FLAC clips of this folder from five Debian packages; run it to reproduce them, no test does.

It needs a Debian or Ubuntu `apt-get` and `dpkg-deb`, and PyAV, NumPy and soundfile (`pip install av numpy soundfile`).
G.722 is decoded to what it carries, 16 kHz mono 16-bit samples, and stored without loss: nothing is resampled or cut.

    python make_speech.py
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import av
import numpy as np
import soundfile

CLIPS = {
    "en_1": "en_US_f_Allison/tt-weasels",
    "en_2": "en_US_f_Allison/transfer",
    "es_1": "es_MX_f_Allison/dir-nomatch",
    "es_2": "es_MX_f_Allison/tt-monkeysintro",
    "fr_1": "fr_CA_f_June/pls-hold-while-try",
    "fr_2": "fr_CA_f_June/tt-weasels",
    "it_1": "it_IT_m_Carlo/tt-weasels",
    "it_2": "it_IT_m_Carlo/pls-hold-while-try",
    "ru_1": "ru_RU_f_IvrvoiceRU/conf-waitforleader",
    "ru_2": "ru_RU_f_IvrvoiceRU/pls-hold-while-try",
}
"""The clip's name, and the prompt's path below `/usr/share/asterisk/sounds` without its extension."""


def unpack(language: str, folder: Path) -> Path:
    """The sounds folder of one language's package, downloaded and unpacked below `folder` without installing it."""
    package = f"asterisk-core-sounds-{language}-g722"
    subprocess.run(["apt-get", "download", package], cwd=folder, check=True)
    archive = next(folder.glob(f"{package}_*.deb"))
    subprocess.run(["dpkg-deb", "-x", str(archive), str(folder / language)], check=True)
    return folder / language / "usr/share/asterisk/sounds"


def decode(path: Path) -> np.ndarray:
    """`(T,)` int16 samples at 16 kHz of a raw G.722 file."""
    with av.open(str(path), format="g722") as container:
        return np.concatenate([frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)])


def main() -> None:
    here = Path(__file__).parent
    with tempfile.TemporaryDirectory() as temporary:
        sounds = {language: unpack(language, Path(temporary)) for language in ("en", "es", "fr", "it", "ru")}
        for name, prompt in CLIPS.items():
            samples = decode(sounds[name[:2]] / f"{prompt}.g722")
            soundfile.write(here / f"{name}.flac", samples, 16000, subtype="PCM_16", compression_level=1.0)
            print(f"{name}.flac  {len(samples)} samples  {len(samples) / 16000:.2f} s")


if __name__ == "__main__":
    main()
