"""Aligns English speech with its text by pocketsphinx, and writes phones as CTM; run it to make `phones.ctm` again.

It needs hubcore with PyAV, and pocketsphinx 5 with its en-us model and dictionary (`pip install pocketsphinx "hubcore[av]"`).

    python make_phones.py                               # the two English clips of this folder
    python make_phones.py FOLDER TRANSCRIPT.txt OUT.ctm

Each line of a transcript is `name: text`, as in core-sounds-en.txt, which comes with the prompts of the Asterisk project
(asterisk-core-sounds-en-*.tar.gz at <http://downloads.asterisk.org/pub/telephony/sounds/>). A line that begins with `;`, a text
without words, and a name without a file are left out.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
from pocketsphinx import Decoder, get_model_path

from hubcore.audio import find_audio, load_audio

HERE = Path(__file__).parent
TEXTS = "en_1: Weasels have eaten our phone system\nen_2: Please hold while I try that extension.\n"
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
RATE, PAD = 16000, 0.1  # silence before and after, as prompts begin at once
MORE_WORDS = """
backtick B AE K T IH K
caret K EH R AH T
digium D IH JH IY AH M
forevermore F ER EH V ER M AO R
ivr AY V IY AA R
lowercase L OW ER K EY S
pbx P IY B IY EH K S
prepend P R IY P EH N D
prepending P R IY P EH N D IH NG
rerecord R IY R IH K AO R D
semicolon S EH M IY K OW L AH N
undelete AH N D IH L IY T
undeleted AH N D IH L IY T AH D
unmute AH N M Y UW T
unmuted AH N M Y UW T AH D
uppercase AH P ER K EY S
waldo's W AO L D OW Z
www D AH B AH L Y UW D AH B AH L Y UW D AH B AH L Y UW
"""
"""Words of the prompts that may be missing from the dictionary."""


def words_of(text: str) -> list[str]:
    """Words of a transcript without its remarks in brackets; digits are spelled out."""
    found = re.findall(r"[a-z']+|\d", re.sub(r"\[.*?\]|\(.*?\)", " ", text.lower()))
    return [DIGITS[int(word)] if word.isdigit() else word for word in found if word != "'"]


def make_decoder(dictionary: str) -> Decoder:
    known = {line.split()[0] for line in Path(dictionary).read_text("utf-8").splitlines()}
    model = get_model_path("en-us/en-us")
    beams = {"beam": 1e-100, "wbeam": 1e-80, "pbeam": 1e-100}
    decoder = Decoder(hmm=model, dict=dictionary, loglevel="FATAL", bestpath=False, **beams)
    for line in MORE_WORDS.strip().splitlines():
        word, _, phones = line.partition(" ")
        if word not in known:
            decoder.add_word(word, phones, False)
    return decoder


def run(decoder: Decoder, sound: bytes) -> None:
    decoder.start_utt()
    decoder.process_raw(sound, no_search=False, full_utt=True)
    decoder.end_utt()


def align(decoder: Decoder, samples: np.ndarray, words: list[str]) -> list[tuple[float, float, str]]:
    """Start, end and label of each phone; first the words find their places, then their states."""
    silence = np.zeros(int(PAD * RATE), np.int16)
    sound = np.concatenate([silence, samples, silence]).tobytes()
    decoder.set_align_text(" ".join(words))
    run(decoder, sound)
    found = [re.sub(r"\(\d+\)$", "", segment.word) for segment in decoder.seg()]
    if [word for word in found if word[0] not in "<[("] != words:
        raise RuntimeError(f"only {found} were found")
    decoder.set_alignment()
    run(decoder, sound)
    phones = []
    for word in decoder.get_alignment():
        for phone in word:
            start, end = phone.start / 100 - PAD, (phone.start + phone.duration) / 100 - PAD
            start, end = max(start, 0.0), min(end, len(samples) / RATE)
            if end > start + 1e-6:
                phones.append((start, end, "SIL" if phone.name[0] == "+" else phone.name))
    if phones and phones[-1][2] == "SIL":
        phones[-1] = (phones[-1][0], len(samples) / RATE, "SIL")
    return phones


def main() -> None:
    folder, text, out = (Path(argument) for argument in sys.argv[1:4]) if sys.argv[1:] else (HERE, None, HERE / "phones.ctm")
    files = {file.relative_to(folder).with_suffix("").as_posix(): file for file in find_audio([folder], ffmpeg=True)}
    decoder, lines, seconds = make_decoder(get_model_path("en-us/cmudict-en-us.dict")), [], 0.0
    for line in (text.read_text("utf-8") if text else TEXTS).splitlines():
        name, _, spoken = line.partition(":")
        words = words_of(spoken)
        if line.startswith(";") or name not in files or not words:
            continue
        samples = np.round(load_audio(files[name], ffmpeg=True).numpy() * 32768).astype(np.int16)
        try:
            phones = align(decoder, samples, words)
        except RuntimeError as error:
            print(f"{name} could not be aligned: {error}")
            continue
        seconds += len(samples) / RATE
        lines += [f"{name} 1 {start:.3f} {end - start:.3f} {label}\n" for start, end, label in phones]
    out.write_text("".join(lines), encoding="utf-8")
    print(f"{out}: {len(lines)} phones in {seconds:.1f} s of speech")


if __name__ == "__main__":
    main()
