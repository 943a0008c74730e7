"""Makes a small corpus of real speech: the Asterisk core prompts in five languages, 2 hours of 16 kHz FLAC.

apt-get download asterisk-core-sounds-{en,es,fr,it,ru}-g722
python -m hubcore_ofa_wav2vec2.bundled.make_prompts DEST asterisk-core-sounds-*-g722_*.deb

A source is a Debian package, or a folder that one was unpacked into. Needs PyAV (`pip install 'hubcore[av]'`), since
libsndfile reads no raw G.722, and for packages `dpkg-deb`. The result is `DEST/<language>/<name>.flac` and
`DEST/ATTRIBUTION.md`. The packages' `silence/` and empty files are left out. Existing files are not decoded again.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile

from hubcore.audio_ffmpeg import decode_with_ffmpeg
from hubcore.files import write_whole

PACKAGES = tuple(f"asterisk-core-sounds-{language}-g722" for language in ("en", "es", "fr", "it", "ru"))
"""The Debian packages that hold the prompts."""
SAMPLE_RATE = 16000
"""Hz; G.722 is wideband, so nothing is resampled."""
ATTRIBUTION = Path(__file__).with_name("ATTRIBUTION.md")
"""Who is to be named, after the packages' own copyright file; copied beside the audio."""
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
    """Decodes one G.722 file into a FLAC file, whole or not at all; returns its number of samples."""
    if target.exists():
        return int(soundfile.info(target).frames)
    samples, _ = decode_with_ffmpeg(str(source), str(source))
    target.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(target, durable=False) as temporary:
        soundfile.write(temporary, (samples[0] * 32768).astype(np.int16), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return len(samples[0])


def make(target: Path, sources: Sequence[Path]) -> dict[str, list[int]]:
    """Decodes every prompt of `sources` into `target`; returns the samples of each file by language."""
    made: dict[str, list[int]] = {}
    with tempfile.TemporaryDirectory() as unpacked, ThreadPoolExecutor(os.cpu_count()) as pool:
        for number, source in enumerate(sources):
            folder = source
            if source.is_file():
                folder = Path(unpacked, str(number))
                subprocess.run(["dpkg-deb", "-x", str(source), str(folder)], check=True)  # noqa: S603, S607
            found = [*prompts(folder)]
            if not found:
                raise SystemExit(f"{source} holds no prompt: files are looked for as sounds/<language>_*/**/*.g722.")
            counts = pool.map(lambda prompt: decode(prompt[1], target / f"{prompt[0]}.flac"), found)
            for (name, _), samples in zip(found, counts, strict=True):
                made.setdefault(name[:2], []).append(samples)
    shutil.copyfile(ATTRIBUTION, target / ATTRIBUTION.name)
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    get_them = f"The prompts come in Debian packages: apt-get download {' '.join(PACKAGES)}"
    parser = argparse.ArgumentParser(
        prog="python -m hubcore_ofa_wav2vec2.bundled.make_prompts",
        description="Decodes the Asterisk core prompts into DEST/<language>/<name>.flac, 16 kHz mono.",
        epilog=get_them,
    )
    parser.add_argument("dest", type=Path, metavar="DEST", help="the folder to fill")
    parser.add_argument("sources", type=Path, nargs="*", metavar="SOURCE", help="a .deb, or a folder one was unpacked into")
    options = parser.parse_args(arguments)
    missing = [str(source) for source in options.sources if not source.exists()]
    if missing or not options.sources:
        parser.error(f"{', '.join(missing)} does not exist. {get_them}" if missing else f"no source is given. {get_them}")
    if importlib.util.find_spec("av") is None:
        parser.error("PyAV, which decodes G.722, is not installed: pip install 'hubcore[av]'")
    if any(source.is_file() for source in options.sources) and shutil.which("dpkg-deb") is None:
        parser.error("dpkg-deb, which unpacks a .deb file, is not installed: name folders that they were unpacked into")
    made = make(options.dest, options.sources)
    for language, files in (*sorted(made.items()), ("all", [*itertools.chain.from_iterable(made.values())])):
        sys.stdout.write(f"{language}: {len(files)} prompts, {sum(files) / SAMPLE_RATE / 3600:.3f} h\n")


if __name__ == "__main__":
    main()
