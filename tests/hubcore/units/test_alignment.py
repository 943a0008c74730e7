"""Alignments: each format gives the same segments, and what is malformed is named by file and line."""

from __future__ import annotations

import codecs

import numpy as np
import pytest

from hubcore.errors import ExtractionError, OptionError
from hubcore.units import read_alignment
from hubcore.units.alignment import Segment

SEGMENTS = (Segment(0.0, 0.25, "sil"), Segment(0.25, 0.4, "ʃ"), Segment(0.4, 0.5, 'a "b"'))
LONG = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 0.5
tiers? <exists>
size = 3
item []:
    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 0.5
        intervals: size = 1
        intervals [1]:
            xmin = 0
            xmax = 0.5
            text = "no 7 ! <exists>"
    item [2]:
        class = "TextTier"
        name = "clicks"
        xmin = 0
        xmax = 0.5
        points: size = 1
        points [1]:
            number = 0.1
            mark = "7"
    item [3]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 0.5
        intervals: size = 3
        intervals [1]:
            xmin = 0
            xmax = 0.25
            text = ""
        intervals [2]:
            xmin = 0.25
            xmax = 4e-1
            text = "ʃ"
        intervals [3]:
            xmin = 0.4
            xmax = 0.5
            text = "a ""b\"""
"""
SHORT = '''File type = "ooTextFile"
Object class = "TextGrid"

0
0.5
<exists>
1
"IntervalTier"
"speaker - phones"
0
0.5
3
0
0.25
""
0.25
0.4
"ʃ"
0.4
0.5
"a ""b"""
'''


def write(folder, name, text, encoding="utf-8"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def segments(path, **options):
    return {name: one.segments for name, one in read_alignment(path, **options).items()}


@pytest.mark.parametrize("text", [LONG, SHORT, LONG.replace("\n", "\r\n")], ids=["long", "short", "long of Windows"])
@pytest.mark.parametrize(
    "bom, encoding", [("", "utf-8"), ("\ufeff", "utf-8"), ("\ufeff", "utf-16-le"), ("\ufeff", "utf-16-be")]
)
def test_text_grids_of_both_forms_and_of_each_encoding(text, bom, encoding, tmp_path):
    path = write(tmp_path, "a.TextGrid", bom + text, encoding)
    assert segments(path) == {"a": SEGMENTS}


def test_a_tier_is_chosen_by_name(tmp_path):
    path = write(tmp_path, "a.TextGrid", LONG)
    assert segments(path, tier="words") == {"a": (Segment(0.0, 0.5, "no 7 ! <exists>"),)}
    with pytest.raises(ExtractionError, match=r"no tier 'clicks' of intervals\. There are phones, words\."):
        read_alignment(path, tier="clicks")
    two = write(tmp_path, "b.TextGrid", LONG.replace('"phones"', '"sounds"'))
    with pytest.raises(ExtractionError, match=r"has 2 tiers of intervals: 'words', 'sounds'\. .*--tier"):
        read_alignment(two)


CTM = {
    "a channel": "a 1 0 0.25 sil\na 1 0.25 0.15 B\nb/c 1 0.1 0.2 B\n",
    "a channel and a confidence": "a A 0 0.25 sil 1.0\na A 0.25 0.15 B NA\nb/c A 0.1 0.2 B 0.3\n",
    "no channel": "a 0.00 0.25 sil\na 0.25 0.15 B\nb/c 0.1 0.2 B\n",
    "no channel, a confidence, comments": ";; made by\n\na 0.00 0.25 sil 1\nb/c 0.1 0.2 B .5\na 0.25 0.15 B -3.2\n",
    "another order": "b/c 1 0.1 0.2 B\na 1 0.25 0.15 B\na 1 0 0.25 sil\n",
}


@pytest.mark.parametrize("text", CTM.values(), ids=CTM)
def test_ctm_with_and_without_a_channel(text, tmp_path):
    expected = {"a": (Segment(0.0, 0.25, "sil"), Segment(0.25, 0.4, "B")), "b/c": (Segment(0.1, 0.3, "B"),)}
    path = write(tmp_path, "x.ctm", text)
    assert segments(path) == expected
    assert segments(tmp_path) == expected


def test_numbers_may_be_labels_of_a_ctm_with_a_channel(tmp_path):
    assert segments(write(tmp_path, "x.ctm", "a 1 0.00 0.25 7\n")) == {"a": (Segment(0.0, 0.25, "7"),)}


def test_a_folder_of_timit(tmp_path):
    write(tmp_path, "DR1/SX1.PHN", "0 4000 h#\n4000 6400 sh\n")
    write(tmp_path, "DR2/SX1.phn", "0 4000 h#\n")
    write(tmp_path, "DR2/SX1.WRD", "not an alignment of phones")
    assert segments(tmp_path) == {
        "DR1/SX1": (Segment(0.0, 0.25, "h#"), Segment(0.25, 0.4, "sh")),
        "DR2/SX1": (Segment(0.0, 0.25, "h#"),),
    }
    assert segments(tmp_path / "DR1", sample_rate=8000)["SX1"][1] == Segment(0.5, 0.8, "sh")


def test_the_label_at_a_moment(tmp_path):
    one = read_alignment(write(tmp_path, "x.ctm", "a 0.1 0.1 A\na 0.2 0.1 B\na 0.5 0.1 C\n"))["a"]
    moments = np.array([0.05, 0.1, 0.19, 0.2, 0.4, 0.55, 0.6])
    assert one.labels_at(moments) == [None, "A", "A", "B", None, "C", None]
    assert one.seconds == pytest.approx(0.3)


BAD = {
    "cut.TextGrid": (LONG[: len(LONG) // 2], "no whole TextGrid: it ends too early"),
    "other.TextGrid": (SHORT.replace('"TextGrid"', '"Pitch"'), "it does not begin like one"),
    "binary.TextGrid": ("ooBinaryFile\x08TextGrid", "no whole TextGrid"),
    "text.TextGrid": (SHORT.replace("0.25\n", '"x"\n', 1), "the text 'x' where a number should be"),
    "number.TextGrid": (SHORT.replace('""\n', "7\n", 1), "the number 7 where a text should be"),
    "huge.TextGrid": (SHORT.replace("\n3\n", "\n1e999\n"), "no whole TextGrid"),
    "many.TextGrid": (SHORT.replace("\n3\n", "\n1e12\n"), "it ends too early"),
    "back.TextGrid": (SHORT.replace("0.25\n", "-0.1\n", 1), "begins at 0 and ends at -0.1"),
    "a.phn": ("0 10 a\n10 5 b\n", r"a\.phn:2: the segment ends before it begins"),
    "b.phn": ("0 0.5 a\n", r"b\.phn:1: this is '0 0\.5 a'"),
    "a.ctm": ("a 1 0 0.25 A\na 1 0.25 A\n", r"a\.ctm:2: .*a name, a channel, a start, a duration, a label"),
    "b.ctm": ("a 0.00 0.25 A\na 0.25\n", r"b\.ctm:2: .*not a name, a start"),
    "c.ctm": ("a 0.00 0.25 A\na 0.25 nan B\n", r"c\.ctm:2: "),
    "d.ctm": ("a 1 0 0.25 A\na 2 0.25 0.2 A\n", r"d\.ctm:2: the utterance 'a' has several channels"),
    "e.ctm": ("a 1 0 0.25 A\na 1 0.1 0.2 B\n", r"segments of 'a' overlap at 0\.100 s"),
    "f.ctm": ("a 1 0 A\na 1 0.1 0.2 B\n", r"f\.ctm:2: "),
    "a.lab": ("0 1 a\n", r"does not end like an alignment\. The endings are \.textgrid, \.ctm, \.phn"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_malformed_is_named(name, tmp_path):
    text, said = BAD[name]
    with pytest.raises(ExtractionError, match=said):
        read_alignment(write(tmp_path, name, text))


def test_what_is_no_text_or_not_there(tmp_path):
    latin = write(tmp_path, "a.TextGrid", SHORT.replace("ʃ", "é"), "latin-1")
    with pytest.raises(ExtractionError, match="neither UTF-8 nor UTF-16"):
        read_alignment(latin)
    (tmp_path / "b.phn").write_bytes(codecs.BOM_UTF16_LE + b"0")
    with pytest.raises(ExtractionError, match="neither UTF-8 nor UTF-16"):
        read_alignment(tmp_path / "b.phn")
    with pytest.raises(ExtractionError, match="cannot be read: No such file"):
        read_alignment(tmp_path / "c.ctm")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExtractionError, match="has no file of an alignment"):
        read_alignment(tmp_path / "empty")
    with pytest.raises(OptionError, match="sample_rate is 0"):
        read_alignment(latin, sample_rate=0)


def test_one_alignment_for_an_utterance(tmp_path):
    write(tmp_path, "a.phn", "0 4000 h#\n")
    write(tmp_path, "a.TextGrid", SHORT)
    with pytest.raises(ExtractionError, match="'a' has an alignment already"):
        read_alignment(tmp_path)
