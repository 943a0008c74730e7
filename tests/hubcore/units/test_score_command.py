"""`hubcore units score`: its table, its JSON, its picture, and what it names."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hubcore.units import Units, write_units
from tests.running import command


@pytest.fixture
def corpus(tmp_path):
    starts = np.arange(10) * 0.02
    times = np.stack([starts, starts + 0.025], axis=1)
    units = {name: Units(np.array([1, 1, 1, 2, 2, 2, 2, 9, 9, 9]), times=times) for name in ("a", "b", "only/units")}
    write_units(tmp_path / "some.npz", units)
    write_units(tmp_path / "same.txt", units)
    lines = [f"{name} 1 0 0.06 A\n{name} 1 0.06 0.08 B\n{name} 1 0.14 0.07 SIL\n" for name in ("a", "b", "only/phones")]
    (tmp_path / "phones.ctm").write_text("".join(lines))
    return tmp_path


@pytest.mark.slow
def test_the_command_prints_a_table_names_what_is_missing_and_draws(corpus):
    picture = corpus / "p.png"
    done = command(
        "units",
        "score",
        corpus / "some.npz",
        corpus / "same.txt",
        "-r",
        corpus / "phones.ctm",
        "--frame-stride",
        0.02,
        "-o",
        picture,
    )
    assert done.exit_code == 0, done.output
    table = [line.split() for line in done.output.splitlines()]
    assert table[2] == ["some", "1.0000", "1.0000", "1.0000", "3", "3", "20"]
    assert table[3][0] == "same"
    said = (
        "some, same: 2 utterances; 1 without an alignment (only/units); 1 without units (only/phones); 0 frames without a label"
    )
    assert said in done.output
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_command_gives_json(corpus):
    done = command("units", "score", corpus / "some.npz", "-r", corpus / "phones.ctm", "--json", "--ignore", "SIL")
    (found,) = json.loads(done.output)
    assert found["without_reference"] == ["only/units"]
    assert found["without_units"] == ["only/phones"]
    assert (found["phones"], found["units"], found["counts"]) == (["B", "A"], [1, 2], [[0, 8], [6, 0]])
    assert (found["pnmi"], found["frames"], found["unlabelled"]) == (pytest.approx(1.0), 14, 6)


def test_the_command_warns_of_a_wrong_stride_and_reads_a_map(corpus):
    (corpus / "phones.map").write_text("A x a\nB b\nSIL\n")
    done = command(
        "units",
        "score",
        corpus / "same.txt",
        "-r",
        corpus / "phones.ctm",
        "--frame-stride",
        0.01,
        "--map",
        corpus / "phones.map",
    )
    assert done.exit_code == 0, done.output
    assert "units last 0.2 s, and the labels of these utterances 0.4 s: check the frame stride" in done.output
    missing = command("units", "score", corpus / "same.txt", "-r", corpus / "phones.ctm", "--map", corpus / "no.map")
    assert (missing.exit_code, "no.map cannot be read" in missing.output) == (2, True)
