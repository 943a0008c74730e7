"""Makes a small corpus of real speech: the Asterisk core prompts in five languages, 2 hours of 16 kHz FLAC.

apt-get download asterisk-core-sounds-{en,es,fr,it,ru}-g722
python -m hubcore_ofa_wav2vec2.bundled.make_prompts DEST asterisk-core-sounds-*-g722_*.deb

A source is a Debian package, or a folder that one was unpacked into. Needs PyAV (`pip install av`), since libsndfile reads
no raw G.722, and for packages `dpkg-deb`. The result is `DEST/<language>/<name>.flac` and `DEST/ATTRIBUTION.md`. The
packages' `silence/` and empty files are left out. Existing files are not decoded again.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

LANGUAGES = ("en", "es", "fr", "it", "ru")
"""The languages, which are the folders made and the middle of the packages' names."""

PACKAGES = tuple(f"asterisk-core-sounds-{language}-g722" for language in LANGUAGES)
"""The Debian packages that hold the prompts."""

SAMPLE_RATE = 16000
"""Hz; G.722 is wideband, so nothing is resampled."""

ATTRIBUTION = """# Where this speech comes from

The voice prompts of the Asterisk telephone exchange, version 1.6.1, as Debian distributes them in the packages
asterisk-core-sounds-{en,es,fr,it,ru}-g722 (source: <http://downloads.asterisk.org/pub/telephony/asterisk/>).
Change made here: decoded from G.722 to 16-bit FLAC.

| folder | voice | copyright | licence |
|---|---|---|---|
| en | Allison Smith, <http://www.theivrvoice.com> | 2003-2010, Allison Smith | CC BY-SA 3.0 |
| es | Allison Smith, <http://www.theivrvoice.com> | 2003-2010, Allison Smith | CC BY-SA 3.0 |
| fr | June Wallack, <http://www.junewallack.com> | 2006-2008, June Wallack | CC BY-SA 3.0 |
| it | Carlo Flora, <http://www.carloflora.com> | 2012, Carlo Flora, <http://www.segreterietelefoniche.it> | CC BY 3.0 |
| ru | provided by Maxim Topal, <http://www.ivrvoice.ru> | 2010, Maxim | CC BY 3.0 |

The translations are by Clod Patry, Kristopher Lalletti and June Wallack (fr) and Silvia Petrin (it). Financial
contributions: Digium, Inc. (en, es, fr), Unlimitel and BGM Informatique (fr).
Licences: <https://creativecommons.org/licenses/by-sa/3.0/legalcode>, <https://creativecommons.org/licenses/by/3.0/legalcode>.
"""
"""Who is to be named, after the packages' own copyright file; written beside the audio."""

_PROMPT = re.compile(r"(?:^|/)sounds/(?P<language>[a-z]{2})_[^/]+/(?P<name>.+)\.g722$")


def prompts(folder: Path) -> Iterator[tuple[str, Path]]:
    """The prompts below a folder that packages were unpacked into, as (`<language>/<name>`, file), sorted by file.

    Example:
        >>> root = Path(tempfile.mkdtemp())
        >>> for name in ("en_US_f_Allison/digits/1.g722", "en_US_f_Allison/silence/1.g722"):
        ...     (root / "sounds" / name).parent.mkdir(parents=True)
        ...     _ = (root / "sounds" / name).write_bytes(b"sound")
        >>> [name for name, _ in prompts(root)]
        ['en/digits/1']
    """
    for path in sorted(folder.rglob("*.g722")):
        match = _PROMPT.search(path.as_posix())
        if match and not match["name"].startswith("silence/") and path.stat().st_size:
            yield f"{match['language']}/{match['name']}", path


def decode(source: Path, target: Path) -> int:
    """Decodes one G.722 file into a FLAC file, in one step; returns its number of samples at 16 kHz."""
    if target.exists():
        return int(soundfile.info(target).frames)
    av: Any = importlib.import_module("av")
    with av.open(str(source), format="g722") as container:
        blocks = [frame.to_ndarray() for frame in container.decode(audio=0)]
        rate = container.streams.audio[0].rate
    samples = np.concatenate(blocks, axis=-1).reshape(-1)
    if rate != SAMPLE_RATE or samples.dtype != np.int16:
        raise SystemExit(f"{source} was decoded as {rate} Hz {samples.dtype}, not as {SAMPLE_RATE} Hz int16.")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    soundfile.write(partial, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    os.replace(partial, target)
    return len(samples)


def make(target: Path, sources: Sequence[Path]) -> dict[str, tuple[int, int]]:
    """Decodes every prompt of `sources` into `target`; returns (files, samples) by language."""
    files: Counter[str] = Counter()
    samples: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as unpacked:
        for number, source in enumerate(sources):
            folder = source
            if source.is_file():
                folder = Path(unpacked, str(number))
                subprocess.run(["dpkg-deb", "-x", str(source), str(folder)], check=True)  # noqa: S603, S607
            found = list(prompts(folder))
            if not found:
                raise SystemExit(f"{source} holds no prompt: files are looked for as sounds/<language>_*/**/*.g722.")
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                counts = pool.map(lambda item: decode(item[1], target / f"{item[0]}.flac"), found)
                for (name, _), count in zip(found, counts, strict=True):
                    files[name[:2]] += 1
                    samples[name[:2]] += count
    (target / "ATTRIBUTION.md").write_text(ATTRIBUTION, encoding="utf-8")
    return {language: (files[language], samples[language]) for language in sorted(files)}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m hubcore_ofa_wav2vec2.bundled.make_prompts",
        description="Decodes the Asterisk core prompts into DEST/<language>/<name>.flac, 16 kHz mono.",
        epilog=f"The packages: apt-get download {' '.join(PACKAGES)}",
    )
    parser.add_argument("dest", type=Path, metavar="DEST", help="the folder to fill")
    parser.add_argument("sources", type=Path, nargs="*", metavar="SOURCE", help="a .deb, or a folder one was unpacked into")
    options = parser.parse_args(arguments)
    missing = [str(source) for source in options.sources if not source.exists()]
    if missing or not options.sources:
        problem = f"{', '.join(missing)} does not exist" if missing else "no source is given"
        parser.error(f"{problem}. The prompts come in Debian packages: apt-get download {' '.join(PACKAGES)}")
    if importlib.util.find_spec("av") is None:
        parser.error("PyAV, which decodes G.722, is not installed: pip install av")
    if any(source.is_file() for source in options.sources) and shutil.which("dpkg-deb") is None:
        parser.error("dpkg-deb, which unpacks a .deb file, is not installed: name folders that they were unpacked into")
    made = make(options.dest, options.sources)
    for language, (files, samples) in made.items():
        sys.stdout.write(f"{language}: {files} prompts, {samples / SAMPLE_RATE / 3600:.3f} h\n")
    files, samples = (sum(column) for column in zip(*made.values(), strict=True))
    sys.stdout.write(f"all: {files} prompts, {samples / SAMPLE_RATE / 3600:.3f} h, in {options.dest}\n")


if __name__ == "__main__":
    main()
